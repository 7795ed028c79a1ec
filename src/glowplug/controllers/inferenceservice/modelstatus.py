"""`status.modelStatus`: how far the model of the latest revision is, from its pods. Pure.

Source: PropagateModelStatus in KServe's pkg/apis/serving/v1beta1/inference_service_status.go. The time of a failure is
that at which the container ended, so that looking again changes nothing.
"""

from __future__ import annotations

from glowplug.spec import names

from ..metadata import Object, at, copied, name_of, timestamp
from .runtimes import Rejection

_TRANSITIONS = {
    "Pending": "InProgress",
    "Loading": "InProgress",
    "Loaded": "UpToDate",
    "FailedToLoad": "BlockedByFailedLoad",
}


def model_status(
    before: Object | None, pods: list[Object], service: Object | None, is_ready: bool, is_latest: bool
) -> Object:
    """The status for `pods`, those of the latest created revision, any order.

    `service` is the predictor's Knative Service, `is_ready` the InferenceService's own Ready, `is_latest` whether the
    latest created revision is the latest ready one.
    """
    status: Object = copied(before or {})
    ready = sum(map(_is_running_and_ready, pods))
    status["copies"] = {"failedCopies": 0, **({"totalCopies": ready} if ready else {})}
    newest = _newest(pods)
    if newest is None:
        conditions = at(service, "status", "conditions") or ()
        has_failed = any(condition.get("status") == "False" for condition in conditions)
        return _moved(status, "FailedToLoad" if has_failed else "Pending", None)
    return _of_pod(status, newest, is_ready and is_latest)


def rejected(before: Object | None, rejection: Rejection, now: float) -> Object:
    """The status of a spec that cannot be served."""
    status: Object = copied(before or {})
    states = {"activeModelState": "", **(status.get("states") or {}), "targetModelState": "FailedToLoad"}
    known = status.get("lastFailureInfo") or {}
    info = {"reason": rejection.reason, "message": rejection.message}
    is_same = {key: known.get(key) for key in info} == info
    status["states"] = states
    status["transitionStatus"] = "InvalidSpec"
    status["lastFailureInfo"] = {**info, "time": known.get("time") if is_same else timestamp(now)}
    return status


def _of_pod(status: Object, pod: Object, is_loaded: bool) -> Object:
    for container in at(pod, "status", "initContainerStatuses") or ():
        if container.get("name") != names.STORAGE_INITIALIZER:
            continue
        failure = _failure(container)
        if failure is not None:
            return _moved(status, "FailedToLoad", failure)
        if at(container, "state", "running") is not None:
            # Between two attempts of one that failed before, nothing is known yet.
            return status if at(container, "lastState", "terminated") else _moved(status, "Loading", None)
    if is_loaded:
        return _moved(status, "Loaded", None)
    for container in at(pod, "status", "containerStatuses") or ():
        if container.get("name") == names.SERVING_CONTAINER:
            failure = _failure(container)
            return _moved(status, "FailedToLoad" if failure else "Pending", failure)
    return status if status.get("transitionStatus") else _moved(status, "Pending", None)


def _failure(container: Object) -> Object | None:
    ended = at(container, "state", "terminated")
    if ended is not None and ended.get("reason") != "Error":
        return None
    if ended is None:
        if at(container, "state", "waiting", "reason") != "CrashLoopBackOff":
            return None
        ended = at(container, "lastState", "terminated") or {}
    info: Object = {"reason": "ModelLoadFailed"}
    for field, value in (
        ("message", ended.get("message") or at(container, "state", "waiting", "message")),
        ("exitCode", ended.get("exitCode")),
        ("time", ended.get("finishedAt")),
    ):
        if value:
            info[field] = value
    return info


def _moved(status: Object, state: str, failure: Object | None) -> Object:
    states = {"activeModelState": "", **(status.get("states") or {}), "targetModelState": state}
    if state == "Loaded":
        states["activeModelState"] = state
    moved = {**status, "states": states, "transitionStatus": _TRANSITIONS[state]}
    return {**moved, "lastFailureInfo": failure} if failure is not None else moved


def _newest(pods: list[Object]) -> Object | None:
    ordered = sorted(pods, key=name_of)
    ordered.sort(key=lambda pod: str(at(pod, "metadata", "creationTimestamp") or ""), reverse=True)
    return ordered[0] if ordered else None


def _is_running_and_ready(pod: Object) -> bool:
    conditions = at(pod, "status", "conditions") or ()
    is_ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return is_ready and at(pod, "status", "phase") == "Running"
