"""What is wrong with a KafkaSource is said all at once; its defaults are Knative's; Secrets are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from glowplug.spec.eventing_local import kafka_source
from glowplug.spec.kafka import Topic, default_kafka_source, parse_kafka_source, servers_of, topic_of
from glowplug.spec.kafka_security import KafkaProblem, Security, security_of_secret

GOOD = {
    "bootstrapServers": ["a.kafka:9092", "[::1]:9092"],
    "topics": ["late"],
    "sink": {"uri": "http://sink"},
}


def source(labels: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    meta = {"namespace": "flying", "name": "late", "labels": dict(labels or {})}
    return {"metadata": meta, "spec": {**GOOD, **spec}}


def fields(obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    return [problem.field for problem in kafka_source(obj, old)]


def test_a_good_one_passes_and_is_given_knatives_defaults() -> None:
    assert fields(source()) == []
    found = default_kafka_source(source())["spec"]
    assert found["consumerGroup"].startswith("knative-kafka-source-")
    assert (found["consumers"], found["initialOffset"], found["ordering"]) == (1, "latest", "ordered")
    spec = parse_kafka_source(source(delivery={"retry": 3}))
    assert spec.source("late") == "/apis/v1/namespaces/flying/kafkasources/late#late"
    assert spec.delivery.retry == 3 and parse_kafka_source(source()).delivery.retry == 10


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"bootstrapServers": []}, "spec.bootstrapServers"),
        ({"bootstrapServers": ["kafka"]}, "spec.bootstrapServers[0]"),
        ({"topics": []}, "spec.topics"),
        ({"topics": ["a b"]}, "spec.topics[0]"),
        ({"initialOffset": "newest"}, "spec.initialOffset"),
        ({"ordering": "some"}, "spec.ordering"),
        ({"consumers": -1}, "spec.consumers"),
        ({"sink": {}}, "spec.sink"),
        ({"sink": {"ref": {"apiVersion": "v1", "kind": "Service", "name": "s"}}}, "spec.sink.ref.kind"),
        ({"delivery": {"retry": -1}}, "spec.delivery.retry"),
        (
            {"net": {"tls": {"caCert": {"secretKeyRef": {"name": "s"}}}}},
            "spec.net.tls.caCert.secretKeyRef.key",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_field(spec: dict[str, Any], field: str) -> None:
    assert fields(source(**spec)) == [field]


def test_everything_is_said_at_once() -> None:
    wrong = source({"kafkasources.sources.knative.dev/key-type": "date"}, topics=[], ordering="x")
    assert len(fields(wrong)) == 3


def test_the_group_stays() -> None:
    assert fields(source(consumerGroup="b"), source(consumerGroup="a")) == ["spec.consumerGroup"]
    assert fields(source(consumerGroup="a"), source(consumerGroup="a")) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "protocol = ''"),
        ({"protocol": b"SASL_SSL"}, "a user and a password"),
        ({"protocol": b"SASL_SSL", "user": b"u", "password": b"p", "sasl.mechanism": b"GSSAPI"}, "GSSAPI"),
        (
            {"protocol": b"SASL_SSL", "user": b"u", "password": b"p", "user.crt": b"c"},
            "a certificate needs its key",
        ),
        ({"protocol": b"SSL", "ca.crt": b"c"}, "user.skip"),
        ({"protocol": b"SSL", "user.skip": b"perhaps"}, "user.skip = 'perhaps'"),
        ({"protocol": b"SASL_SSL", "user": b"\xff", "password": b"p"}, "the key user is not UTF-8"),
    ],
)
def test_a_secret_that_is_not_enough_is_refused(data: dict[str, bytes], said: str) -> None:
    with pytest.raises(KafkaProblem, match=said):
        security_of_secret(data)


def test_a_secret_is_read_and_not_shown() -> None:
    data = {"protocol": b"SASL_SSL", "user": b"me", "password": b"very-secret\n", "ca.crt": b"PEM"}
    found = security_of_secret(data)
    assert found == Security("SASL_SSL", "PLAIN", "me", "very-secret", "PEM")
    assert "very-secret" not in repr(found)


def test_a_client_without_a_certificate_says_so() -> None:
    data = {"protocol": b"SSL", "ca.crt": b"CA", "user.crt": b"C", "user.key": b"K"}
    assert security_of_secret(data) == Security("SSL", ca="CA", certificate="C", key="K")
    assert security_of_secret({**data, "user.skip": b"true"}) == Security("SSL", ca="CA")


def test_a_brokers_config() -> None:
    named = {"metadata": {"namespace": "n", "name": "b"}}
    assert topic_of(named, {}) == Topic("knative-broker-n-b", 10, 3)
    for text in ("0", "many", "-1", "99999"):
        with pytest.raises(KafkaProblem, match=r"default\.topic\.partitions"):
            topic_of(named, {"default.topic.partitions": text})
    with pytest.raises(KafkaProblem, match=r"bootstrap\.servers is missing"):
        servers_of({})
