"""Events on a whole machine: Broker and Triggers, models woken by events, dead letters, JobSinks, PingSources."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from local.event_sink import EventSink
from local.machine_lab import MachineLab, Object, inference_service, v2_body, wait_for

ROW = [[0.1, 0.2, 0.3]]
SINK_KIND = {"apiVersion": "sinks.knative.dev/v1alpha1", "kind": "JobSink"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineLab]:
    """A machine whose models may begin at zero."""
    lab = MachineLab(tmp_path_factory.mktemp("events") / "data")
    lab.up()
    lab.kubectl("create", "namespace", "knative-serving")
    lab.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
            "data": {"allow-zero-initial-scale": "true"},
        }
    )
    yield lab
    lab.close()


@pytest.fixture
def sink() -> Iterator[EventSink]:
    with EventSink() as found:
        yield found


def broker(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Broker",
        "metadata": {"name": name},
        "spec": spec,
    }


def trigger(name: str, broker: str, subscriber: Object, **spec: Any) -> Object:
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": name},
        "spec": {"broker": broker, "subscriber": subscriber, **spec},
    }


def job_sink(name: str, script: str) -> Object:
    container = {"name": "main", "image": "any", "command": ["sh", "-c", script]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {**SINK_KIND, "metadata": {"name": name}, "spec": {"job": {"spec": {"template": template}}}}


def ready(machine: MachineLab, *objects: str) -> None:
    """`kubectl wait` until all of them are ready."""
    waited = machine.kubectl("wait", "--for=condition=Ready", "--timeout=50s", *objects, check=False)
    assert waited.returncode == 0, f"{waited.stderr}{machine.account()}"


def address(machine: MachineLab, kind: str, name: str) -> str:
    return str(machine.get(kind, name)["status"]["address"]["url"])


def send(machine: MachineLab, url: str, type: str, id: str, data: object) -> httpx2.Response:
    """One event, in binary mode."""
    headers = {"ce-specversion": "1.0", "ce-type": type, "ce-source": "/test", "ce-id": id}
    return machine.http.post(
        url, headers={**headers, "content-type": "application/json"}, content=json.dumps(data)
    )


def jobs(machine: MachineLab, sink: str) -> list[Object]:
    found: list[Object] = machine.get("jobs", "", f"-lsinks.knative.dev/job-sink-name={sink}")["items"]
    return found


def test_an_event_wakes_a_model_and_its_answer_is_an_event(
    machine: MachineLab, small_model: pathlib.Path, sink: EventSink
) -> None:
    service = inference_service("flights", small_model, minReplicas=0)
    service["metadata"]["annotations"]["autoscaling.knative.dev/initial-scale"] = "0"
    to_model = {
        "ref": {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": "flights"},
        "uri": "/v2/models/flights/infer",
    }
    machine.apply(
        # The Triggers first: they follow what comes later.
        trigger("predict", "default", to_model, filters=[{"exact": {"type": "rows.arrived"}}]),
        trigger("answers", "default", {"uri": sink.url}, filters=[{"cesql": "type LIKE 'io.kserve.%'"}]),
        broker("default", delivery={"retry": 5, "backoffDelay": "PT0.2S"}),
        service,
    )
    ready(machine, "broker/default", "trigger/predict", "trigger/answers", "isvc/flights")
    label = "-lserving.kserve.io/inferenceservice=flights"
    assert not machine.get("pods", "", label)["items"], "the model was to begin at zero"
    assert machine.get("trigger", "predict")["status"]["subscriberUri"].startswith(machine.ingress)
    shown = machine.kubectl("get", "broker,trigger").stdout
    assert "BROKER" in shown and "SUBSCRIBER_URI" in shown and f"{sink.url}" in shown

    answer = send(machine, address(machine, "broker", "default"), "rows.arrived", "1", v2_body(ROW))
    assert answer.status_code == 202
    wait_for(lambda: sink.events, "the answer of the model")
    ((headers, body),) = sink.events
    assert headers["ce-type"] == "io.kserve.inference.response"
    assert json.loads(body)["outputs"][0]["shape"][0] == 1
    machine.kubectl("delete", "trigger,broker,isvc", "--all")


def test_what_is_refused_goes_to_the_dead_letter_sink(machine: MachineLab, sink: EventSink) -> None:
    dead = EventSink()
    try:
        sink.status = 422
        machine.apply(
            broker("letters", delivery={"retry": 3, "deadLetterSink": {"uri": dead.url}}),
            trigger("refused", "letters", {"uri": sink.url}),
        )
        ready(machine, "broker/letters", "trigger/refused")
        assert machine.get("trigger", "refused")["status"]["deadLetterSinkUri"] == dead.url
        assert send(machine, address(machine, "broker", "letters"), "a", "1", {}).status_code == 202
        wait_for(lambda: dead.events, "the dead letter")
        ((headers, _),) = dead.events
        assert headers["ce-id"] == "1" and headers["ce-knativeerrorcode"] == "422"
        assert len(sink.events) == 1, "what is the event's own fault is not tried again"
    finally:
        dead.close()
    machine.kubectl("delete", "trigger,broker", "--all")


def test_an_event_makes_one_job_however_often_it_comes(machine: MachineLab) -> None:
    to_sink = {"ref": {**SINK_KIND, "name": "retrain"}}
    machine.apply(
        job_sink("retrain", "cat $K_EVENT_PATH/event"),
        broker("jobs"),
        trigger("retrain", "jobs", to_sink, filter={"attributes": {"type": "drift.detected"}}),
    )
    ready(machine, "jobsink/retrain", "broker/jobs", "trigger/retrain")
    url = address(machine, "broker", "jobs")
    for id in ("a", "a", "b", "a"):
        assert send(machine, url, "drift.detected", id, {"feature": id}).status_code == 202
    assert send(machine, url, "something.else", "c", {}).status_code == 202
    # Also by itself, and once more: the Job is there.
    own = address(machine, "jobsink", "retrain")
    first = send(machine, own, "drift.detected", "d", {"feature": "d"})
    again = send(machine, own, "drift.detected", "d", {"feature": "d"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["location"] == again.headers["location"]
    wait_for(lambda: len(jobs(machine, "retrain")) == 3, "a Job for each event")
    machine.kubectl(
        "wait",
        "--for=condition=complete",
        "job",
        "-l",
        "sinks.knative.dev/job-sink-name=retrain",
        "--timeout=50s",
    )
    told = [
        json.loads(machine.kubectl("logs", f"job/{job['metadata']['name']}").stdout)
        for job in jobs(machine, "retrain")
    ]
    assert sorted((event["id"], event["data"]["feature"]) for event in told) == [
        ("a", "a"),
        ("b", "b"),
        ("d", "d"),
    ]
    assert all(event["specversion"] == "1.0" and event["source"] == "/test" for event in told)
    state = machine.http.get(str(httpx2.URL(own).join(first.headers["location"])))
    assert (state.status_code, state.headers["reason"]) == (200, "Complete")
    machine.kubectl("delete", "trigger,broker,jobsink", "--all")
    wait_for(lambda: not jobs(machine, "retrain"), "the Jobs to go with their JobSink")
    wait_for(lambda: not machine.get("secrets")["items"], "the events to go with the Jobs")


def test_a_job_sink_refuses_what_it_cannot_take(machine: MachineLab) -> None:
    machine.apply(job_sink("picky", "true"))
    ready(machine, "jobsink/picky")
    url = address(machine, "jobsink", "picky")
    assert machine.http.post(url, content=b"{}").status_code == 400
    assert send(machine, url + "x", "a", "1", {}).status_code == 404
    assert send(machine, url, "a", "1", {"much": "x" * 2**20}).status_code == 413
    assert machine.http.put(url).status_code == 405
    assert not jobs(machine, "picky")
    machine.kubectl("delete", "jobsink", "picky")


def test_a_ping_source_sends_its_event(machine: MachineLab, sink: EventSink) -> None:
    source = {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "PingSource",
        "metadata": {"name": "clock"},
        "spec": {
            "schedule": "* * * * * *",
            "contentType": "application/json",
            "data": '{"tick": true}',
            "sink": {"uri": sink.url},
            "ceOverrides": {"extensions": {"origin": "test"}},
        },
    }
    machine.apply(source)
    ready(machine, "pingsource/clock")
    wait_for(lambda: len(sink.events) >= 2, "two events of the PingSource")
    headers, body = sink.events[0]
    assert headers["ce-type"] == "dev.knative.sources.ping" and headers["ce-origin"] == "test"
    assert json.loads(body) == {"tick": True}
    assert "clock" in machine.kubectl("get", "pingsource").stdout
    machine.kubectl("delete", "pingsource", "clock")


def test_what_cannot_work_here_is_refused_when_it_is_applied(machine: MachineLab) -> None:
    service = {"ref": {"apiVersion": "v1", "kind": "Service", "name": "web"}}
    for obj, said in (
        (trigger("t", "default", service), "the local machine sends events to these"),
        (trigger("t", "default", {"uri": "http://a"}, filters=[{"cesql": "type = ="}]), "at character 8"),
        ({**job_sink("j", "true"), "spec": {}}, "expected exactly one, got neither: job"),
    ):
        refused = machine.kubectl("apply", "-f", "-", check=False, stdin=json.dumps(obj))
        assert refused.returncode == 1 and said in refused.stderr, refused.stderr
    other = broker("other")
    other["metadata"]["annotations"] = {"eventing.knative.dev/broker.class": "RabbitMQBroker"}
    warned = machine.kubectl("create", "-f", "-", stdin=json.dumps(other))
    assert "nothing acts on it here" in warned.stderr
    waited = machine.kubectl(
        "wait", "--for=condition=Ready=false", "broker/other", "--timeout=50s", check=False
    )
    assert waited.returncode == 0
    assert "BrokerClassNotSupported" in machine.kubectl("get", "broker", "other").stdout
    machine.kubectl("delete", "broker", "other")


def test_events_that_were_taken_survive_the_machine(machine: MachineLab, sink: EventSink) -> None:
    # Nobody listens there until later.
    closed = EventSink()
    url = closed.url
    closed.close()
    machine.apply(
        broker("durable", delivery={"retry": 10, "backoffDelay": "PT0.5S"}),
        trigger("later", "durable", {"uri": url}),
        trigger("now", "durable", {"uri": sink.url}),
    )
    ready(machine, "broker/durable", "trigger/later", "trigger/now")
    assert send(machine, address(machine, "broker", "durable"), "a", "kept", {}).status_code == 202
    wait_for(lambda: sink.events, "the event where somebody listens")
    machine.kill()
    machine.up()
    ready(machine, "broker/durable", "trigger/later", "trigger/now")
    machine.kubectl(
        "patch",
        "trigger",
        "later",
        "--type=merge",
        "-p",
        json.dumps({"spec": {"subscriber": {"uri": sink.url}}}),
    )
    wait_for(lambda: len(sink.of_type("a")) >= 2, "the event that nobody had taken yet")
    assert {headers["ce-id"] for headers, _ in sink.events} == {"kept"}
    machine.kubectl("delete", "trigger,broker", "--all")
