"""KafkaSources and Brokers on Kafka in virtual time: what the engine is told, and what their statuses say."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from unit.controllers.fakes import Object
from unit.controllers.machine import NAMESPACE, Machine

from glowplug.controllers import Controllers
from glowplug.controllers.eventing.engine import KafkaState
from glowplug.spec import kinds
from glowplug.spec.eventing import BrokerSpec, Destination, TriggerSpec
from glowplug.spec.kafka import KafkaSourceSpec, Topic
from glowplug.spec.kafka_security import Cluster, Security

UP = KafkaState(True, True)
EXTERNAL = "kafka.eventing.knative.dev/external.topic"


class RecordingEngine:
    """What the control loops want, as they have said it last; `state` is what they are told of Kafka."""

    def __init__(self) -> None:
        self.state = UP
        self.sources: dict[str, tuple[KafkaSourceSpec, Cluster]] = {}
        self.brokers: dict[str, tuple[BrokerSpec, Cluster, Topic]] = {}
        self.triggers: dict[str, TriggerSpec] = {}
        self.held: set[str] = set()
        # What is told of Brokers that are gone, and which topics are to go with them.
        self.ending = KafkaState()
        self.ended: dict[str, tuple[Cluster | None, Topic]] = {}

    def set_broker(self, spec: BrokerSpec) -> None:
        raise AssertionError(f"{spec.name} is on Kafka")

    def set_kafka_broker(self, spec: BrokerSpec, cluster: Cluster, topic: Topic) -> KafkaState:
        self.brokers[spec.name] = (spec, cluster, topic)
        self.held.discard(spec.name)
        return self.state

    def hold_kafka_broker(self, namespace: str, name: str) -> None:
        self.held.add(name)

    def end_kafka_broker(
        self, namespace: str, name: str, cluster: Cluster | None, topic: Topic
    ) -> KafkaState:
        self.ended[name] = (cluster, topic)
        return self.ending

    def remove_broker(self, namespace: str, name: str) -> None:
        self.brokers.pop(name, None)

    def set_trigger(self, spec: TriggerSpec) -> KafkaState:
        self.triggers[spec.name] = spec
        return self.state

    def remove_trigger(self, namespace: str, name: str) -> None:
        self.triggers.pop(name, None)

    def set_kafka_source(self, spec: KafkaSourceSpec, cluster: Cluster) -> KafkaState:
        self.sources[spec.name] = (spec, cluster)
        return self.state

    def remove_kafka_source(self, namespace: str, name: str) -> None:
        self.sources.pop(name, None)

    def broker_url(self, namespace: str, name: str) -> str:
        return f"http://127.0.0.1:8082/{namespace}/{name}"

    def job_sink_url(self, namespace: str, name: str) -> str:
        return ""

    def set_addresses(self, owner: str, addresses: Mapping[Destination, str]) -> None:
        pass

    def post(self, source: Object, url: str, headers: Mapping[str, str], body: bytes) -> None:
        pass


class KafkaMachine(Machine):
    """A machine whose control loops drive a recording engine."""

    def _start(self) -> Controllers:
        self.engine = RecordingEngine()
        controllers = Controllers(
            self.objects, self._record, lambda table: None, self.autoscaler, self.config, lambda: self.now,
            lambda: "00000", self.waited_for.__contains__, self.engine,
        )  # fmt: skip
        controllers.start()
        self.objects.changes.clear()
        return controllers


@pytest.fixture
def machine() -> KafkaMachine:
    return KafkaMachine()


def source(**spec: Any) -> Object:
    return {
        "metadata": {"namespace": NAMESPACE, "name": "late"},
        "spec": {
            "bootstrapServers": ["kafka:9092"], "topics": ["late"], "consumerGroup": "g", "consumers": 2,
            "sink": {"uri": "http://sink/"}, **spec,
        },
    }  # fmt: skip


def secret(name: str, **data: str) -> Object:
    encoded = {
        key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in data.items()
    }
    return {"metadata": {"namespace": NAMESPACE, "name": name}, "data": encoded}


def broker(**annotations: str) -> Object:
    annotations["eventing.knative.dev/broker.class"] = "Kafka"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "name": "config", "namespace": "other"}
    return {
        "metadata": {"namespace": NAMESPACE, "name": "kept", "annotations": annotations},
        "spec": {"config": config},
    }


def config(**data: str) -> Object:
    return {
        "metadata": {"namespace": "other", "name": "config"},
        "data": {k.replace("_", "."): v for k, v in data.items()},
    }


def said(machine: KafkaMachine, kind: kinds.Kind, name: str) -> dict[str, Object]:
    status = machine.objects.get(kind, NAMESPACE, name).get("status") or {}
    return {each["type"]: each for each in status.get("conditions") or ()}


def test_a_source_is_read_and_says_how_far_it_is(machine: KafkaMachine) -> None:
    machine.engine.state = KafkaState()
    machine.objects.create(kinds.KAFKA_SOURCE, source())
    machine.settle()
    assert said(machine, kinds.KAFKA_SOURCE, "late")["Ready"]["status"] == "Unknown"
    machine.engine.state = KafkaState(False, None, "kafka:9092 is not there")
    machine.controllers.wake_object(kinds.KAFKA_SOURCE, NAMESPACE, "late")
    machine.settle()
    ready = said(machine, kinds.KAFKA_SOURCE, "late")["Ready"]
    assert (ready["status"], ready["message"]) == ("False", "kafka:9092 is not there")
    machine.engine.state = UP
    machine.controllers.wake_object(kinds.KAFKA_SOURCE, NAMESPACE, "late")
    machine.settle()
    found = said(machine, kinds.KAFKA_SOURCE, "late")
    assert {type for type, each in found.items() if each["status"] == "True"} == {
        "Ready", "SinkProvided", "Deployed", "ConnectionEstablished", "InitialOffsetsCommitted",
    }  # fmt: skip
    status = machine.objects.get(kinds.KAFKA_SOURCE, NAMESPACE, "late")["status"]
    assert status["consumers"] == 2 and status["sinkUri"] == "http://sink/"
    assert status["ceAttributes"] == [
        {"type": "dev.knative.kafka.event", "source": "/apis/v1/namespaces/default/kafkasources/late#late"}
    ]
    spec, cluster = machine.engine.sources["late"]
    assert (spec.group, spec.is_ordered, cluster) == ("g", True, Cluster(("kafka:9092",)))
    machine.objects.delete(kinds.KAFKA_SOURCE, NAMESPACE, "late")
    machine.settle()
    assert not machine.engine.sources


def test_a_source_without_a_sink_reads_nothing(machine: KafkaMachine) -> None:
    ref = {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "nowhere"}
    machine.objects.create(kinds.KAFKA_SOURCE, source(sink={"ref": ref}))
    machine.settle()
    assert not machine.engine.sources
    assert said(machine, kinds.KAFKA_SOURCE, "late")["SinkProvided"]["status"] == "False"


def test_a_source_reads_its_secrets_and_follows_them(machine: KafkaMachine) -> None:
    def key(name: str) -> Object:
        return {"secretKeyRef": {"name": "kafka", "key": name}}

    sasl = {"enable": True, "user": key("user"), "password": key("password"), "type": key("type")}
    machine.objects.create(kinds.KAFKA_SOURCE, source(net={"sasl": sasl, "tls": {"enable": True}}))
    machine.settle()
    assert said(machine, kinds.KAFKA_SOURCE, "late")["Ready"]["message"] == 'there is no Secret "kafka"'
    machine.objects.create(kinds.SECRET, secret("kafka", user="me", password="one", type="SCRAM-SHA-512"))
    machine.settle()
    security = machine.engine.sources["late"][1].security
    assert security == Security("SASL_SSL", "SCRAM-SHA-512", "me", "one")
    assert "one" not in repr(security)
    changed = machine.objects.get(kinds.SECRET, NAMESPACE, "kafka")
    machine.objects.update(
        kinds.SECRET, {**changed, "data": secret("", user="me", type="OAUTHBEARER", password="1")["data"]}
    )
    machine.settle()
    assert not machine.engine.sources
    assert "OAUTHBEARER" in said(machine, kinds.KAFKA_SOURCE, "late")["Ready"]["message"]


def test_a_broker_on_kafka_waits_for_its_config(machine: KafkaMachine) -> None:
    machine.objects.create(kinds.BROKER, broker())
    machine.settle()
    ready = said(machine, kinds.BROKER, "kept")["Ready"]
    assert ready["message"] == 'there is no ConfigMap "config" in namespace other'
    machine.objects.create(
        kinds.CONFIG_MAP,
        config(bootstrap_servers="a:1, b:2", default_topic_partitions="5", default_topic_replication_factor="2",
               default_topic_config_retention_ms="1000"),
    )  # fmt: skip
    machine.settle()
    _, cluster, topic = machine.engine.brokers["kept"]
    assert cluster.servers == ("a:1", "b:2")
    assert topic == Topic("knative-broker-default-kept", 5, 2, settings={"retention.ms": "1000"})
    assert said(machine, kinds.BROKER, "kept")["TopicReady"]["status"] == "True"
    status = machine.objects.get(kinds.BROKER, NAMESPACE, "kept")["status"]
    assert status["address"]["url"] == "http://127.0.0.1:8082/default/kept"


def test_a_broker_may_have_a_topic_of_somebody_else_and_a_secret(machine: KafkaMachine) -> None:
    machine.objects.create(kinds.CONFIG_MAP, config(bootstrap_servers="a:1", auth_secret_ref_name="who"))
    machine.objects.create(kinds.BROKER, broker(**{EXTERNAL: "theirs"}))
    machine.settle()
    assert (
        said(machine, kinds.BROKER, "kept")["Ready"]["message"]
        == 'there is no Secret "who" in namespace other'
    )
    # Senders are told to come again, and not that there is no such Broker.
    assert machine.engine.held == {"kept"}
    machine.objects.create(kinds.SECRET, credentials(password="wrong"))
    machine.settle()
    _, cluster, topic = machine.engine.brokers["kept"]
    assert topic == Topic("theirs", is_external=True)
    assert cluster.security == Security("SASL_PLAINTEXT", "PLAIN", "me", "wrong")
    # The Secret is followed.
    changed = machine.objects.get(kinds.SECRET, "other", "who")
    machine.objects.update(kinds.SECRET, {**changed, "data": credentials(password="pw")["data"]})
    machine.settle()
    assert machine.engine.brokers["kept"][1].security.password == "pw"
    machine.objects.update(
        kinds.SECRET,
        {**machine.objects.get(kinds.SECRET, "other", "who"), "data": secret("", user="me")["data"]},
    )
    machine.settle()
    assert said(machine, kinds.BROKER, "kept")["Ready"]["message"].startswith('Secret "who": protocol = ')


def credentials(**data: str) -> Object:
    found = secret("who", protocol="SASL_PLAINTEXT", user="me", sasl_mechanism="PLAIN", **data)
    found["metadata"]["namespace"] = "other"
    return found


def made_broker(machine: KafkaMachine, **annotations: str) -> None:
    machine.objects.create(kinds.CONFIG_MAP, config(bootstrap_servers="a:1"))
    machine.objects.create(kinds.BROKER, broker(**annotations))
    machine.settle()
    machine.objects.delete(kinds.BROKER, NAMESPACE, "kept")
    machine.settle()


def is_there(machine: KafkaMachine) -> bool:
    return any(each["metadata"]["name"] == "kept" for each in machine.objects.list(kinds.BROKER))


def test_a_broker_stays_until_its_topic_is_gone(machine: KafkaMachine) -> None:
    made_broker(machine)
    assert is_there(machine) and not machine.engine.brokers
    cluster, topic = machine.engine.ended["kept"]
    assert cluster == Cluster(("a:1",)) and topic.name == "knative-broker-default-kept"
    # A machine that is started anew goes on with it, even if the ConfigMap is gone by then.
    machine.objects.delete(kinds.CONFIG_MAP, "other", "config")
    machine.restart()
    machine.settle()
    assert machine.engine.ended["kept"][0] == Cluster(("a:1",))
    machine.engine.ending = UP
    machine.controllers.wake_object(kinds.BROKER, NAMESPACE, "kept")
    machine.settle()
    assert not is_there(machine)


def test_a_broker_goes_and_its_topic_stays_where_kafka_is_not_there(machine: KafkaMachine) -> None:
    machine.engine.ending = KafkaState(False, None, "a:1 is not there")
    made_broker(machine)
    assert not is_there(machine)
    assert ("Warning", "TopicNotDeleted") in [(each[1], each[2]) for each in machine.events]


def test_a_broker_whose_topic_never_was_goes_at_once(machine: KafkaMachine) -> None:
    machine.engine.state = KafkaState(False, None, "a:1 is not there")
    made_broker(machine)
    assert not is_there(machine) and not machine.engine.ended


def test_a_topic_of_somebody_else_is_never_deleted(machine: KafkaMachine) -> None:
    made_broker(machine, **{EXTERNAL: "theirs"})
    assert not is_there(machine) and not machine.engine.ended


def test_a_topic_that_was_somebody_elses_is_not_deleted_either(machine: KafkaMachine) -> None:
    """The annotation goes while nothing works: what the status says is still the other's topic."""
    machine.objects.create(kinds.CONFIG_MAP, config(bootstrap_servers="a:1"))
    machine.objects.create(kinds.BROKER, broker(**{EXTERNAL: "theirs"}))
    machine.settle()
    machine.objects.update(
        kinds.CONFIG_MAP, {**machine.objects.get(kinds.CONFIG_MAP, "other", "config"), "data": {}}
    )
    found = machine.objects.get(kinds.BROKER, NAMESPACE, "kept")
    del found["metadata"]["annotations"][EXTERNAL]
    machine.objects.update(kinds.BROKER, found)
    machine.settle()
    machine.objects.delete(kinds.BROKER, NAMESPACE, "kept")
    machine.settle()
    assert not is_there(machine) and not machine.engine.ended


