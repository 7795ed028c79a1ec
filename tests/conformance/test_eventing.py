"""Broker, Triggers and JobSinks: what arrives, what becomes of an answer, of a failure, of an event's Job."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conformance.controller import image
from conformance.recorder import Recorder
from conformance.target import READY_TIMEOUT_S, Object, Target
from local.machine_lab import wait_for

BROKER = "events"
# A cluster's default class may be another one; this one both have.
CLASS = {"eventing.knative.dev/broker.class": "MTChannelBasedBroker"}
SINK = {"apiVersion": "sinks.knative.dev/v1alpha1", "kind": "JobSink"}
OF_SINK = "sinks.knative.dev/job-sink-name"


@pytest.fixture(scope="module")
def broker(target: Target, sink: Recorder) -> Iterator[str]:
    """Its address; two retries, then what could not be delivered goes to the recorder's /dead."""
    delivery = {
        "retry": 2,
        "backoffPolicy": "linear",
        "backoffDelay": "PT0.2S",
        "deadLetterSink": {**sink.ref, "uri": "/dead"},
    }
    target.apply(
        {
            "apiVersion": "eventing.knative.dev/v1",
            "kind": "Broker",
            "metadata": {"name": BROKER, "annotations": CLASS},
            "spec": {"delivery": delivery},
        }
    )
    try:
        target.wait(f"broker/{BROKER}")
        yield str(target.get("broker", BROKER)["status"]["address"]["url"])
    finally:
        target.kubectl("delete", "broker", BROKER, "--ignore-not-found")


@pytest.fixture
def triggers(sink: Recorder, target: Target, broker: str) -> Iterator[Any]:
    """Apply Triggers to the recorder, each to a path of its name; the attributes are those of an event that it takes.

    A Trigger of Knative's may be Ready before the broker's filter knows it, and loses an event then: so each has got
    one before the case begins.
    """
    names: list[str] = []

    def apply(**specs: tuple[Object, dict[str, str]]) -> None:
        for name, (spec, _) in specs.items():
            names.append(name)
            target.apply(trigger(name, {**sink.ref, "uri": f"/{name}"}, spec))
        target.wait(*(f"trigger/{name}" for name in names))
        for name, (_, attributes) in specs.items():
            probes = (f"probe-{number}" for number in itertools.count())
            wait_for(lambda n=name, a=attributes, p=probes: is_reached(n, a, next(p)), f"an event at {name}")

    def is_reached(name: str, attributes: dict[str, str], id: str) -> bool:
        answer = sink.send(broker, id=id, **attributes)
        if answer.status != 202:
            # A cluster's Broker that is Ready may answer 500 until its channel knows it.
            assert not sink.target.is_local, answer
            return False
        end = time.monotonic() + 1
        while not (found := arrived(sink, f"/{name}", "probe")) and time.monotonic() < end:
            time.sleep(0.02)
        return bool(found)

    yield apply
    target.kubectl("delete", "trigger", *names, "--ignore-not-found")


def trigger(name: str, subscriber: Object, spec: Object) -> Object:
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": name},
        "spec": {"broker": BROKER, "subscriber": subscriber, **spec},
    }


def arrived(sink: Recorder, path: str, prefix: str) -> list[str]:
    """The ids that came to a path."""
    ids = (each["headers"]["ce-id"] for each in sink.events() if each["path"] == path)
    return sorted(each for each in ids if each.startswith(prefix))


def dead_letters(sink: Recorder) -> dict[str, str]:
    """id → the code of the failure, of what /tried did not take. A Trigger that is being deleted may add others."""
    dead = [each["headers"] for each in sink.events() if each["path"] == "/dead"]
    return {
        each["ce-id"]: each["ce-knativeerrorcode"]
        for each in dead
        if each.get("ce-knativeerrordest", "").endswith("/tried")
    }


def test_each_trigger_gets_what_its_filters_let_through(sink: Recorder, broker: str, triggers: Any) -> None:
    triggers(
        attributes=({"filter": {"attributes": {"type": "filter.a"}}}, {"type": "filter.a"}),
        prefix=(
            {"filters": [{"prefix": {"type": "filter."}}, {"not": {"exact": {"type": "filter.b"}}}]},
            {"type": "filter.a"},
        ),
        sql=(
            {"filters": [{"cesql": "type LIKE 'filter.%' AND colour = 'red'"}]},
            {"type": "filter.a", "colour": "red"},
        ),
        everything=({}, {"type": "any"}),
    )
    sent = {"f1": ("filter.a", "blue"), "f2": ("filter.b", "red"), "f3": ("filter.c", "red")}
    for id, (type, colour) in sent.items():
        answer = sink.send(broker, type, id, {"id": id}, colour=colour)
        assert answer.status == 202, answer
    expected = {
        "/attributes": ["f1"],
        "/prefix": ["f1", "f3"],
        "/sql": ["f2", "f3"],
        "/everything": ["f1", "f2", "f3"],
    }
    wait_for(
        lambda: {path: arrived(sink, path, "f") for path in expected} == expected,
        f"the events {expected}",
        READY_TIMEOUT_S,
    )
    one = next(
        each
        for each in sink.events("filter.a")
        if (each["path"], each["headers"]["ce-id"]) == ("/attributes", "f1")
    )
    assert json.loads(one["body"]) == {"id": "f1"}
    told = {name: value for name, value in one["headers"].items() if name in ("ce-source", "ce-colour")}
    assert told == {"ce-source": "/conformance", "ce-colour": "blue"}
    assert one["headers"]["content-type"].startswith("application/json")


