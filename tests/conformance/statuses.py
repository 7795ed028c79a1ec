"""Everything that an InferenceService's objects say in their statuses, in a form that is the same wherever it was read.

What a target chooses by itself is replaced: times, URLs, addresses, its names of images, the words of a container that
failed. What is left has to be equal, field by field, to a file of `statuses/`, which was written from a real cluster
(`--record`).
"""

from __future__ import annotations

import difflib
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

import yaml
from conformance.target import POD_AUTOSCALER, Object, Target

RECORDED = pathlib.Path(__file__).parent / "statuses"
SETTLE_S = 120.0
KINDS = (
    "inferenceservices.serving.kserve.io",
    "services.serving.knative.dev",
    "configurations.serving.knative.dev",
    "routes.serving.knative.dev",
    "revisions.serving.knative.dev",
    POD_AUTOSCALER,
)
Statuses = dict[str, Object]
_TIMES = ("lastTransitionTime", "time")
_URL = re.compile(r"https?://\S+")
_REPLICA_SET = re.compile(r"-deployment-[0-9a-f]+")
_FAILURE = re.compile(r"(Container failed with: ).*", re.DOTALL)
_MESSAGE = "WHAT THE CONTAINER SAID"


def read(target: Target, name: str) -> Statuses:
    """`Kind/name` → the status, of the InferenceService and of what was made from it."""
    found = {}
    for kind in KINDS:
        label = () if kind == KINDS[0] else (f"-lserving.kserve.io/inferenceservice={name}",)
        listed = target.get(kind, "", *label)["items"]
        for obj in listed:
            its = obj["metadata"]["name"]
            if label or its == name:
                found[f"{obj['kind']}/{its}".replace(name, "NAME", 1)] = _plain(_status(obj), name)
    return dict(sorted(found.items()))


def agrees(
    target: Target, name: str, recorded: str, is_recording: bool, seen: Callable[[Statuses], Statuses]
) -> None:
    """Asserts that what `seen` leaves of the statuses comes to what is recorded.

    When recording, all of them are written, once they stand still.
    """
    path = RECORDED / f"{recorded}.yaml"
    if is_recording:
        path.write_text(_text(_still(target, name)))
        return
    expected = _text(seen(yaml.safe_load(path.read_text())))
    end = time.monotonic() + SETTLE_S
    while (found := _text(seen(read(target, name)))) != expected and time.monotonic() < end:
        time.sleep(0.1)
    told = difflib.unified_diff(expected.splitlines(), found.splitlines(), path.name, target.name, "", "", 4)
    assert found == expected, "\n".join(told)


def everything(statuses: Statuses) -> Statuses:
    return statuses


def verdicts(statuses: Statuses) -> Statuses:
    """What each condition comes to, without reasons, and the model's state.

    For a version that never became ready. There the local machine goes on to say why, where Knative forgets it with
    the scale of zero: docs/conformance.md. Of the Revision only what says so in the end, of its scale nothing.
    """
    found = {}
    for key, status in statuses.items():
        if key.startswith("PodAutoscaler/"):
            continue
        kept = {type: each["status"] for type, each in status["conditions"].items()}
        if key.startswith("Revision/"):
            kept = {type: kept[type] for type in ("ContainerHealthy", "Ready")}
        model = status.get("modelStatus", {})
        failure = {
            field: value for field, value in model.get("lastFailureInfo", {}).items() if field != "time"
        }
        told = {field: status[field] for field in ("traffic", "components") if field in status}
        found[key] = {"conditions": kept, "modelStatus": {**model, "lastFailureInfo": failure}, **told}
    return found


def _still(target: Target, name: str, for_s: float = 50.0) -> Statuses:
    """The statuses once they were the same for so long."""
    found, since = read(target, name), time.monotonic()
    while time.monotonic() - since < for_s:
        time.sleep(0.5)
        again = read(target, name)
        if again != found:
            found, since = again, time.monotonic()
    return found


def _text(statuses: Statuses) -> str:
    text: str = yaml.safe_dump(statuses, sort_keys=True, width=120)
    return text


def _status(obj: Object) -> Object:
    """A PodAutoscaler is rewritten as often as its reachability changes, which is a matter of time."""
    status: Object = obj.get("status", {})
    is_seen = status.get("observedGeneration") == obj["metadata"]["generation"]
    counted = obj["kind"] == "PodAutoscaler" and is_seen
    return {**status, "observedGeneration": "CURRENT"} if counted else status


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        if "lastFailureInfo" in value:
            value = {**value, "lastFailureInfo": _failure(value["lastFailureInfo"])}
        return {
            key: "TIME" if key in _TIMES else _plain(each, name)
            for key, each in value.items()
            # Only where a registry was asked, which an image made in place has not.
            if key != "imageDigest"
        }
    if isinstance(value, list):
        plain = [_plain(each, name) for each in value]
        return {each.pop("type"): each for each in plain} if _are_conditions(value) else plain
    if isinstance(value, str):
        plain = _FAILURE.sub(rf"\1{_MESSAGE}", _URL.sub("URL", value))
        return _REPLICA_SET.sub("-deployment-HASH", plain).replace(name, "NAME")
    return value


def _failure(info: Object) -> Object:
    return {**info, "message": _MESSAGE} if "exitCode" in info else info


def _are_conditions(value: list[Any]) -> bool:
    return bool(value) and all(
        isinstance(each, dict) and "type" in each and "status" in each for each in value
    )
