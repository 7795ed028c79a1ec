"""KafkaSources and Brokers on Kafka of a whole machine, against a real Kafka that is killed on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from local.event_sink import EventSink
from local.kafka_lab import KafkaLab, needs_kafka
from local.kafka_secrets import Auth, Auths
from local.machine_lab import MachineLab, Object, wait_for

pytestmark = needs_kafka
_DELIVERY = {"retry": 3, "backoffPolicy": "linear", "backoffDelay": "PT0.05S"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineLab]:
    lab = MachineLab(tmp_path_factory.mktemp("machine") / "data")
    lab.up()
    yield lab
    lab.close()


@pytest.fixture
def sink() -> Iterator[EventSink]:
    """Events with the data `poison` are refused for now, `wrong` for ever."""
    with EventSink(
        behaviour=lambda headers, body: {b'"poison"': 503, b'"wrong"': 400}.get(body, 200)
    ) as found:
        yield found


def kafka_source(name: str, kafka: KafkaLab, topic: str, uri: str, **spec: Any) -> Object:
    return {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "KafkaSource",
        "metadata": {"name": name, "annotations": {"glowplug.dev/dead-letter-topic": f"{topic}-dead"}},
        "spec": {
            "bootstrapServers": [kafka.servers], "topics": [topic], "initialOffset": "earliest",
            "sink": {"uri": uri}, "delivery": _DELIVERY, **spec,
        },
    }  # fmt: skip


def broker_on(kafka: KafkaLab, name: str = "kept", servers: str = "") -> list[Object]:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": name}
    return [
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {
                "bootstrap.servers": servers or kafka.servers, "default.topic.partitions": "3",
                "default.topic.replication.factor": "1",
            },
        },
        {
            "apiVersion": "eventing.knative.dev/v1", "kind": "Broker",
            "metadata": {"name": name, "annotations": {"eventing.knative.dev/broker.class": "Kafka"}},
            "spec": {"config": reference, "delivery": _DELIVERY},
        },
    ]  # fmt: skip


def trigger(name: str, uri: str, **spec: Any) -> Object:
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": name},
        "spec": {"broker": "kept", "subscriber": {"uri": uri}, **spec},
    }


def ready(machine: MachineLab, *objects: str) -> None:
    waited = machine.kubectl("wait", "--for=condition=Ready", "--timeout=60s", *objects, check=False)
    assert waited.returncode == 0, f"{waited.stderr}{machine.account()}"


def send(machine: MachineLab, url: str, id: str, data: object = "ok", type: str = "asked") -> httpx2.Response:
    headers = {"ce-specversion": "1.0", "ce-id": id, "ce-source": "/tests", "ce-type": type}
    return machine.http.post(
        url, content=json.dumps(data).encode(), headers={**headers, "content-type": "application/json"}
    )


def address(machine: MachineLab, name: str) -> str:
    return str(machine.get("broker", name)["status"]["address"]["url"])


def condition(machine: MachineLab, kind: str, name: str, type: str) -> Object:
    found: list[Object] = (machine.get(kind, name).get("status") or {}).get("conditions") or []
    return next((each for each in found if each["type"] == type), {"status": ""})


def test_a_kafka_source_sends_what_is_in_its_topic(
    machine: MachineLab, kafka: KafkaLab, sink: EventSink
) -> None:
    kafka.topic("late", 2)
    kafka.topic("late-dead", 1)
    kafka.produce("late", [b'"one"', b'"poison"', b'"wrong"', b'"two"'], partition=0)
    machine.apply(kafka_source("late", kafka, "late", sink.url))
    ready(machine, "kafkasource/late")
    wait_for(lambda: b'"two"' in sink.bodies, "what comes after the poison")
    assert sink.bodies == [b'"one"', *[b'"poison"'] * 4, b'"wrong"', b'"two"']
    headers = sink.events[0][0]
    assert headers["ce-type"] == "dev.knative.kafka.event" and headers["ce-id"] == "partition:0/offset:0"
    assert headers["ce-source"] == "/apis/v1/namespaces/default/kafkasources/late#late"
    assert [each.value() for each in kafka.records("late-dead", 2)] == [b'"poison"', b'"wrong"']
    source = machine.get("kafkasource", "late")
    assert source["spec"]["consumerGroup"].startswith("knative-kafka-source-")
    assert source["status"]["sinkUri"] == sink.url and source["status"]["consumers"] == 1
    # Deleted, it reads no more.
    machine.kubectl("delete", "kafkasource", "late")
    kafka.produce("late", [b'"after"'], partition=0)
    group = source["spec"]["consumerGroup"]
    assert kafka.committed(group, "late")[0][0] == 4
    assert b'"after"' not in sink.bodies


def test_a_kafka_source_says_what_is_wrong(machine: MachineLab, kafka: KafkaLab, sink: EventSink) -> None:
    refused = kafka_source(
        "wrong", kafka, "late", sink.url, initialOffset="newest", net={"sasl": {"enable": True}}
    )
    refused["spec"]["bootstrapServers"] = ["nowhere"]
    path = machine.data_dir.parent / "wrong.json"
    path.write_text(json.dumps(refused))
    said = machine.kubectl("apply", "-f", str(path), check=False).stderr
    for field in ("spec.bootstrapServers[0]", "spec.initialOffset", "spec.net.sasl.user.secretKeyRef"):
        assert field in said, said


@pytest.fixture(scope="module")
def auths(kafka: KafkaLab) -> Auths:
    return Auths(kafka)


def test_kafka_sources_read_over_tls_and_as_users(
    machine: MachineLab, kafka: KafkaLab, sink: EventSink, auths: Auths
) -> None:
    kafka.topic("guarded", 1)
    kafka.produce("guarded", [b'"one"'])
    every = {**auths.good, **auths.bad}

    def of(name: str, auth: Auth) -> Object:
        source = kafka_source(name, kafka, "guarded", sink.url, net=auth.net(name))
        source["spec"]["bootstrapServers"] = [kafka.at(auth.way)]
        return source

    def link(name: str) -> str:
        return str(condition(machine, "kafkasource", name, "ConnectionEstablished").get("message", ""))

    machine.apply(*(of(name, auth) for name, auth in every.items()))
    wait_for(lambda: link("tls") == 'there is no Secret "tls"', "the missing Secret to be said")
    machine.apply(*(auth.secret(name) for name, auth in every.items()))
    ready(machine, *(f"kafkasource/{name}" for name in auths.good))
    wait_for(lambda: len(sink.events) == len(auths.good), "what is in the topic, once for each source")
    for name, auth in auths.bad.items():
        wait_for(lambda name=name, auth=auth: auth.said in link(name), f"{name}: {auth.said}")  # type: ignore[misc]
    assert len(sink.events) == len(auths.good)
    # A Secret that is set right is taken up.
    machine.apply(auths.good["scram"].secret("wrong-scram"))
    ready(machine, "kafkasource/wrong-scram")
    shown = machine.kubectl("get", "kafkasource,event", "-o", "yaml").stdout
    assert not auths.leaked_in(shown + machine.directory.log.read_text())
    machine.kubectl("delete", "kafkasource,secret", "--all")


def test_brokers_are_kept_over_tls_and_as_users(
    machine: MachineLab, kafka: KafkaLab, sink: EventSink, auths: Auths
) -> None:
    every = {**auths.good, **auths.bad}
    good, bad = ("tls", "mutual", "scram"), ("expired", "wrong-plain")
    for name in (*good, *bad):
        config, broker = broker_on(kafka, name, kafka.at(every[name].way))
        config["data"]["auth.secret.ref.name"] = name
        machine.apply(every[name].secret(name), config, broker, trigger(name, sink.url, broker=name))
    ready(machine, *(f"{kind}/{name}" for name in good for kind in ("broker", "trigger")))
    for name in good:
        assert send(machine, address(machine, name), name).status_code == 202
    wait_for(lambda: sorted(sink.ids) == sorted(good), "an event of each Broker")
    for name in bad:

        def is_said(name: str = name) -> bool:
            return every[name].said in condition(machine, "broker", name, "TopicReady").get("message", "")

        wait_for(is_said, f"{name}: {every[name].said}")
        assert send(machine, address(machine, name), name).status_code == 503
    # Its Secret is followed.
    machine.apply(auths.good["plain"].secret("wrong-plain"))
    ready(machine, "broker/wrong-plain", "trigger/wrong-plain")
    shown = machine.kubectl("get", "broker,trigger,event", "-o", "yaml").stdout
    assert not auths.leaked_in(shown + machine.directory.log.read_text())
    # Without its Secret a Broker still knows who it was, and its topic goes with it.
    machine.kubectl("delete", "trigger,secret,configmap", *good)
    machine.kubectl("delete", "broker", *good, "wrong-plain")
    assert not [name for name in kafka.topics() if name.startswith("knative-broker-")]
    machine.kubectl("delete", "trigger,broker,secret", "--all")


def test_a_broker_on_kafka_loses_nothing_when_kafka_and_the_machine_are_killed(
    machine: MachineLab, kafka: KafkaLab, sink: EventSink
) -> None:
    machine.apply(*broker_on(kafka))
    ready(machine, "broker/kept")
    url = address(machine, "kept")
    filters = [{"exact": {"type": "asked"}}]
    machine.apply(
        trigger("all", sink.url, filters=filters),
        trigger("none", sink.url, filters=[{"exact": {"type": "no"}}]),
    )
    ready(machine, "trigger/all", "trigger/none")
    assert send(machine, url, "bad", type="").status_code == 400
    accepted = []

    def ask(id: str) -> None:
        if send(machine, url, id).status_code == 202:
            accepted.append(id)

    for turn in range(3):
        for number in range(100):
            ask(f"{turn}-{number}")
        if turn == 0:
            kafka.end()
            # It waits for Kafka, and is taken or is not: who gets 202 may rely on it.
            with ThreadPoolExecutor(1) as sender:
                sender.submit(ask, "down")
                kafka.up()
        elif turn == 1:
            machine.kill()
            machine.up()
            ready(machine, "broker/kept", "trigger/all")
            url = address(machine, "kept")
    assert len(accepted) >= 200
    # The group of the machine that was killed has to be missed first.
    wait_for(lambda: set(accepted) <= set(sink.ids), "every accepted event", deadline_s=120)
    assert not any("ce-knativebrokerttl" in headers for headers, _ in sink.events)
    assert "knativearrivaltime" in str(sink.events[0][0])
    machine.kubectl("delete", "trigger", "--all")


def test_a_broker_on_kafka_keeps_replies_and_dead_letters(
    machine: MachineLab, kafka: KafkaLab, sink: EventSink
) -> None:
    machine.apply(*broker_on(kafka))
    machine.apply(trigger("asked", sink.url, filters=[{"exact": {"type": "asked"}}]))
    with EventSink() as answers:
        machine.apply(trigger("answered", answers.url, filters=[{"exact": {"type": "answered"}}]))
        ready(machine, "broker/kept", "trigger/asked", "trigger/answered")
        url = address(machine, "kept")
        attributes = {"specversion": "1.0", "id": "r", "source": "/s", "type": "answered"}
        reply = {f"ce-{name}": value for name, value in attributes.items()}
        sink.replies[b'"question"'] = reply, b"12"
        assert send(machine, url, "q", "question").status_code == 202
        assert send(machine, url, "p", "poison").status_code == 202
        # What Kafka never takes is refused for good, and as a reply it is a dead letter.
        large = "x" * 2_000_000
        assert send(machine, url, "large", large).status_code == 413
        sink.replies[b'"too much"'] = reply, large.encode()
        assert send(machine, url, "m", "too much").status_code == 202
        wait_for(lambda: answers.events, "the reply")
        assert answers.events[0][1] == b"12"
        letters = kafka.records("knative-broker-default-kept-dead-letters", 2)
        told = {
            headers["ce_id"]: headers["ce_knativeerrorcode"]
            for each in letters
            for headers in [dict(each.headers())]
        }
        assert told == {b"p": b"503", b"m": b"413"}
        assert sink.bodies.count(b'"poison"') == 4
    # A Broker goes with its topic, and with what was put aside of it.
    machine.kubectl("delete", "trigger,broker", "--all")
    assert send(machine, url, "gone").status_code == 404
    assert not [name for name in kafka.topics() if name.startswith("knative-broker-default-kept")]


def test_a_broker_uses_a_topic_that_somebody_else_makes(
    machine: MachineLab, kafka: KafkaLab, sink: EventSink
) -> None:
    config, broker = broker_on(kafka)
    broker["metadata"]["annotations"]["kafka.eventing.knative.dev/external.topic"] = "theirs"
    machine.apply(config, broker)
    wait_for(
        lambda: (
            "there is no topic theirs"
            in condition(machine, "broker", "kept", "TopicReady").get("message", "")
        ),
        "the missing topic to be said",
    )
    kafka.topic("theirs", 1)
    ready(machine, "broker/kept")
    machine.apply(trigger("all", sink.url))
    ready(machine, "trigger/all")
    url = address(machine, "kept")
    assert send(machine, url, "here").status_code == 202
    # What others write there is an event of the Broker too.
    kafka.produce("theirs", [b'"there"'], headers={"ce_specversion": "1.0", "ce_id": "there", "ce_source": "/s",
                                                  "ce_type": "t", "content-type": "application/json"})  # fmt: skip
    wait_for(lambda: set(sink.ids) == {"here", "there"}, "both events")
    machine.kubectl("delete", "trigger,broker", "--all")
    # It is not the machine's to delete.
    assert len(kafka.records("theirs", 2)) == 2
