"""KafkaSources and Brokers on Kafka of a whole machine, against a real Kafka that is killed on the way."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from local.kafka_lab import PASSWORD, USER, KafkaLab, needs_kafka
from local.machine_lab import MachineLab, Object, wait_for

pytestmark = needs_kafka
_DELIVERY = {"retry": 3, "backoffPolicy": "linear", "backoffDelay": "PT0.05S"}


class Sink:
    """Takes events on a free port; events with the data `poison` are refused for now, `wrong` for ever."""

    def __init__(self) -> None:
        self.events: list[tuple[dict[str, str], bytes]] = []
        self.reply: bytes = b""
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                sink.events.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response({b'"poison"': 503, b'"wrong"': 400}.get(body, 200))
                answer = sink.reply if body == b'"question"' else b""
                if answer:
                    for name, value in {
                        "specversion": "1.0",
                        "id": "r",
                        "source": "/s",
                        "type": "answered",
                    }.items():
                        self.send_header(f"ce-{name}", value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="sink")
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def bodies(self) -> list[bytes]:
        return [body for _, body in list(self.events)]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineLab]:
    lab = MachineLab(tmp_path_factory.mktemp("machine") / "data")
    lab.up()
    yield lab
    lab.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    found = Sink()
    yield found
    found.close()


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


def broker_on(kafka: KafkaLab) -> list[Object]:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "kafka-broker-config"}
    return [
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kafka-broker-config"},
            "data": {
                "bootstrap.servers": kafka.servers, "default.topic.partitions": "3",
                "default.topic.replication.factor": "1",
            },
        },
        {
            "apiVersion": "eventing.knative.dev/v1", "kind": "Broker",
            "metadata": {"name": "kept", "annotations": {"eventing.knative.dev/broker.class": "Kafka"}},
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


def condition(machine: MachineLab, kind: str, name: str, type: str) -> Object:
    found: list[Object] = (machine.get(kind, name).get("status") or {}).get("conditions") or []
    return next((each for each in found if each["type"] == type), {"status": ""})


def test_a_kafka_source_sends_what_is_in_its_topic(machine: MachineLab, kafka: KafkaLab, sink: Sink) -> None:
    kafka.topic("late", 2)
    kafka.topic("late-dead", 1)
    kafka.produce("late", [b'"one"', b'"poison"', b'"wrong"', b'"two"'], partition=0)
    machine.apply(kafka_source("late", kafka, "late", sink.url))
    ready(machine, "kafkasource/late")
    wait_for(lambda: b'"two"' in sink.bodies(), "what comes after the poison")
    assert sink.bodies() == [b'"one"', *[b'"poison"'] * 4, b'"wrong"', b'"two"']
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
    assert b'"after"' not in sink.bodies()


def test_a_kafka_source_says_what_is_wrong(machine: MachineLab, kafka: KafkaLab, sink: Sink) -> None:
    refused = kafka_source(
        "wrong", kafka, "late", sink.url, initialOffset="newest", net={"sasl": {"enable": True}}
    )
    refused["spec"]["bootstrapServers"] = ["nowhere"]
    path = machine.data_dir.parent / "wrong.json"
    path.write_text(json.dumps(refused))
    said = machine.kubectl("apply", "-f", str(path), check=False).stderr
    for field in ("spec.bootstrapServers[0]", "spec.initialOffset", "spec.net.sasl.user.secretKeyRef"):
        assert field in said, said


def test_a_kafka_source_reads_with_the_user_of_a_secret(
    machine: MachineLab, kafka: KafkaLab, sink: Sink
) -> None:
    kafka.topic("guarded", 1)
    kafka.produce("guarded", [b'"one"'])
    keys = [{"secretKeyRef": {"name": "kafka", "key": key}} for key in ("user", "password")]
    net = {"sasl": {"enable": True, "user": keys[0], "password": keys[1]}}
    source = kafka_source("secret", kafka, "guarded", sink.url, net=net)
    source["spec"]["bootstrapServers"] = [kafka.sasl_servers]
    machine.apply(source)

    def link() -> Object:
        return condition(machine, "kafkasource", "secret", "ConnectionEstablished")

    wait_for(lambda: link()["status"] == "False", "the missing Secret to be said")
    assert 'no Secret "kafka"' in condition(machine, "kafkasource", "secret", "Ready")["message"]
    machine.apply(secret(USER, "wrong"))
    wait_for(lambda: "uthentication" in link().get("message", ""), "the wrong password to be said")
    assert not sink.events
    machine.apply(secret(USER, PASSWORD))
    wait_for(lambda: sink.bodies() == [b'"one"'], "what is in the topic")
    ready(machine, "kafkasource/secret")
    machine.kubectl("delete", "kafkasource,secret", "--all")


def secret(user: str, password: str) -> Object:
    data = {"user": user, "password": password}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kafka"}, "data": encoded}


def test_a_broker_on_kafka_loses_nothing_when_kafka_and_the_machine_are_killed(
    machine: MachineLab, kafka: KafkaLab, sink: Sink
) -> None:
    machine.apply(*broker_on(kafka))
    ready(machine, "broker/kept")
    url = str(machine.get("broker", "kept")["status"]["address"]["url"])
    filters = [{"exact": {"type": "asked"}}]
    machine.apply(
        trigger("all", sink.url, filters=filters),
        trigger("none", sink.url, filters=[{"exact": {"type": "no"}}]),
    )
    ready(machine, "trigger/all", "trigger/none")
    assert send(machine, url, "bad", type="").status_code == 400
    accepted = []
    for turn in range(3):
        for number in range(100):
            id = f"{turn}-{number}"
            if send(machine, url, id).status_code == 202:
                accepted.append(id)
        if turn == 0:
            kafka.end()
            assert send(machine, url, "down").status_code == 503
            kafka.up()
        elif turn == 1:
            machine.kill()
            machine.up()
            ready(machine, "broker/kept", "trigger/all")
            url = str(machine.get("broker", "kept")["status"]["address"]["url"])
    assert len(accepted) >= 200
    ids = lambda: {headers["ce-id"] for headers, _ in list(sink.events)}  # noqa: E731
    wait_for(lambda: set(accepted) <= ids(), "every accepted event")
    assert not any("ce-knativebrokerttl" in headers for headers, _ in sink.events)
    assert "knativearrivaltime" in str(sink.events[0][0])
    machine.kubectl("delete", "trigger", "--all")


def test_a_broker_on_kafka_keeps_replies_and_dead_letters(
    machine: MachineLab, kafka: KafkaLab, sink: Sink
) -> None:
    machine.apply(*broker_on(kafka))
    machine.apply(trigger("asked", sink.url, filters=[{"exact": {"type": "asked"}}]))
    answers = Sink()
    try:
        machine.apply(trigger("answered", answers.url, filters=[{"exact": {"type": "answered"}}]))
        ready(machine, "broker/kept", "trigger/asked", "trigger/answered")
        url = str(machine.get("broker", "kept")["status"]["address"]["url"])
        sink.reply = b"12"
        assert send(machine, url, "q", "question").status_code == 202
        assert send(machine, url, "p", "poison").status_code == 202
        wait_for(lambda: answers.events, "the reply")
        assert answers.events[0][1] == b"12"
        (dead,) = kafka.records("knative-broker-default-kept-dead-letters", 1)
        headers = dict(dead.headers())
        assert headers["ce_id"] == b"p" and headers["ce_knativeerrorcode"] == b"503"
        assert sink.bodies().count(b'"poison"') == 4
    finally:
        answers.close()
    machine.kubectl("delete", "trigger,broker", "--all")
    ends_at = time.monotonic() + 60
    while send(machine, url, "gone").status_code != 404:
        assert time.monotonic() < ends_at


def test_a_broker_uses_a_topic_that_somebody_else_makes(
    machine: MachineLab, kafka: KafkaLab, sink: Sink
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
    url = str(machine.get("broker", "kept")["status"]["address"]["url"])
    assert send(machine, url, "here").status_code == 202
    # What others write there is an event of the Broker too.
    kafka.produce("theirs", [b'"there"'], headers={"ce_specversion": "1.0", "ce_id": "there", "ce_source": "/s",
                                                  "ce_type": "t", "content-type": "application/json"})  # fmt: skip
    wait_for(lambda: {h["ce-id"] for h, _ in list(sink.events)} == {"here", "there"}, "both events")
    machine.kubectl("delete", "trigger,broker", "--all")
    # It is not the machine's to delete.
    assert len(kafka.records("theirs", 2)) == 2
