"""What `kubectl get pods` shows: above all the one word that says how a pod is.

That word is the pod's phase only at first sight. The API server's printer looks at the init containers, at why a
container waits or ended, and at deletion; these are its rules, so that `CrashLoopBackOff`, `Init:0/1`, `Error`,
`Terminating` mean here what they mean to everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from glowplug.apiserver.columns import AGE, NAME, Cell, Column
from glowplug.apiserver.durations import human_duration
from glowplug.spec.times import parse_time

Object = dict[str, Any]

_NONE = "<none>"
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class PodSummary:
    """A pod in four cells."""

    ready: str
    status: str
    restarts: int
    last_restart: datetime | None

    def restarts_text(self, now: datetime) -> str:
        """`3`, or `3 (10s ago)` where it is known when the last one was."""
        if not self.restarts or self.last_restart is None:
            return str(self.restarts)
        return f"{self.restarts} ({human_duration((now - self.last_restart).total_seconds())} ago)"


def summarize(pod: Object) -> PodSummary:
    """How a pod is, from its spec and status alone."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    inits, mains = status.get("initContainerStatuses") or [], status.get("containerStatuses") or []
    sidecars = {item.get("name") for item in spec.get("initContainers") or [] if _is_sidecar(item)}
    total = len(spec.get("containers") or []) + len(sidecars)
    word = _init_word(inits, sidecars, len(spec.get("initContainers") or []))
    counted = inits
    if word is None or _has_condition(status, "Initialized"):
        running = [item for item in inits if item.get("name") in sidecars]
        counted = [*running, *mains]
        word = _main_word(mains, _first_word(status), is_ready=_has_condition(status, "Ready"))
    ready = sum(1 for item in inits if item.get("name") in sidecars and _is_up(item))
    ready += (
        sum(1 for item in mains if _is_up(item) and "running" in _state(item)) if counted is not inits else 0
    )
    if pod.get("metadata", {}).get("deletionTimestamp"):
        word = _deleted_word(status, word)
    return PodSummary(
        ready=f"{ready}/{total}",
        status=word,
        restarts=sum(item.get("restartCount") or 0 for item in counted),
        last_restart=max(_ends(counted), default=None),
    )


def _is_sidecar(container: Object) -> bool:
    return container.get("restartPolicy") == "Always"


def _is_up(container: Object) -> bool:
    return bool(container.get("ready"))


def _state(container: Object) -> Object:
    return {name: value for name, value in (container.get("state") or {}).items() if value is not None}


def _has_condition(status: Object, name: str) -> bool:
    return any(
        found.get("type") == name and found.get("status") == "True"
        for found in status.get("conditions") or []
    )


def _first_word(status: Object) -> str:
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            return "SchedulingGated"
    return str(status.get("reason") or status.get("phase") or "")


def _ended_word(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _init_word(inits: list[Object], sidecars: set[Any], total: int) -> str | None:
    """`Init:…` while the first init container that is not done is not; None once all are."""
    for index, container in enumerate(inits):
        state = _state(container)
        ended = state.get("terminated")
        if ended is not None and not ended.get("exitCode"):
            continue
        if container.get("name") in sidecars and container.get("started"):
            continue
        if ended is not None:
            return f"Init:{_ended_word(ended)}"
        waiting = (state.get("waiting") or {}).get("reason")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{total}"
    return None


def _main_word(mains: list[Object], word: str, *, is_ready: bool) -> str:
    """The reason of the first container that waits or has ended, else the pod's own word."""
    has_running = False
    for container in reversed(mains):
        state = _state(container)
        waiting = (state.get("waiting") or {}).get("reason")
        if waiting:
            word = str(waiting)
        elif "terminated" in state:
            word = _ended_word(state["terminated"])
        elif _is_up(container) and "running" in state:
            has_running = True
    if word == "Completed" and has_running:
        return "Running" if is_ready else "NotReady"
    return word


def _deleted_word(status: Object, word: str) -> str:
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return word if status.get("phase") in _ENDED else "Terminating"


def _ends(containers: Iterable[Object]) -> Iterator[datetime]:
    for container in containers:
        ended = (container.get("lastState") or {}).get("terminated") or {}
        moment = parse_time(ended.get("finishedAt"))
        if moment is not None:
            yield moment


def _ip(pod: Object, now: datetime) -> Cell:
    status = pod.get("status") or {}
    ips = [item.get("ip") for item in status.get("podIPs") or []]
    return str((ips and ips[0]) or status.get("podIP") or _NONE)


def _gates(pod: Object, now: datetime) -> Cell:
    gates = (pod.get("spec") or {}).get("readinessGates") or []
    if not gates:
        return _NONE
    met = sum(_has_condition(pod.get("status") or {}, gate.get("conditionType", "")) for gate in gates)
    return f"{met}/{len(gates)}"


POD_COLUMNS: tuple[Column, ...] = (
    NAME,
    Column("Ready", "string", lambda pod, now: summarize(pod).ready, description="Ready containers of all."),
    Column("Status", "string", lambda pod, now: summarize(pod).status, description="How the pod is."),
    Column(
        "Restarts",
        "string",
        lambda pod, now: summarize(pod).restarts_text(now),
        description="How often its containers were started again.",
    ),
    AGE,
    Column("IP", "string", _ip, priority=1, description="The address of the pod."),
    Column(
        "Node",
        "string",
        lambda pod, now: (pod.get("spec") or {}).get("nodeName") or _NONE,
        priority=1,
        description="Where the pod runs.",
    ),
    Column(
        "Nominated Node",
        "string",
        lambda pod, now: (pod.get("status") or {}).get("nominatedNodeName") or _NONE,
        priority=1,
        description="Where the pod may run once others made room.",
    ),
    Column("Readiness Gates", "string", _gates, priority=1, description="Conditions met of those awaited."),
)
