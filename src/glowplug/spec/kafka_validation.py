"""What is wrong with a KafkaSource, in Knative's words where it has them, all at once.

Source: eventing-kafka-broker control-plane/pkg/apis/sources/v1/kafka_validation.go. A half reference to a Secret and a
server without a port are found here, and not when nothing comes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from glowplug.errors import Problem
from glowplug.spec.eventing_validation import delivery_problems, destination_problems
from glowplug.spec.kafka import EARLIEST, KEY_TYPE, LATEST, ORDERED, UNORDERED, KeyType
from glowplug.spec.validation import (
    FORBIDDEN,
    Object,
    as_int,
    as_list,
    as_object,
    as_text,
    invalid_value,
    metadata,
    missing,
    under,
)

_SERVER = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_REFERENCES = {"sasl": ("user", "password", "type"), "tls": ("cert", "key", "caCert")}


def kafka_source_problems(obj: Object, old: Object | None = None) -> Iterator[Problem]:
    """Every problem of a KafkaSource; `old` is the object that it replaces."""
    spec = as_object(obj.get("spec"))
    yield from under("spec", _places(spec))
    yield from under("spec", _reading(spec))
    yield from under("spec.net", _net(as_object(spec.get("net"))))
    yield from under("spec.delivery", delivery_problems(as_object(spec.get("delivery"))))
    if not as_object(spec.get("sink")):
        yield missing("spec.sink")
    else:
        yield from under("spec.sink", destination_problems(as_object(spec["sink"])))
    key_type = as_object(metadata(obj).get("labels")).get(KEY_TYPE)
    known = [each.value for each in KeyType]
    if key_type is not None and key_type not in known:
        yield invalid_value(f"metadata.labels[{KEY_TYPE}]", key_type, f"expected one of {', '.join(known)}")
    if old is not None:
        before = as_object(old.get("spec")).get("consumerGroup")
        if before and spec.get("consumerGroup") != before:
            yield Problem("spec.consumerGroup", "Immutable fields changed (-old +new)", FORBIDDEN)


def _places(spec: Object) -> Iterator[Problem]:
    for name, form, expected in (
        ("bootstrapServers", _SERVER, "host:port"),
        ("topics", _TOPIC, "the name of a topic"),
    ):
        values = as_list(spec.get(name))
        if not values:
            yield missing(name)
        for index, value in enumerate(values):
            if not form.fullmatch(as_text(value)):
                yield invalid_value(f"{name}[{index}]", value, f"expected {expected}")


def _reading(spec: Object) -> Iterator[Problem]:
    for name, choices in (("initialOffset", (EARLIEST, LATEST)), ("ordering", (ORDERED, UNORDERED))):
        value = spec.get(name)
        if value not in (None, "") and value not in choices:
            yield invalid_value(name, value, f"expected {' or '.join(choices)}")
    consumers = as_int(spec.get("consumers"))
    if consumers is not None and consumers < 0:
        yield invalid_value("consumers", consumers, "expected 0 or more")


def _net(net: Object) -> Iterator[Problem]:
    for name, fields in _REFERENCES.items():
        block = as_object(net.get(name))
        for field in fields:
            reference = as_object(block.get(field)).get("secretKeyRef")
            if reference is None:
                continue
            for part in ("name", "key"):
                if not as_text(as_object(reference).get(part)):
                    yield missing(f"{name}.{field}.secretKeyRef.{part}")
    sasl = as_object(net.get("sasl"))
    if sasl.get("enable") is True:
        for field in ("user", "password"):
            if not as_object(sasl.get(field)).get("secretKeyRef"):
                yield missing(f"sasl.{field}.secretKeyRef")
