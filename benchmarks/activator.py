"""Requests that wait for a pod: how many, at what cost in memory, and what comes of them when there is one.

A service has been scaled to zero; its next pod becomes ready when the benchmark says so. Until then requests pile up,
each of another client. Memory is the resident growth of Envoy and the machine together; REST and gRPC have machines of
their own, since what an allocator has once taken it keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import pathlib
import re
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import httpx2
import psutil

from benchmarks import zero
from benchmarks.environments import PEERS
from benchmarks.held_clients import GrpcClients, RestClients, until
from benchmarks.lab import Lab, lab, wait_for
from benchmarks.results import DOCS, Result, Table, record
from glowplug.activator import ActivatorConfig

COMMAND = "make bench-activator"
STEPS = (1_000, 5_000, 10_000)
REST, GRPC = "http", "grpc"
_NAME = "held"
_SERVICES = "/apis/serving.knative.dev/v1/namespaces/default/services"
# What a pod takes at a time; past some thousands Envoy would run out of file descriptors when all are let go.
_CONCURRENCY = 100
_HELD = re.compile(r"^glowplug_activator_held\{[^}]*\} (\d+)$", re.MULTILINE)
_NOTES = (
    "requests of a revision without a pod, all waiting at once; REST: HTTP/1.1, a connection each; gRPC: 500 calls a"
    " connection; bytes are the growth of resident memory of Envoy and of the machine per request that waits",
    f"then a pod that takes {_CONCURRENCY} requests at a time becomes ready, and all answers are checked; over HTTP/1.1"
    " each client sends a second request behind the one that waits, and the answers must come in that order",
)


@dataclasses.dataclass(frozen=True)
class Step:
    """Memory with `held` requests waiting, in bytes above that without any."""

    held: int
    envoy: int
    machine: int

    @property
    def per_held(self) -> float:
        return (self.envoy + self.machine) / self.held


@dataclasses.dataclass(frozen=True)
class Run:
    """One protocol: the steps, then what was answered rightly, lost or wrong, and answers a second."""

    form: str
    steps: Sequence[Step]
    right: int
    wrong: dict[str, int]
    seconds: float
    refused: str

    @property
    def rate(self) -> float:
        return self.right / self.seconds if self.seconds > 0 else 0.0


def run(steps: Sequence[int] = STEPS) -> list[Result | Table]:
    """REST, then gRPC, each on a machine of its own."""
    runs = []
    for form in (REST, GRPC):
        with tempfile.TemporaryDirectory(prefix="glowplug-held-") as folder, lab() as found:
            runs.append(asyncio.run(_held(form, found, pathlib.Path(folder) / "open", steps)))
        print(f"  {form}: {runs[-1]}", file=sys.stderr)
    return [*results(runs), _table(runs)]


async def _held(form: str, found: Lab, gate: pathlib.Path, steps: Sequence[int]) -> Run:
    await asyncio.to_thread(_at_zero, form, found, gate)
    port = int(found.ingress.rpartition(":")[2])
    clients: Any = (
        RestClients(port, f"/serving/default/{_NAME}/")
        if form == REST
        else GrpcClients(port, f"{_NAME}.default.localhost")
    )
    before, taken = _resident(found), []
    try:
        for step in steps:
            await clients.add(step - (taken[-1].held if taken else 0))
            await until(lambda step=step: _held_now(found) == step, f"{step} requests to wait")
            now = _resident(found)
            taken.append(Step(step, now["envoy"] - before["envoy"], now["machine"] - before["machine"]))
            if clients.outcome.wrong:
                raise AssertionError(f"not held: {clients.outcome.wrong}")
        refused = await asyncio.to_thread(_one_too_many, found) if _is_full(steps[-1]) else ""
        expected = steps[-1] + clients.send_more()
        await asyncio.to_thread(gate.touch)
        outcome = clients.outcome
        await until(lambda: outcome.right + sum(outcome.wrong.values()) == expected, "all answers", 240)
        return Run(form, taken, outcome.right, dict(outcome.wrong), outcome.last - outcome.first, refused)
    finally:
        await clients.close()


def _at_zero(form: str, found: Lab, gate: pathlib.Path) -> None:
    """A service whose first pod was ready once, and which has none now."""
    zero.scale_to_zero_soon(found)
    gate.touch()
    container = {
        "image": "example/gate",
        "command": ["python", str(PEERS / "gate.py"), form, str(gate)],
        "ports": [{"containerPort": 8080, **({"name": "h2c"} if form == GRPC else {})}],
    }
    template = {
        "metadata": {"annotations": {"autoscaling.knative.dev/max-scale": "1"}},
        "spec": {"containers": [container], "containerConcurrency": _CONCURRENCY},
    }
    zero.create(
        found, _SERVICES, "serving.knative.dev/v1", "Service", {"name": _NAME}, spec={"template": template}
    )

    def pods() -> int:
        return len(found.cluster.get("/api/v1/namespaces/default/pods")["items"])

    def is_ready() -> bool:
        status = found.cluster.get(f"{_SERVICES}/{_NAME}").get("status") or {}
        ready = [each for each in status.get("conditions") or () if each["type"] == "Ready"]
        return bool(ready) and ready[0]["status"] == "True"

    wait_for(is_ready, "the service to be ready", every_s=0.2)
    wait_for(lambda: pods() == 0, "the service to scale to zero", every_s=0.2)
    gate.unlink()


def _resident(found: Lab) -> dict[str, int]:
    return {name: psutil.Process(found.processes[name]).memory_info().rss for name in ("envoy", "machine")}


def _held_now(found: Lab) -> int:
    return sum(map(int, _HELD.findall(found.cluster.request("GET", "/metrics").text)))


def _is_full(held: int) -> bool:
    return held == ActivatorConfig().max_held


def _one_too_many(found: Lab) -> str:
    """What the next request is told when as many wait as may: status and Retry-After."""
    with httpx2.Client(trust_env=False, timeout=30) as client:
        answer = client.post(f"{found.ingress}/serving/default/{_NAME}/", content=b"one too many")
    return f"{answer.status_code}, Retry-After: {answer.headers.get('retry-after', 'none')}"


def results(runs: Sequence[Run]) -> list[Result]:
    """Held at most (of the protocol that held less, only where nothing was lost), and bytes for each."""
    whole = [run for run in runs if not run.wrong]
    most = min((run.steps[-1].held for run in whole), default=0) if len(whole) == len(runs) else 0
    found = [
        _result(
            "activator.held.max", most, "requests",
            "waiting at once, none lost and each answered rightly when a pod came; the bound that is set, not a limit"
            " that was found",
        )
    ]  # fmt: skip
    for run in runs:
        suffix, what = ("", "REST, a connection each") if run.form == REST else (".grpc", "gRPC")
        note = f"{what}; growth of Envoy's and the machine's resident memory at {run.steps[-1].held:,} held"
        found.append(
            _result(f"activator.memory_per_held{suffix}.bytes", run.steps[-1].per_held, "bytes", note)
        )
        found.append(
            _result(
                f"activator.release{suffix}.rps", run.rate, "requests/s",
                f"{what}; from the first answer to the last, one pod that takes {_CONCURRENCY} at a time",
            )
        )  # fmt: skip
    return found


def _result(metric: str, value: float, unit: str, note: str) -> Result:
    return Result(metric, value, unit, value, value, 1, COMMAND, note=note)


def _table(runs: Sequence[Run]) -> Table:
    rows: list[list[Any]] = [
        [run.form, step.held, step.per_held, step.envoy / step.held, step.machine / step.held]
        for run in runs
        for step in run.steps
    ]
    notes = [*_NOTES]
    for run in runs:
        lost = ", ".join(f"{count} × {what}" for what, count in run.wrong.items()) or "none lost, none wrong"
        notes.append(f"{run.form}: {run.right:,} answered, {lost}; {run.rate:,.0f} a second")
        if run.refused:
            notes.append(f"{run.form}: with all places taken, one more request is answered {run.refused}")
    columns = ("protocol", "held", "bytes each", "of Envoy", "of the machine")
    return Table("activator.held", "Requests that wait", columns, rows, notes)


def main(argv: list[str]) -> int:
    """`python -m benchmarks.activator`: the same with other steps."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.activator")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="how many wait, rising")
    parser.add_argument("--out", type=pathlib.Path, default=DOCS, help="where the results go (default: docs)")
    options = parser.parse_args(argv)
    measured = run(options.steps)
    kept = [each for each in measured if isinstance(each, Result)]
    record(kept, [each for each in measured if isinstance(each, Table)], options.out)
    for result in kept:
        print(f"{result.metric} = {result.value:.4g} {result.unit}")
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
