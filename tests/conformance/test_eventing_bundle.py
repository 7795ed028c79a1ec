"""The bundle's own eventing, as `eventing/` ships it: an event starts the retraining's Job, an alert becomes one, and
what nobody takes is kept. The Job shows its event instead of training, which takes data and minutes.

On a cluster it needs the images of the units: `tools/cluster-images dead-letters alert-bridge`, and the name before
`glowplug/` in $CONFORMANCE_REGISTRY.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from conformance.recorder import Answer, Recorder, recorder
from conformance.target import KUBECTL, READY_TIMEOUT_S, Object, Target
from local.machine_lab import wait_for

ROOT = pathlib.Path(__file__).parents[2]
REGISTRY = os.environ.get("CONFORMANCE_REGISTRY", "dev.local")
WORKER = "retrain-flights"
OF_SINK = "sinks.knative.dev/job-sink-name"
SHOW = "import os; print(open(os.environ['K_EVENT_PATH'] + '/event').read())"
FLIGHTS = {"model": "flights"}
# It takes a model's profile, and a volume.
ELSEWHERE = {"drift-detector"}
# Type, attributes, data: each has to make a Job.
STARTING: list[tuple[str, dict[str, str], Any]] = [
    ("dev.glowplug.drift.detected", {"subject": "flights"}, {"model": "flights", "episode": "1"}),
    ("dev.glowplug.data.arrived", {}, {**FLIGHTS, "from": "2013-04-01", "to": "2013-05-01", "rows": 9}),
    ("dev.glowplug.alert.fired", {"model": "flights"}, {"labels": FLIGHTS}),
    ("dev.glowplug.retraining.requested", {}, FLIGHTS),
    ("dev.knative.sources.ping", {"model": "flights"}, FLIGHTS),
    ("dev.glowplug.rollout.promoted", {"subject": "flights"}, {"name": "flights"}),
    ("dev.glowplug.rollout.rolledback", {"subject": "flights"}, {"name": "flights"}),
]
OTHERS: list[tuple[str, dict[str, str]]] = [
    ("dev.glowplug.drift.detected", {"subject": "another"}),
    ("dev.glowplug.alert.fired", {"model": "another"}),
    ("dev.glowplug.rollout.promoted", {"subject": "another"}),
    ("dev.glowplug.rollout.advanced", {"subject": "flights"}),
    ("dev.glowplug.retraining.finished", {"model": "flights"}),
    ("dev.knative.sources.ping", {}),
]
ALERT: Object = {
    "status": "firing",
    "labels": {"alertname": "SlowFlights", "model": "flights"},
    "annotations": {},
    "startsAt": "2026-03-04T05:06:07Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "fingerprint": "c6e8ff0c4a8b1f3d",
}


@pytest.fixture(scope="module")
def sender(target: Target) -> Iterator[Recorder]:
    with recorder(target, "bundle-sender") as found:
        yield found


@pytest.fixture(scope="module")
def broker(target: Target) -> Iterator[str]:
    """The bundle is applied and ready; the Broker's address."""
    objects = bundle(target)
    target.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    try:
        target.wait("broker/default", "ksvc/dead-letters", "ksvc/alert-bridge")
        target.wait(*(f"trigger/{each['metadata']['name']}" for each in objects if each["kind"] == "Trigger"))
        yield str(target.get("broker", "default")["status"]["address"]["url"])
    finally:
        names = [f"{resource(each)}/{each['metadata']['name']}" for each in objects]
        target.kubectl("delete", "--ignore-not-found", *names)
        target.kubectl("delete", "jobs", f"-l{OF_SINK}={WORKER}", "--ignore-not-found")


