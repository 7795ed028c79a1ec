"""The status of a pod, as the kubelet writes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from glowplug.spec import names
from glowplug.supervisor.failures import CONTAINER_CREATING, POD_INITIALIZING

Object = dict[str, Any]


@dataclass(frozen=True)
class Waiting:
    """Not running, for a reason that may pass."""

    reason: str = CONTAINER_CREATING
    message: str = ""


@dataclass(frozen=True)
class Running:
    """`started_at` in seconds since the epoch."""

    started_at: float


@dataclass(frozen=True)
class Terminated:
    """Ended. `message` holds the last lines of output where it failed."""

    exit_code: int
    reason: str
    message: str
    started_at: float
    finished_at: float


State = Waiting | Running | Terminated


@dataclass(frozen=True)
class Snapshot:
    """One container at one moment; `pid` of its current or last process."""

    name: str
    image: str
    state: State = Waiting()
    last: Terminated | None = None
    restart_count: int = 0
    is_ready: bool = False
    is_started: bool = False
    pid: int | None = None
    # Why it is still not ready, once that takes long.
    unready_why: str = ""


@dataclass(frozen=True)
class PodView:
    """What a status is made of. `init` is None for a pod without a model to download.

    `cold_start` says, phase by phase, what the last starts of its containers took; empty until one is ready.
    """

    init: Snapshot | None
    containers: Sequence[Snapshot]
    restart_policy: str
    started_at: float
    cold_start: str = ""


def rfc3339(now: float) -> str:
    """Whole seconds, UTC, as Kubernetes writes times."""
    return f"{datetime.fromtimestamp(now, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def pod_status(view: PodView, previous: Mapping[str, Any], now: float) -> Object:
    """The whole `status`; `previous` gives the transition times of conditions that have not changed."""
    status: Object = {
        "phase": phase(view),
        "conditions": _conditions(view, previous, now),
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "podIP": "127.0.0.1",
        "podIPs": [{"ip": "127.0.0.1"}],
        "startTime": rfc3339(view.started_at),
        "containerStatuses": [_container(each) for each in view.containers],
        "qosClass": "BestEffort",
    }
    if view.init is not None:
        status["initContainerStatuses"] = [_container(view.init)]
    return status


def phase(view: PodView) -> str:
    """Pending until every container has run, then Running; Succeeded or Failed if the restart policy ends it."""
    states = [each.state for each in view.containers]
    has_ended = view.restart_policy != "Always" and all(isinstance(state, Terminated) for state in states)
    if has_ended:
        failed = any(isinstance(state, Terminated) and state.exit_code != 0 for state in states)
        return "Failed" if failed else "Succeeded"
    never_ran = [each for each in view.containers if isinstance(each.state, Waiting) and each.last is None]
    return "Pending" if never_ran else "Running"


def _conditions(view: PodView, previous: Mapping[str, Any], now: float) -> list[Object]:
    unready = [each.name for each in view.containers if not each.is_ready]
    reason = "PodCompleted" if phase(view) == "Succeeded" else "ContainersNotReady"
    why = "".join(f"; {each.name}: {each.unready_why}" for each in view.containers if each.unready_why)
    message = f"containers with unready status: [{' '.join(unready)}]{why}"
    containers = (reason, message) if unready else ("", "")
    init = ("", "")
    if view.init is not None and not is_initialized(view.init):
        init = ("ContainersNotInitialized", f"containers with incomplete status: [{view.init.name}]")
    wanted = {
        "PodScheduled": ("", ""),
        "Initialized": init,
        "ContainersReady": containers,
        "Ready": containers,
    }
    before = {each.get("type"): each for each in previous.get("conditions") or ()}
    found = [_condition(kind, *why, before.get(kind, {}), now) for kind, why in wanted.items()]
    if view.cold_start:
        told = _condition(names.COLD_START_CONDITION, "", "", before.get(names.COLD_START_CONDITION, {}), now)
        found.append({**told, "reason": "Measured", "message": view.cold_start})
    return found


def is_initialized(init: Snapshot) -> bool:
    """The model is here."""
    return isinstance(init.state, Terminated) and init.state.exit_code == 0


def _condition(kind: str, reason: str, message: str, before: Mapping[str, Any], now: float) -> Object:
    value = "False" if reason else "True"
    is_same = before.get("status") == value and before.get("lastTransitionTime")
    condition: Object = {
        "type": kind,
        "status": value,
        "lastProbeTime": None,
        "lastTransitionTime": before["lastTransitionTime"] if is_same else rfc3339(now),
    }
    if reason:
        condition.update(reason=reason, message=message)
    return condition


def _container(snapshot: Snapshot) -> Object:
    status: Object = {
        "name": snapshot.name,
        "image": snapshot.image,
        "imageID": "",
        "state": _state(snapshot.state),
        "lastState": _state(snapshot.last) if snapshot.last else {},
        "restartCount": snapshot.restart_count,
        "ready": snapshot.is_ready,
        "started": snapshot.is_started,
    }
    if snapshot.pid is not None:
        status["containerID"] = f"process://{snapshot.pid}"
    return status


def _state(state: State) -> Object:
    if isinstance(state, Running):
        return {"running": {"startedAt": rfc3339(state.started_at)}}
    if isinstance(state, Waiting):
        waiting = {"reason": state.reason}
        if state.message:
            waiting["message"] = state.message
        return {"waiting": waiting}
    terminated: Object = {
        "exitCode": state.exit_code,
        "reason": state.reason,
        "startedAt": rfc3339(state.started_at),
        "finishedAt": rfc3339(state.finished_at),
    }
    if state.message:
        terminated["message"] = state.message
    return {"terminated": terminated}


def initializing(snapshot: Snapshot) -> Snapshot:
    """A container that waits for the model."""
    return Snapshot(
        snapshot.name, snapshot.image, Waiting(POD_INITIALIZING), restart_count=snapshot.restart_count
    )