def test_a_broker_outlives_its_config(machine: KafkaMachine) -> None:
    machine.objects.create(kinds.CONFIG_MAP, config(bootstrap_servers="a:1", default_topic_partitions="4"))
    machine.objects.create(kinds.BROKER, broker())
    machine.settle()
    machine.objects.delete(kinds.CONFIG_MAP, "other", "config")
    machine.settle()
    _, cluster, topic = machine.engine.brokers["kept"]
    assert (cluster.servers, topic.partitions) == (("a:1",), 4)


def test_a_trigger_is_ready_once_its_group_has_offsets(machine: KafkaMachine) -> None:
    machine.objects.create(kinds.CONFIG_MAP, config(bootstrap_servers="a:1"))
    machine.objects.create(kinds.BROKER, broker())
    machine.engine.state = KafkaState(True, None)
    spec = {"broker": "kept", "subscriber": {"uri": "http://sink/"}}
    machine.objects.create(kinds.TRIGGER, {"metadata": {"namespace": NAMESPACE, "name": "t"}, "spec": spec})
    machine.settle()
    assert said(machine, kinds.TRIGGER, "t")["SubscriptionReady"]["status"] == "Unknown"
    machine.engine.state = UP
    machine.controllers.wake_object(kinds.TRIGGER, NAMESPACE, "t")
    machine.settle()
    assert said(machine, kinds.TRIGGER, "t")["Ready"]["status"] == "True"


def test_without_confluent_kafka_it_says_how_to_get_it(machine: KafkaMachine) -> None:
    machine.engine.state = KafkaState(problem="pip install 'glowplug[kafka]'", is_missing=True)
    machine.objects.create(kinds.KAFKA_SOURCE, source())
    machine.settle()
    deployed = said(machine, kinds.KAFKA_SOURCE, "late")["Deployed"]
    assert (deployed["status"], deployed["reason"]) == ("False", "KafkaNotInstalled")
