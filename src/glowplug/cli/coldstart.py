"""`coldstart`: what the latest starts of a model's pods took, phase by phase.

On the local machine a pod carries its timeline. On a cluster it is put together from what is there: the moments in the
pod's status, which are whole seconds, and the phases that our server tells on /metrics, where the API's proxy gets
through to it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glowplug.cli import output
from glowplug.cli.kube import Cluster, Object
from glowplug.errors import GlowplugError, NotFound
from glowplug.spec import names
from glowplug.spec.times import parse_time
from glowplug.supervisor.cold_start import FIRST_BYTE, PHASES

_REASON = "ColdStart"
_BAR_WIDTH = 40
_SAMPLE = re.compile(r'^glowplug_start_phase_seconds\{phase="(\w+)"\} (\S+)$', re.MULTILINE)
_INNER = ("imported", "loaded", "warmed")
_SHOWN = {"decided": "decided", "started": "started", "first_byte": "first byte"}


@dataclass(frozen=True)
class Start:
    """One container's start. `ms`: phase → duration; `is_rough` where it rests on whole seconds."""

    pod: str
    container: str
    at: str
    how: str
    ms: Mapping[str, float] = field(default_factory=dict)
    is_rough: bool = False

    @property
    def ready_ms(self) -> float:
        """From the decision to being ready."""
        return sum(value for phase, value in self.ms.items() if phase != FIRST_BYTE)


def print_starts(cluster: Cluster, name: str) -> None:
    """Write the latest start of every container that `name` means, and what the events say of pods that are gone."""
    pods = _pods(cluster, name)
    found = [start for pod in pods for start in _starts(cluster, pod)]
    for start in sorted(found, key=lambda each: each.at):
        print("\n".join(lines(start, _block())))
    gone = _gone(cluster, name, {pod["metadata"]["name"] for pod in pods})
    if gone:
        print("pods that are gone:")
        print("\n".join(f"  {line}" for line in gone))
    if not pods and not gone:
        raise NotFound(
            f'no pod, and no pod of an InferenceService, is named "{name}" in namespace {cluster.namespace}',
            hint="`glowplug get isvc` and `glowplug get pods` list what is there",
        )
    if not found and not gone:
        output.warned(f"no pod of {name} has been ready yet; `glowplug get pods` says how far they are")


def lines(start: Start, block: str = "█") -> list[str]:
    """A start as text: a title, then a line a phase with its bar on the common time axis."""
    mark = "~" if start.is_rough else ""
    how = {"fork": "from the warm pool", "exec": "as a new process"}.get(start.how, start.how)
    title = f"{start.pod}/{start.container}  {start.at}  ready in {mark}{_shown(start.ready_ms)}"
    rows = [title + (f", started {how}" if how else "")]
    total, before = sum(start.ms.values()) or 1.0, 0.0
    for phase in PHASES:
        if phase not in start.ms:
            continue
        value = start.ms[phase]
        first = round(before / total * _BAR_WIDTH)
        width = round((before + value) / total * _BAR_WIDTH) - first
        bar = " " * first + (block * width or ("▏" if block == "█" else "|"))
        rows.append(f"  {_SHOWN.get(phase, phase):<11}{_shown(value):>9}  {bar}".rstrip())
        before += value
    return rows


