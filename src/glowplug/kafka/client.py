"""confluent-kafka, imported when it is needed, and what all of its clients are told.

It is an optional part: a machine without Kafka runs without it.
"""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

from glowplug.errors import ConfigError, GlowplugError
from glowplug.spec.kafka_security import Cluster

# What librdkafka says of itself goes where everything else goes.
LOG = logging.getLogger(__name__)
INSTALL = "pip install 'glowplug[kafka]'"


class KafkaError(GlowplugError):
    """The cluster cannot be reached, or does not do what it was asked."""


def confluent() -> ModuleType:
    """The module. Raises ConfigError where it is not installed."""
    try:
        import confluent_kafka
    except ImportError as error:
        raise ConfigError(f"Kafka needs confluent-kafka: {error}", hint=INSTALL) from error
    return confluent_kafka


def admin() -> ModuleType:
    """Its module for topics. Raises ConfigError where it is not installed."""
    confluent()
    import confluent_kafka.admin

    return confluent_kafka.admin


def settings(cluster: Cluster) -> dict[str, Any]:
    """What a client of any kind needs to reach the cluster, in librdkafka's words."""
    security = cluster.security
    found = {
        "bootstrap.servers": ",".join(cluster.servers),
        "client.id": "glowplug",
        "security.protocol": security.protocol,
        "sasl.mechanism": security.mechanism,
        "sasl.username": security.user,
        "sasl.password": security.password,
        "ssl.ca.pem": security.ca,
        "ssl.certificate.pem": security.certificate,
        "ssl.key.pem": security.key,
    }
    own: dict[str, Any] = {name: value for name, value in found.items() if value}
    # A server that is back is found within a second, and not after ten. What is wrong with a connection is told by
    # whoever uses it, once; librdkafka would log every try.
    return own | {"reconnect.backoff.max.ms": 1000, "logger": LOG, "log_level": 2}