def bundle(target: Target) -> list[Object]:
    """What `eventing/` ships, in the target's namespace, but for what the Job runs."""
    folder = ROOT / "eventing" / ("local" if target.is_local else "channel")
    made = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=True).stdout
    if not target.is_local:
        made = made.replace("image: glowplug/", f"image: {REGISTRY}/glowplug/")
    objects: list[Object] = [
        each for each in yaml.safe_load_all(made) if each["metadata"]["name"] not in ELSEWHERE
    ]
    views = (ROOT / "transformers/feature-lookup/feature_view.yaml").read_text()
    objects.append(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "feature-views"},
            "data": {"feature_view.yaml": views},
        }
    )
    for each in objects:
        each["metadata"]["namespace"] = target.namespace
        for subject in each.get("subjects", ()):
            subject["namespace"] = target.namespace
        if each["kind"] == "JobSink":
            (container,) = each["spec"]["job"]["spec"]["template"]["spec"]["containers"]
            image = "example/show" if target.is_local else f"{REGISTRY}/glowplug/dead-letters:0.1.0"
            container |= {"image": image, "command": ["python" if target.is_local else "python3", "-c", SHOW]}
            del container["args"]
            container["resources"]["requests"] = {"cpu": "20m", "memory": "64Mi"}
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "events":
            each["data"]["K_SINK"] = sink_url(target)
    return objects


def sink_url(target: Target) -> str:
    """Of the Broker `default`, before it is there."""
    if not target.is_local:
        return f"http://broker-ingress.knative-eventing.svc.cluster.local/{target.namespace}/default"
    probe = {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "bundle-probe"}}
    target.apply(probe)
    target.wait("broker/bundle-probe")
    url = str(target.get("broker", "bundle-probe")["status"]["address"]["url"])
    target.kubectl("delete", "broker", "bundle-probe")
    return url.replace("bundle-probe", "default")


def resource(each: Object) -> str:
    """As kubectl takes it: two groups have a Service."""
    group = str(each["apiVersion"]).rpartition("/")[0]
    return f"{each['kind'].lower()}.{group}" if group else str(each["kind"]).lower()


def jobs(target: Target) -> list[Object]:
    listed: list[Object] = target.get("jobs", "", f"-l{OF_SINK}={WORKER}")["items"]
    return listed


def shown(target: Target) -> dict[str, Object]:
    """The events that Jobs have shown, by id."""
    found = {}
    for job in jobs(target):
        if job.get("status", {}).get("succeeded"):
            name = job["metadata"]["name"]
            event = json.loads(target.kubectl("logs", f"-ljob-name={name}", "--tail=-1").stdout)
            found[event["id"]] = event
    return found


def send(sender: Recorder, broker: str, type: str, id: str, data: Any = None, **extensions: str) -> None:
    answer = sender.send(broker, type, id, data, **extensions)
    assert answer.status == 202, answer


def service_url(target: Target, name: str) -> str:
    return str(target.get("ksvc", name)["status"]["address"]["url"]).rstrip("/")


def letters(target: Target, sender: Recorder, type: str) -> list[Object]:
    answer: Answer = sender.ask("GET", f"{service_url(target, 'dead-letters')}/?type={type}")
    assert answer.status == 200, answer
    found: list[Object] = json.loads(answer.body)["letters"]
    return found


def test_every_event_that_asks_for_a_retraining_starts_its_job(
    target: Target, sender: Recorder, broker: str
) -> None:
    for number, (type, attributes) in enumerate(OTHERS):
        send(sender, broker, type, f"other-{number}", FLIGHTS, **attributes)
    for number, (type, attributes, data) in enumerate(STARTING):
        send(sender, broker, type, f"start-{number}", data, **attributes)
    # The same one again: as it comes when an answer was lost.
    send(sender, broker, STARTING[0][0], "start-0", STARTING[0][2], **STARTING[0][1])
    expected = {f"start-{number}" for number in range(len(STARTING))}
    wait_for(lambda: expected <= shown(target).keys(), "the Job of every event", READY_TIMEOUT_S)
    found = shown(target)
    assert found.keys() == expected
    assert len(jobs(target)) == len(STARTING)
    for number, (type, _, data) in enumerate(STARTING):
        event = found[f"start-{number}"]
        assert (event["type"], event["data"]) == (type, data)