def from_annotation(pod: Object) -> list[Start]:
    """What the supervisor wrote; nothing where it has not, or where somebody else wrote something else."""
    try:
        document = json.loads((pod["metadata"].get("annotations") or {}).get(names.COLD_START, "{}"))
        return [
            Start(
                pod["metadata"]["name"],
                container,
                str(found["at"]),
                str(found["how"]),
                {phase: float(value) for phase, value in found["ms"].items()},
            )
            for container, found in document.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def from_status(pod: Object, container: str, inner_s: Mapping[str, float]) -> Start | None:
    """A start as the pod's status tells it, and `inner_s` (phase → seconds) the server; None if it is not ready."""
    moments = _moments(pod, container)
    if "ready" not in moments or "started" not in moments:
        return None
    ms: dict[str, float] = {}
    before = began = _seconds(pod["metadata"]["creationTimestamp"])
    for phase in ("decided", "downloaded", "started"):
        if phase in moments:
            ms[phase] = max(moments[phase] - before, 0.0) * 1000
            before = max(before, moments[phase])
    ms.update({phase: inner_s[phase] * 1000 for phase in _INNER if phase in inner_s})
    ms["ready"] = max((moments["ready"] - began) * 1000 - sum(ms.values()), 0.0)
    if FIRST_BYTE in inner_s:
        ms[FIRST_BYTE] = inner_s[FIRST_BYTE] * 1000
    metadata = pod["metadata"]
    return Start(metadata["name"], container, metadata["creationTimestamp"], "", ms, is_rough=True)


def inner_phases(metrics: str) -> dict[str, float]:
    """Phase → seconds, from the page at /metrics of a server of ours."""
    found = {}
    for phase, value in _SAMPLE.findall(metrics):
        try:
            found[phase] = float(value)
        except ValueError:
            continue
    return found


def _starts(cluster: Cluster, pod: Object) -> list[Start]:
    starts = from_annotation(pod)
    if starts:
        return starts
    containers = [each for each in pod["spec"]["containers"] if each["name"] != "queue-proxy"]
    found = [from_status(pod, each["name"], _ask(cluster, pod, each)) for each in containers]
    return [start for start in found if start is not None]


def _ask(cluster: Cluster, pod: Object, container: Object) -> dict[str, float]:
    """Through the API's proxy; many clusters do not let everybody through."""
    port = ((container.get("ports") or [{}])[0]).get("containerPort", 8080)
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod['metadata']['name']}:{port}/proxy/metrics"
    try:
        return inner_phases(cluster.request("GET", path).text)
    except GlowplugError:
        return {}


def _moments(pod: Object, container: str) -> dict[str, float]:
    """Phase → seconds since the epoch, as far as the status tells."""
    status = pod.get("status") or {}
    conditions = {
        each["type"]: each for each in status.get("conditions") or () if each.get("status") == "True"
    }
    found: dict[str, Any] = {
        "decided": (conditions.get("PodScheduled") or {}).get("lastTransitionTime"),
        "ready": (conditions.get("Ready") or {}).get("lastTransitionTime"),
    }
    for each in status.get("initContainerStatuses") or ():
        if each["name"] == names.STORAGE_INITIALIZER:
            found["downloaded"] = (each.get("state", {}).get("terminated") or {}).get("finishedAt")
    for each in status.get("containerStatuses") or ():
        if each["name"] == container:
            found["started"] = (each.get("state", {}).get("running") or {}).get("startedAt")
    return {phase: _seconds(text) for phase, text in found.items() if text}


def _pods(cluster: Cluster, name: str) -> list[Object]:
    path = f"/api/v1/namespaces/{cluster.namespace}/pods"
    found: list[Object] = cluster.get(path, labelSelector=f"{names.INFERENCE_SERVICE_LABEL}={name}")["items"]
    if found:
        return found
    try:
        return [cluster.get(f"{path}/{name.removeprefix('pod/')}")]
    except NotFound:
        return []


def _gone(cluster: Cluster, name: str, present: set[str]) -> list[str]:
    """Of pods that were deleted: events are kept for an hour."""
    events = cluster.get(f"/api/v1/namespaces/{cluster.namespace}/events")["items"]
    of_name = re.compile(re.escape(name) + r"-(predictor|transformer|explainer)(-|$)")
    found = [
        (each.get("lastTimestamp") or "", each["involvedObject"]["name"], each.get("message", ""))
        for each in events
        if each.get("reason") == _REASON and each["involvedObject"].get("kind") == "Pod"
    ]
    return [
        f"{when}  {pod}  {message}"
        for when, pod, message in sorted(found)
        if pod not in present and (pod == name or of_name.match(pod))
    ]


def _seconds(text: str) -> float:
    moment = parse_time(text)
    return moment.timestamp() if moment is not None else 0.0


def _shown(ms: float) -> str:
    if ms >= 1000:
        return f"{ms / 1000:.2f} s"
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


def _block() -> str:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return "█" if encoding.startswith("utf") else "#"
