"""Cold starts on a cluster, server by turns with server, and where the time goes.

Moments are taken on this computer, whose processes the pods' are: when the model's process was started, by the kernel,
and when it said that it listens, by its container's log.
"""

from __future__ import annotations

import datetime
import http.client
import os
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.cluster_place import Cluster, Container, first_ready, process_of, wait_for
from benchmarks.environments import Absent

CONTAINER = "kserve-container"
# Of our server, and of uvicorn in KServe's.
_LISTENS = ("ready", "Application startup complete", "Uvicorn running on")


@dataclass(frozen=True)
class Start:
    """Milliseconds: until the model's process was started, from there until it listened, and in all until the 200."""

    started: float
    ready: float
    total: float

    @property
    def rest(self) -> float:
        return self.total - self.started - self.ready


def coldest(
    cluster: Cluster, namespace: str, services: Mapping[str, str], body: bytes, rounds: int
) -> dict[str, list[Start]]:
    """By server, one start a round. `services` are InferenceServices that go to zero."""
    found: dict[str, list[Start]] = {name: [] for name in services}
    for number in range(rounds):
        for name in list(services)[:: 1 if number % 2 else -1]:
            found[name].append(_start(cluster, namespace, services[name], body))
    return found


def _start(cluster: Cluster, namespace: str, name: str, body: bytes) -> Start:
    host, label = cluster.host(namespace, name), f"serving.kserve.io/inferenceservice={name}"
    wait_for(
        lambda: not cluster.get("-n", namespace, "pods", "-l", label)["items"], f"{name} to be at zero", 0.5
    )
    connection = http.client.HTTPConnection(*_address(cluster.gateway), timeout=60)
    began = time.time()
    try:
        connection.request(
            "POST", f"/v2/models/{name}/infer", body, {"Host": host, "Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        answer.read()
        total = time.time() - began
    finally:
        connection.close()
    assert answer.status == 200, answer.status
    # Looked up afterwards: whoever watches a start on the same computer slows it down.
    container = first_ready(cluster.containers(namespace, label, CONTAINER), name)
    started = _started(process_of(container))
    ready = _logged(cluster, container)
    return Start((started - began) * 1000, (ready - started) * 1000, total * 1000)


def _logged(cluster: Cluster, container: Container) -> float:
    """When the server said that it listens."""
    where = ("-n", container.namespace, "logs", container.pod, "-c", container.name)
    for line in cluster.kubectl(*where, "--timestamps").splitlines():
        if any(each in line for each in _LISTENS):
            stamp, _, fraction = line.split(" ", 1)[0].rstrip("Z").partition(".")
            moment = datetime.datetime.fromisoformat(f"{stamp}+00:00").timestamp()
            return moment + float(f"0.{fraction or 0}")
    raise Absent(f"{container.pod} never said that it listens")


def _started(process: int) -> float:
    """By the kernel, in hundredths of a second since the epoch."""
    ticks = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + int(ticks) / os.sysconf("SC_CLK_TCK")


def _address(gateway: str) -> tuple[str, int]:
    name, _, port = gateway.rpartition(":")
    return name, int(port)


def phase_rows(starts: Sequence[Start]) -> list[list[str | float]]:
    """Medians, by phase."""
    phases = (
        ("cold start: until its process runs, ms", [each.started for each in starts]),
        ("cold start: its process until it listens, ms", [each.ready for each in starts]),
        ("cold start: from then until the 200, ms", [each.rest for each in starts]),
        ("cold start, ms", [each.total for each in starts]),
    )
    return [[name, statistics.median(taken)] for name, taken in phases]
