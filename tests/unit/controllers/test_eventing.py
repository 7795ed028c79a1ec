"""Brokers, Triggers, JobSinks and PingSources in virtual time: what the broker is told, and what their statuses say."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from unit.controllers.fakes import Object
from unit.controllers.machine import NAMESPACE, Machine

from glowplug.controllers import Controllers
from glowplug.controllers.eventing import jobsink
from glowplug.controllers.eventing.sinks import Resolved, Unresolved, resolve
from glowplug.spec import kinds
from glowplug.spec.eventing import BrokerSpec, Destination, Reference, TriggerSpec
from glowplug.spec.kinds import Kind

BROKER_URL = "http://127.0.0.1:8082/default/default"


class RecordingEngine:
    """What the control loops want, as they have said it last."""

    def __init__(self) -> None:
        self.brokers: dict[str, BrokerSpec] = {}
        self.triggers: dict[str, TriggerSpec] = {}
        self.addresses: dict[str, dict[Destination, str]] = {}
        self.posted: list[tuple[str, dict[str, str], bytes]] = []

    def set_broker(self, spec: BrokerSpec) -> None:
        self.brokers[spec.name] = spec

    def remove_broker(self, namespace: str, name: str) -> None:
        self.brokers.pop(name, None)

    def set_trigger(self, spec: TriggerSpec) -> None:
        self.triggers[spec.name] = spec

    def remove_trigger(self, namespace: str, name: str) -> None:
        self.triggers.pop(name, None)

    def broker_url(self, namespace: str, name: str) -> str:
        return f"http://127.0.0.1:8082/{namespace}/{name}"

    def job_sink_url(self, namespace: str, name: str) -> str:
        return f"http://127.0.0.1:8082/jobsink/{namespace}/{name}"

    def set_addresses(self, owner: str, addresses: Mapping[Destination, str]) -> None:
        self.addresses[owner] = dict(addresses)

    def post(self, source: Object, url: str, headers: Mapping[str, str], body: bytes) -> None:
        self.posted.append((url, dict(headers), body))


class EventMachine(Machine):
    """A machine whose control loops drive a recording engine, which a restart empties."""

    def _start(self) -> Controllers:
        self.engine = RecordingEngine()
        tokens = iter(range(10_000))
        controllers = Controllers(
            self.objects,
            self._record,
            lambda table: None,
            self.autoscaler,
            self.config,
            lambda: self.now,
            lambda: f"{next(tokens):05d}",
            self.waited_for.__contains__,
            self.engine,
        )
        controllers.start()
        self.objects.changes.clear()
        return controllers


@pytest.fixture
def machine() -> EventMachine:
    return EventMachine()


def obj(kind: Kind, name: str, spec: Object, **annotations: str) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec}


def broker(**spec: Any) -> Object:
    return obj(kinds.BROKER, "default", spec)


def trigger(subscriber: Object | None = None, **spec: Any) -> Object:
    subscriber = subscriber or {"uri": "http://sink.example"}
    return obj(kinds.TRIGGER, "t", {"broker": "default", "subscriber": subscriber, **spec})


def to(kind: Kind, name: str, **more: str) -> Object:
    return {"ref": {"apiVersion": kind.api_version, "kind": kind.name, "name": name}, **more}


def addressed(machine: EventMachine, kind: Kind, name: str, url: str) -> None:
    """An object that takes events at `url`."""
    if not any(found["metadata"]["name"] == name for found in machine.objects.list(kind)):
        machine.apply(kind, obj(kind, name, {}))
    live = machine.objects.get(kind, NAMESPACE, name)
    live["status"] = {"address": {"url": url}}
    machine.objects.update_status(kind, live)


def test_a_broker_is_ready_at_its_address(machine: EventMachine) -> None:
    machine.apply(kinds.BROKER, broker(delivery={"retry": 3}))
    machine.settle()
    assert machine.engine.brokers["default"].delivery.retry == 3
    assert machine.get(kinds.BROKER, "default")["status"]["address"] == {"name": "http", "url": BROKER_URL}
    assert machine.condition(kinds.BROKER, "default")[0] == "True"
    assert (
        machine.condition(kinds.BROKER, "default", "DeadLetterSinkResolved")[1]
        == "DeadLetterSinkNotConfigured"
    )
    machine.assert_settled()
    machine.objects.delete(kinds.BROKER, NAMESPACE, "default")
    machine.settle()
    assert not machine.engine.brokers


def test_a_broker_of_another_class_is_left_alone_and_says_so(machine: EventMachine) -> None:
    machine.apply(
        kinds.BROKER,
        obj(kinds.BROKER, "default", {}, **{"eventing.knative.dev/broker.class": "RabbitMQBroker"}),
    )
    machine.apply(kinds.TRIGGER, trigger())
    machine.settle()
    assert not machine.engine.brokers and not machine.engine.triggers
    status, reason, message = machine.condition(kinds.BROKER, "default")
    assert (status, reason) == ("False", "BrokerClassNotSupported") and '"RabbitMQBroker"' in message
    assert machine.condition(kinds.TRIGGER, "t")[:2] == ("False", "BrokerClassNotSupported")
    machine.assert_settled()


def test_a_trigger_waits_for_its_broker_and_loses_it(machine: EventMachine) -> None:
    machine.apply(kinds.TRIGGER, trigger())
    machine.settle()
    assert machine.condition(kinds.TRIGGER, "t") == (
        "False",
        "BrokerDoesNotExist",
        'Broker "default" does not exist',
    )
    machine.apply(kinds.BROKER, broker())
    machine.settle()
    assert machine.condition(kinds.TRIGGER, "t")[0] == "True"
    assert machine.get(kinds.TRIGGER, "t")["status"]["subscriberUri"] == "http://sink.example"
    assert machine.engine.triggers["t"].broker == "default"
    machine.objects.delete(kinds.BROKER, NAMESPACE, "default")
    machine.settle()
    assert not machine.engine.triggers
    assert machine.condition(kinds.TRIGGER, "t")[1] == "BrokerDoesNotExist"


def test_a_subscriber_may_come_later_and_move(machine: EventMachine) -> None:
    subscriber = to(kinds.INFERENCE_SERVICE, "flights", uri="/v2/models/flights/infer")
    machine.apply(kinds.BROKER, broker())
    machine.apply(kinds.TRIGGER, trigger(subscriber))
    machine.settle()
    status, reason, message = machine.condition(kinds.TRIGGER, "t")
    assert (status, reason) == ("False", "Unable to get the Subscriber's URI")
    assert 'inferenceservices.serving.kserve.io "flights" not found' in message
    assert machine.engine.triggers["t"] and machine.engine.addresses["Trigger default/t"] == {}
    for port in (8080, 8090):
        base = f"http://127.0.0.1:{port}/serving/default/flights"
        # Made by hand: of the InferenceService itself nothing is the matter here.
        machine.objects.live.pop((kinds.INFERENCE_SERVICE, NAMESPACE, "flights"), None)
        flights = obj(
            kinds.INFERENCE_SERVICE, "flights", {"predictor": {"model": {"modelFormat": {"name": "x"}}}}
        )
        machine.objects.create(kinds.INFERENCE_SERVICE, flights)
        addressed(machine, kinds.INFERENCE_SERVICE, "flights", base)
        while machine.objects.changes:
            machine.controllers.observe(machine.objects.changes.popleft())
        from glowplug.controllers.eventing.trigger import reconcile

        reconcile(machine.controllers._world, NAMESPACE, "t", machine.now)
        uri = machine.get(kinds.TRIGGER, "t")["status"]["subscriberUri"]
        assert uri == f"{base}/v2/models/flights/infer"
        assert list(machine.engine.addresses["Trigger default/t"].values()) == [uri]


def test_a_trigger_follows_what_its_subscriber_says_of_itself(machine: EventMachine) -> None:
    machine.apply(kinds.BROKER, broker())
    machine.apply(kinds.TRIGGER, trigger(to(kinds.JOB_SINK, "retrain")))
    machine.settle()
    assert machine.condition(kinds.TRIGGER, "t")[0] == "False"
    machine.apply(kinds.JOB_SINK, obj(kinds.JOB_SINK, "retrain", {"job": {}}))
    machine.settle()
    assert machine.condition(kinds.TRIGGER, "t")[0] == "True"
    uri = "http://127.0.0.1:8082/jobsink/default/retrain"
    assert machine.get(kinds.TRIGGER, "t")["status"]["subscriberUri"] == uri
    machine.objects.delete(kinds.JOB_SINK, NAMESPACE, "retrain")
    machine.settle()
    assert "subscriberUri" not in machine.get(kinds.TRIGGER, "t")["status"]
    assert machine.engine.addresses["Trigger default/t"] == {}


def test_dead_letters_go_to_the_triggers_own_sink_else_to_the_brokers(machine: EventMachine) -> None:
    dead = {"deadLetterSink": {"uri": "http://dead.example"}}
    machine.apply(kinds.BROKER, broker(delivery=dead))
    machine.apply(kinds.TRIGGER, trigger())
    machine.settle()
    assert machine.get(kinds.BROKER, "default")["status"]["deadLetterSinkUri"] == "http://dead.example"
    assert machine.get(kinds.TRIGGER, "t")["status"]["deadLetterSinkUri"] == "http://dead.example"
    own = {"deadLetterSink": to(kinds.JOB_SINK, "lost")}
    machine.apply(kinds.TRIGGER, trigger(delivery=own))
    machine.settle()
    status, reason, _ = machine.condition(kinds.TRIGGER, "t", "DeadLetterSinkResolved")
    assert (status, reason) == ("False", "Unable to get the dead letter sink's URI")
    machine.apply(kinds.JOB_SINK, obj(kinds.JOB_SINK, "lost", {"job": {}}))
    machine.settle()
    uri = "http://127.0.0.1:8082/jobsink/default/lost"
    assert machine.get(kinds.TRIGGER, "t")["status"]["deadLetterSinkUri"] == uri
    assert machine.condition(kinds.TRIGGER, "t")[0] == "True"


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (Destination(uri="https://example.org/a?b=c"), "https://example.org/a?b=c"),
        (Destination(uri="http://web.default.svc.cluster.local/a?b=c"), "http://h:1/serving/default/web/a?b=c"),
        (Destination(uri="http://web.default.svc"), "http://h:1/serving/default/web"),
        (Destination(Reference("serving.knative.dev/v1", "Service", "default", "web")), "http://h:1/serving/default/web"),
        (
            Destination(Reference("serving.knative.dev/v1", "Service", "default", "web"), "/x"),
            "http://h:1/serving/default/web/x",
        ),
        (Destination(uri="http://gone.default.svc.cluster.local/"), None),
        (Destination(Reference("v1", "Service", "default", "web")), None),
        (Destination(Reference("serving.knative.dev/v1", "Service", "other", "web")), None),
    ],
)  # fmt: skip
def test_destinations_become_urls(destination: Destination, expected: str | None) -> None:
    def get(kind: Kind, namespace: str, name: str) -> Object | None:
        is_there = (kind, namespace, name) == (kinds.KNATIVE_SERVICE, "default", "web")
        return {"status": {"address": {"url": "http://h:1/serving/default/web"}}} if is_there else None

    found = resolve(destination, get)
    assert found == Resolved(expected) if expected else isinstance(found, Unresolved)


def test_the_same_event_makes_the_same_job() -> None:
    container = {"name": "main", "image": "a"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    sink = obj(kinds.JOB_SINK, "retrain", {"job": {"spec": {"template": template, "backoffLimit": 1}}})
    sink["metadata"]["uid"] = "u"
    name = jobsink.job_name("retrain", "/src", "1")
    # md5 of source and id, as Knative has it.
    assert name == "retrain-ae6c0dfa25ee7d09f5f53d1971727995"
    made = jobsink.make_job(sink, name)
    assert made == jobsink.make_job(sink, name) and "volumes" not in template["spec"]
    assert made["metadata"]["labels"]["sinks.knative.dev/job-sink-name"] == "retrain"
    pod = made["spec"]["template"]["spec"]
    assert {"name": "K_EVENT_PATH", "value": "/etc/jobsink-event"} in pod["containers"][0]["env"]
    assert {"name": "K_EXECUTION_MODE", "value": "batch"} in pod["containers"][0]["env"]
    assert pod["volumes"] == [{"name": "jobsink-event", "secret": {"secretName": name}}]
    assert made["spec"]["backoffLimit"] == 1 and made["spec"]["completions"] == 1
    secret = jobsink.make_secret({**made, "metadata": {**made["metadata"], "uid": "j"}}, b'{"id":"1"}')
    assert base64.b64decode(secret["data"]["event"]) == b'{"id":"1"}'
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "j"


def ping(**spec: Any) -> Object:
    sink = {"sink": to(kinds.BROKER, "default"), "schedule": "*/5 * * * *", "data": "tick"}
    return obj(kinds.PING_SOURCE, "clock", {**sink, **spec})


def test_a_ping_source_fires_on_its_schedule(machine: EventMachine) -> None:
    machine.now = 1_770_000_000.0 // 300 * 300 + 1
    machine.apply(kinds.BROKER, broker())
    machine.apply(kinds.PING_SOURCE, ping())
    machine.advance(298)
    assert not machine.engine.posted
    machine.advance(1)
    ((url, headers, body),) = machine.engine.posted
    assert (url, body) == (BROKER_URL, b"tick")
    assert headers["ce-type"] == "dev.knative.sources.ping"
    assert headers["ce-source"] == "/apis/v1/namespaces/default/pingsources/clock"
    machine.advance(600)
    assert len(machine.engine.posted) == 3
    assert len({headers["ce-id"] for _, headers, _ in machine.engine.posted}) == 3
    status = machine.get(kinds.PING_SOURCE, "clock")["status"]
    assert status["sinkUri"] == BROKER_URL and machine.condition(kinds.PING_SOURCE, "clock")[0] == "True"
    assert status["ceAttributes"][0]["type"] == "dev.knative.sources.ping"


def test_ticks_that_were_missed_are_not_made_up_for(machine: EventMachine) -> None:
    machine.now = 1_770_000_000.0 // 300 * 300 + 1
    machine.apply(kinds.BROKER, broker())
    machine.apply(kinds.PING_SOURCE, ping())
    machine.settle()
    # The computer slept: one tick is late, the others are gone.
    machine.now += 3000
    machine.settle()
    assert len(machine.engine.posted) == 1
    machine.restart()
    machine.now += 3000
    machine.restart()
    machine.settle()
    assert not machine.engine.posted


def test_a_changed_schedule_begins_anew_and_a_source_without_a_sink_is_silent(machine: EventMachine) -> None:
    machine.now = 1_770_000_000.0 // 3600 * 3600 + 1
    machine.apply(kinds.PING_SOURCE, ping())
    machine.advance(1000)
    assert not machine.engine.posted
    assert machine.condition(kinds.PING_SOURCE, "clock")[:2] == ("False", "NotFound")
    machine.apply(kinds.BROKER, broker())
    machine.apply(kinds.PING_SOURCE, ping(schedule="0 * * * *"))
    machine.advance(2000)
    assert not machine.engine.posted
    machine.advance(600)
    assert len(machine.engine.posted) == 1
    machine.objects.delete(kinds.PING_SOURCE, NAMESPACE, "clock")
    machine.advance(10_000)
    assert len(machine.engine.posted) == 1