def test_an_alert_starts_a_retraining(target: Target, sender: Recorder, broker: str) -> None:
    webhook = {"version": "4", "status": "firing", "receiver": "glowplug", "alerts": [ALERT]}
    headers = {"content-type": "application/json"}
    url = f"{service_url(target, 'alert-bridge')}/alerts"
    for _ in range(2):
        answer = sender.ask("POST", url, headers, json.dumps(webhook))
        assert answer.status == 200, answer

    def of_alerts() -> list[Object]:
        return [each for each in shown(target).values() if each["source"] == "/glowplug/alertmanager"]

    wait_for(lambda: bool(of_alerts()), "the Job of the alert", READY_TIMEOUT_S)
    (event,) = of_alerts()
    assert event["data"] == ALERT
    assert (event["model"], event["subject"]) == ("flights", "flights")


def test_what_nobody_takes_is_kept(target: Target, sender: Recorder, broker: str) -> None:
    type = "dev.glowplug.test.refused"
    bridge = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "alert-bridge"}
    refusing = {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": "bundle-refused"},
        "spec": {
            "broker": "default",
            "filters": [{"exact": {"type": type}}],
            # No webhook of Alertmanager's: 400, which no second try would change.
            "subscriber": {"ref": bridge, "uri": "/alerts"},
        },
    }
    target.apply(refusing)
    try:
        target.wait("trigger/bundle-refused")
        send(sender, broker, type, "refused", {"a": 1})
        wait_for(lambda: bool(letters(target, sender, type)), "the dead letter", READY_TIMEOUT_S)
    finally:
        target.kubectl("delete", "trigger", "bundle-refused")
    (letter,) = letters(target, sender, type)
    assert (letter["id"], letter["source"], letter["code"]) == ("refused", "/conformance", "400")
    assert urlsplit(letter["destination"]).path.endswith("/alerts")
    url = f"{service_url(target, 'dead-letters')}/letters/{letter['number']}"
    assert json.loads(sender.ask("GET", url).body)["data"] == {"a": 1}


@pytest.mark.parametrize(
    ("verb", "resource", "is_allowed"),
    [
        ("create", "configmaps", True),
        ("update", "configmaps/glowplug-retraining-flights", True),
        ("patch", "inferenceservices.serving.kserve.io/flights", True),
        ("patch", "inferenceservices.serving.kserve.io/another", False),
        ("delete", "inferenceservices.serving.kserve.io/flights", False),
        ("get", "configmaps/feature-store", False),
        ("list", "configmaps", False),
        ("get", "secrets/model-storage", False),
        ("list", "secrets", False),
        ("create", "pods", False),
        ("create", "jobs.batch", False),
    ],
)
def test_a_retraining_may_do_what_it_needs_and_nothing_else(
    target: Target, broker: str, verb: str, resource: str, is_allowed: bool
) -> None:
    if target.is_local:
        pytest.skip("the local machine's one token may do everything")
    who = f"system:serviceaccount:{target.namespace}:{WORKER}"
    asked = target.kubectl("auth", "can-i", verb, resource, f"--as={who}", check=False)
    assert asked.stdout.strip() == ("yes" if is_allowed else "no"), asked.stderr


def test_pods_are_restricted(target: Target, broker: str) -> None:
    if target.is_local:
        pytest.skip("pods of the local machine are processes")
    level = "pod-security.kubernetes.io/enforce=restricted"
    asked = target.kubectl("label", "--dry-run=server", "--overwrite", "namespace", target.namespace, level)
    ours = ("dead-letters", "alert-bridge", WORKER)
    assert [line for line in asked.stderr.splitlines() if any(name in line for name in ours)] == []
    assert [each for each in target.get("pods")["items"] if each["metadata"]["name"].startswith(ours)]
