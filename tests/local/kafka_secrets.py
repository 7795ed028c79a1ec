"""Secrets with Knative's keys for a Kafka under test: right ones for each way to talk to it, and wrong ones."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.kafka_certificates import Authority
from local.kafka_lab import BOTH, EXPIRED, MUTUAL, PASSWORD, SASL, TLS, USER, KafkaLab

WRONG_PASSWORD = "closed-sesame"
_NO_KEY = "no-key-at-all"
_SCRAM = {"sasl.mechanism": "SCRAM-SHA-512"}


@dataclass(frozen=True)
class Auth:
    """What a Secret says, which of Kafka's listeners it is for, and, of a wrong one, what is then to be said."""

    way: str
    data: Mapping[str, str]
    said: str = ""

    def secret(self, name: str) -> dict[str, Any]:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in self.data.items()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}

    def net(self, name: str) -> dict[str, Any]:
        """The `net` of a KafkaSource that reads the Secret `name`."""

        def block(**fields: str) -> dict[str, Any]:
            keys = {field: key for field, key in fields.items() if key in self.data}
            references = {field: {"secretKeyRef": {"name": name, "key": key}} for field, key in keys.items()}
            return {"enable": True, **references}

        protocol, found = self.data["protocol"], {}
        if protocol.startswith("SASL"):
            found["sasl"] = block(user="user", password="password", type="sasl.mechanism")
        if protocol.endswith("SSL"):
            found["tls"] = block(caCert="ca.crt", cert="user.crt", key="user.key")
        return found


class Auths:
    """By name: `good` ones, and `bad` ones with what is wrong."""

    def __init__(self, kafka: KafkaLab) -> None:
        own = kafka.authority
        mine, old, strange = (
            own.signed("me"),
            own.signed("me", is_expired=True),
            Authority("others").signed("me"),
        )
        trust = {"ca.crt": own.certificate}
        alone = {"protocol": "SSL", "user.skip": "true", **trust}
        both = {"protocol": "SASL_SSL", "user": USER, "password": PASSWORD, **trust}
        wrong = {**both, "password": WRONG_PASSWORD}

        def pair(certificate: str, key: str) -> dict[str, str]:
            return {"protocol": "SSL", **trust, "user.crt": certificate, "user.key": key}

        self.good = {
            "tls": Auth(TLS, alone),
            "mutual": Auth(MUTUAL, pair(mine.certificate, mine.key)),
            "plain": Auth(BOTH, both),
            "scram": Auth(BOTH, {**both, **_SCRAM}),
            "user": Auth(SASL, {"protocol": "SASL_PLAINTEXT", "user": USER, "password": PASSWORD}),
        }
        refused = "refuses the client's certificate"
        self.bad = {
            "wrong-ca": Auth(
                TLS, {**alone, "ca.crt": Authority("others").certificate}, "not trusted with this CA"
            ),
            "expired": Auth(EXPIRED, alone, "has expired"),
            "no-client": Auth(MUTUAL, alone, "asks for a certificate"),
            "old-client": Auth(MUTUAL, pair(old.certificate, old.key), refused),
            "stranger": Auth(MUTUAL, pair(strange.certificate, strange.key), refused),
            "no-pem": Auth(MUTUAL, pair(mine.certificate, _NO_KEY), "not in PEM format"),
            "no-tls": Auth(SASL, alone, "speaks no TLS"),
            "no-plain": Auth(BOTH, {**both, "protocol": "SASL_PLAINTEXT"}, "speaks TLS"),
            "wrong-plain": Auth(BOTH, wrong, "nvalid username or password"),
            "wrong-scram": Auth(BOTH, {**wrong, **_SCRAM}, "nvalid credentials"),
        }
        # A line of each key is enough to know it by.
        self._private = [each.key.splitlines()[1] for each in (mine, old, strange)]

    def leaked_in(self, text: str) -> list[str]:
        """The passwords and keys that a log or a status says, which it must not."""
        return [each for each in (PASSWORD, WRONG_PASSWORD, _NO_KEY, *self._private) if each in text]
