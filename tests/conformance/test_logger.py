"""Payload logging: a CloudEvent for each request and each answer, whose data are the bodies as they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import unquote

from conformance.recorder import Recorder
from conformance.target import READY_TIMEOUT_S, ROW, Object, Target, service
from local.machine_lab import v2_body, wait_for

# Knative's ingress tells every pod by this header whose it is.
REVISION = "Knative-Serving-Revision"
# What a rollout stamps a predictor's pods with, so that events tell versions apart on both.
VERSION = "glowplug.dev/version"
Served = Callable[[Object], str]
REQUEST, RESPONSE = (f"org.kubeflow.serving.inference.{each}" for each in ("request", "response"))


def logged(target: Target, name: str, sink: Recorder, mode: str) -> Object:
    more = {"metadataHeaders": [REVISION], "metadataAnnotations": [VERSION]} if mode == "all" else {}
    logger = {"mode": mode, "url": f"{sink.url.rstrip('/')}/{mode}", **more}
    return service(target, name, minReplicas=1, logger=logger, annotations={VERSION: "v1"})


def of(sink: Recorder, mode: str, id: str) -> dict[str, Object]:
    """type → the event of a request."""
    listed = (each for each in sink.events() if each["path"] == f"/{mode}")
    return {each["headers"]["ce-type"]: each for each in listed if each["headers"]["ce-id"] == id}


def ask(target: Target, name: str, id: str) -> str:
    """The answer's body, as it was."""
    url, host = target.address(name)
    headers = {"Host": host, "ce-id": id, "Content-Type": "application/json"}
    body = json.dumps({**v2_body(ROW), "id": id})
    answer = target.http.post(f"{url}/v2/models/{name}/infer", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_request_and_its_answer_are_events(target: Target, served: Served, sink: Recorder) -> None:
    name = served(logged(target, "logged", sink, "all"))
    answer = ask(target, name, "p1")
    wait_for(lambda: set(of(sink, "all", "p1")) == {REQUEST, RESPONSE}, "both events", READY_TIMEOUT_S)
    events = of(sink, "all", "p1")
    assert json.loads(events[REQUEST]["body"]) == {**v2_body(ROW), "id": "p1"}
    assert events[RESPONSE]["body"] == answer
    for event in events.values():
        told = {key: value for key, value in event["headers"].items() if key.startswith("ce-")}
        expected = {
            "ce-specversion": "1.0",
            "ce-id": "p1",
            "ce-inferenceservicename": name,
            "ce-namespace": target.namespace,
            "ce-component": "predictor",
        }
        assert expected.items() <= told.items(), told
        # Whoever follows CloudEvents' HTTP binding to the letter writes a header's quotes %22; Go's SDK does not.
        # In a cluster the queue-proxy, which is before KServe's agent, takes Knative's own headers off.
        known = {REVISION: [f"{name}-predictor-00001"]} if target.is_local else {}
        assert json.loads(unquote(told["ce-metadata"])) == known
        assert json.loads(unquote(told["ce-annotations"])) == {VERSION: "v1"}
        assert event["headers"]["content-type"].startswith("application/json")


def test_a_mode_is_of_one_direction(target: Target, served: Served, sink: Recorder) -> None:
    """The answer of the first request would have come before the second's."""
    name = served(logged(target, "half-logged", sink, "request"))
    for id in ("h1", "h2"):
        ask(target, name, id)
    wait_for(lambda: of(sink, "request", "h2"), "the last request", READY_TIMEOUT_S)
    assert [set(of(sink, "request", id)) for id in ("h1", "h2")] == [{REQUEST}, {REQUEST}]