def test_an_answer_is_an_event(sink: Recorder, broker: str, triggers: Any) -> None:
    triggers(
        asked=({"filter": {"attributes": {"type": "reply.asked"}}}, {"type": "reply.asked"}),
        answered=({"filter": {"attributes": {"type": "reply.answered"}}}, {"type": "reply.answered"}),
    )
    reply = {"specversion": "1.0", "type": "reply.answered", "source": "/recorder", "id": "r2"}
    headers = {**{f"ce-{name}": value for name, value in reply.items()}, "content-type": "application/json"}
    sink.answer("/asked", {"status": 200, "headers": headers, "body": '{"answer": 42}'})
    assert sink.send(broker, "reply.asked", "r1").status == 202
    wait_for(lambda: arrived(sink, "/answered", "r"), "the answer", READY_TIMEOUT_S)
    bodies = {each["headers"]["ce-id"]: each["body"] for each in sink.events("reply.answered")}
    assert json.loads(bodies["r2"]) == {"answer": 42}


def test_what_fails_is_tried_again_then_it_is_a_dead_letter(
    sink: Recorder, broker: str, triggers: Any
) -> None:
    triggers(tried=({"filter": {"attributes": {"type": "retry"}}}, {"type": "retry"}))
    sink.answer("/tried", {"status": 503}, {"status": 500})
    assert sink.send(broker, "retry", "t1").status == 202
    wait_for(lambda: len(arrived(sink, "/tried", "t1")) == 3, "two failures and an answer", READY_TIMEOUT_S)

    sink.answer("/tried", *({"status": 503},) * 3)
    assert sink.send(broker, "retry", "t2").status == 202
    wait_for(lambda: dead_letters(sink).get("t2"), "the dead letter", READY_TIMEOUT_S)
    assert arrived(sink, "/tried", "t2") == ["t2"] * 3
    # What is the event's own fault is not tried again.
    sink.answer("/tried", {"status": 422, "body": "not like this"})
    assert sink.send(broker, "retry", "t3").status == 202
    wait_for(lambda: dead_letters(sink).get("t3"), "the dead letter", READY_TIMEOUT_S)
    assert arrived(sink, "/tried", "t3") == ["t3"]
    assert dead_letters(sink) == {"t2": "503", "t3": "422"}


def test_an_event_makes_one_job_however_often_it_comes(target: Target, sink: Recorder, broker: str) -> None:
    name = "retrain"
    script = "import os; print(open(os.environ['K_EVENT_PATH'] + '/event').read())"
    container = {"name": "main", "image": image(target), "command": ["python3", "-c", script]}
    if target.is_local:
        container["command"][0] = "python"
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    target.apply({**SINK, "metadata": {"name": name}, "spec": {"job": {"spec": {"template": template}}}})
    only = {"filter": {"attributes": {"type": "drift.detected"}}}
    target.apply(trigger(name, {"ref": {**SINK, "name": name}}, only))
    try:
        target.wait(f"jobsink/{name}", f"trigger/{name}")
        for id in ("a", "a", "b"):
            assert sink.send(broker, "drift.detected", id, {"feature": id}).status == 202
        assert sink.send(broker, "something.else", "c").status == 202
        # Also by itself, without a broker.
        own = str(target.get("jobsink", name)["status"]["address"]["url"])
        direct = sink.send(own, "drift.detected", "d", {"feature": "d"})
        assert direct.status == 202
        assert direct.headers["location"]
        wait_for(lambda: len(jobs(target, name)) == 3, "a Job for each event", READY_TIMEOUT_S)
        target.wait(*(f"job/{job}" for job in jobs(target, name)), condition="Complete")
        told = [json.loads(target.kubectl("logs", f"job/{job}").stdout) for job in jobs(target, name)]
        assert sorted((each["id"], each["data"]["feature"]) for each in told) == [
            (id, id) for id in ("a", "b", "d")
        ]
        assert {(each["type"], each["source"], each["specversion"]) for each in told} == {
            ("drift.detected", "/conformance", "1.0")
        }
    finally:
        target.kubectl("delete", "trigger", name, "--ignore-not-found")
        target.kubectl("delete", "jobsink", name, "--ignore-not-found")
        # A cluster's stay: Knative 1.21 names an owner that the garbage collector does not find.
        if not target.is_local:
            target.kubectl("delete", "jobs", f"-l{OF_SINK}={name}")
    wait_for(lambda: not jobs(target, name), "the Jobs to go", READY_TIMEOUT_S)


def jobs(target: Target, sink: str) -> list[str]:
    return [job["metadata"]["name"] for job in target.get("jobs", "", f"-l{OF_SINK}={sink}")["items"]]
