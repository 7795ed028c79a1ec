"""Services at zero: made once, left alone until the autoscaler has taken their last pod, then asked one request each.

The windows are the shortest that Knative takes (6 s, and a grace period of 1 s), so that zero is reached as it is in
use, soon. What is measured is a revision without any pod: one request is sent, and the time until its 200.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.lab import Lab, wait_for
from benchmarks.protocols import Caller, Request
from glowplug.spec import names
from glowplug.supervisor.cold_start import FIRST_BYTE, PHASES

NAMESPACE = "default"
_HEADERS = {"Content-Type": "application/json"}
_SERVICES = f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_SOON = {"stable-window": "6s", "scale-to-zero-grace-period": "1s"}
Object = dict[str, Any]
# Component → phase → milliseconds; `how` is fork or exec.
Timeline = Mapping[str, Mapping[str, Any]]


def scale_to_zero_soon(found: Lab) -> None:
    """Give the machine the shortest windows, as an operator would: in the ConfigMap config-autoscaler."""
    create(found, "/api/v1/namespaces", "v1", "Namespace", {"name": "knative-serving"})
    metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
    path = "/api/v1/namespaces/knative-serving/configmaps"
    create(found, path, "v1", "ConfigMap", metadata, data=_SOON)


def create(found: Lab, path: str, version: str, kind: str, metadata: Object, **rest: Any) -> None:
    """POST one object."""
    document = {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}
    found.cluster.request("POST", path, body=json.dumps(document).encode(), headers=_HEADERS)


def create_service(found: Lab, name: str, **spec: Any) -> None:
    """An XGBoost InferenceService on the lab's model that may have no pods; `spec` adds components."""
    model = {
        "modelFormat": {"name": "xgboost"}, "protocolVersion": "v2", "storageUri": found.model_dir.as_uri()
    }  # fmt: skip
    metadata = {"name": name, "annotations": {"serving.kserve.io/deploymentMode": "Knative"}}
    predictor = {"minReplicas": 0, "model": model}
    version = "serving.kserve.io/v1beta1"
    create(found, _SERVICES, version, "InferenceService", metadata, spec={"predictor": predictor, **spec})


def wait_until_ready(found: Lab, services: Sequence[str]) -> None:
    """Until every one of them has said Ready."""
    wait_for(lambda: set(services) <= set(_ready(found)), f"{', '.join(services)} to be ready", every_s=0.2)


def _ready(found: Lab) -> list[str]:
    return [
        item["metadata"]["name"]
        for item in found.cluster.get(_SERVICES)["items"]
        for condition in (item.get("status") or {}).get("conditions") or ()
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]


def wait_until_warm(found: Lab, images: Sequence[str]) -> None:
    """Until replicas of all `images` can be forked from the pool."""
    wanted = [f'glowplug_warm_pool_zygotes{{image="{image}"}} 1' for image in images]

    def is_warm() -> bool:
        text = found.cluster.request("GET", "/metrics").text
        return all(line in text for line in wanted)

    wait_for(is_warm, "the warm pool", every_s=0.2)


def wait_for_zero(found: Lab, services: Sequence[str]) -> None:
    """Until none of them has a pod, terminating ones included, and a moment longer."""

    def is_zero() -> bool:
        items = found.cluster.get(_PODS)["items"]
        labels = [(item["metadata"].get("labels") or {}).get(names.INFERENCE_SERVICE_LABEL) for item in items]
        return not set(services) & set(labels)

    wait_for(is_zero, "no pod to be left", every_s=0.2)
    # The machine writes down what has just gone.
    time.sleep(0.5)


def first_200(found: Lab, name: str, sent: Request) -> float:
    """Milliseconds from connecting to the ingress until the right answer is here. Raises `WrongAnswer`."""
    caller = Caller(int(found.ingress.rpartition(":")[2]), 0)
    asked = dataclasses.replace(sent, path=f"/serving/{NAMESPACE}/{name}{sent.path}")
    began = time.perf_counter()
    try:
        caller.call(asked)
        return (time.perf_counter() - began) * 1000
    finally:
        caller.close()


def timeline(found: Lab, name: str, components: Sequence[str]) -> Timeline:
    """What the only start of each component took, as `glowplug coldstart` shows it."""
    label = f"{names.INFERENCE_SERVICE_LABEL}={name}"
    told: dict[str, Mapping[str, Any]] = {}

    def is_told() -> bool:
        for pod in found.cluster.get(_PODS, labelSelector=label)["items"]:
            annotations = pod["metadata"].get("annotations") or {}
            component = pod["metadata"]["labels"].get(names.COMPONENT_LABEL, "predictor")
            for start in json.loads(annotations.get(names.COLD_START, "{}")).values():
                told[component] = {**start["ms"], "how": start["how"]}
        return all(FIRST_BYTE in told.get(component, ()) for component in components)

    wait_for(is_told, f"the timeline of {name}", every_s=0.05)
    return told


def phase_rows(label: str, totals: Sequence[float], starts: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Rows (what, phase, median ms, n) of the phases, and of what is in none of them.

    `starts` are phase → milliseconds, `totals` what their senders waited, in the same order. The rest is the way to
    the decision, and the answer's way back.
    """
    rows: list[list[Any]] = []
    for phase in PHASES:
        found = [start[phase] for start in starts if phase in start]
        if found:
            rows.append([label, phase, statistics.median(found), len(found)])
    rest = [
        total - sum(start.get(phase, 0.0) for phase in PHASES)
        for total, start in zip(totals, starts, strict=True)
    ]
    rows.append([label, "before and after", statistics.median(rest), len(rest)])
    rows.append([label, "request to 200", statistics.median(totals), len(totals)])
    return rows
