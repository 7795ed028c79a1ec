"""On a real cluster: what its path adds, the CPU of a request, and cold starts, ours and stock KServe's by turns.

The same model behind KServe's XGBoost server and behind ours; the local machine's path in the same run.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import httpx2

from benchmarks.cluster_load import Connection
from benchmarks.cluster_place import (
    Cluster,
    Container,
    cpu_s,
    find,
    first_ready,
    load_average,
    runtime,
    service,
)
from benchmarks.cluster_zero import Start, coldest, phase_rows
from benchmarks.lab import body, lab, write_model
from benchmarks.results import Result, Table, percentile, summarise

COMMAND = "make bench-cluster"
NAMESPACE = "cluster-bench"
OURS, STOCK = "ours", "stock"
_RUNTIMES = {OURS: "glowplug-xgboost", STOCK: "kserve-xgbserver"}
_ROUNDS, _REQUESTS, _BLOCK = 10, 200, 20
_CLIENTS, _EACH = 4, 250
_STARTS = 6
_SOON = {
    "autoscaling.knative.dev/window": "6s",
    "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "0s",
}


@dataclass
class Measured:
    """One number a round, by server or by path."""

    path_p50: dict[str, list[float]] = field(default_factory=dict)
    p50: dict[str, list[float]] = field(default_factory=dict)
    p99: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    pod_cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    starts: dict[str, list[Start]] = field(default_factory=dict)


def run() -> list[Result | Table]:
    """Under eight minutes. Raises `Absent` without a cluster."""
    cluster, found = find(), Measured()
    with tempfile.TemporaryDirectory(prefix="glowplug-cluster-") as folder, ExitStack() as stack:
        root = pathlib.Path(folder)
        root.chmod(0o755)
        write_model(root / "xgboost")
        stack.enter_context(cluster.namespace(NAMESPACE, root))
        stack.enter_context(_services(cluster))
        with _local() as local:
            asyncio.run(_paths(cluster, local, found))
        asyncio.run(_by_turns(cluster, found))
        cold = {name: f"cold-{name}" for name in _RUNTIMES}
        found.starts = coldest(cluster, NAMESPACE, cold, body(), _STARTS)
    return [*_results(found), _table(found)]


@contextmanager
def _services(cluster: Cluster) -> Iterator[None]:
    """Each server twice: with one replica that stays, and at zero."""
    cluster.apply(
        runtime(cluster, NAMESPACE),
        *(service(NAMESPACE, name, kind, minReplicas=1, maxReplicas=1) for name, kind in _RUNTIMES.items()),
        *(
            service(NAMESPACE, f"cold-{name}", kind, _SOON, minReplicas=0, maxReplicas=1)
            for name, kind in _RUNTIMES.items()
        ),
    )
    names = [*_RUNTIMES, *(f"cold-{name}" for name in _RUNTIMES)]
    try:
        cluster.wait_ready(*names, namespace=NAMESPACE)
        yield
    finally:
        cluster.kubectl("-n", NAMESPACE, "delete", "isvc", *names, "--wait=true", check=False)


@dataclass(frozen=True)
class _Local:
    """The local machine's two ways: host:port of its ingress with the path before the model's, and of the pod."""

    ingress: str
    prefix: str
    pod: str


@contextmanager
def _local() -> Iterator[_Local]:
    with lab() as found, httpx2.Client(trust_env=False, timeout=30) as client:
        found.create(OURS)
        found.wait_until_served(client, OURS)
        label = f"serving.kserve.io/inferenceservice={OURS}"
        pod = found.cluster.get("/api/v1/namespaces/default/pods", labelSelector=label)["items"][0]
        port = json.loads(pod["metadata"]["annotations"]["glowplug.dev/endpoint-ports"])["http"]
        url = httpx2.URL(found.url(OURS))
        yield _Local(f"{url.host}:{url.port}", url.path, f"127.0.0.1:{port}")


def _pod(cluster: Cluster, name: str, container: str = "kserve-container") -> Container:
    label = f"serving.kserve.io/inferenceservice={name}"
    return first_ready(cluster.containers(NAMESPACE, label, container), name)


async def _paths(cluster: Cluster, local: _Local, found: Measured) -> None:
    """The same request four ways, in turns of a few."""
    path = f"/v2/models/{OURS}/infer"
    host = cluster.host(NAMESPACE, OURS)
    address = _pod(cluster, OURS).address
    ways = {
        "cluster gateway": await Connection.open(cluster.gateway, host, path, body()),
        "cluster pod": await Connection.open(f"{address}:8080", address, path, body()),
        "local ingress": await Connection.open(local.ingress, local.ingress, local.prefix + path, body()),
        "local pod": await Connection.open(local.pod, local.pod, path, body()),
    }
    for number in range(_ROUNDS + 1):
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(_REQUESTS // _BLOCK):
            for name, connection in ways.items():
                times[name] += [await connection.call() for _ in range(_BLOCK)]
        if number:  # the first round warms all
            for name, taken in times.items():
                found.path_p50.setdefault(name, []).append(percentile(taken, 50))
    for connection in ways.values():
        connection.close()


async def _by_turns(cluster: Cluster, found: Measured) -> None:
    """A few clients without pause, at one server and then at the other."""
    for number in range(_ROUNDS + 1):
        for name in list(_RUNTIMES)[:: 1 if number % 2 else -1]:
            model, proxy = _pod(cluster, name), _pod(cluster, name, "queue-proxy")
            host = cluster.host(NAMESPACE, name)
            before, proxy_before = cpu_s(model), cpu_s(proxy)
            taken = await _load(cluster, host, name)
            used, proxy_used = cpu_s(model) - before, cpu_s(proxy) - proxy_before
            if not number:
                continue
            found.p50.setdefault(name, []).append(percentile(taken, 50))
            found.p99.setdefault(name, []).append(percentile(taken, 99))
            found.cpu_ms.setdefault(name, []).append(used / len(taken) * 1000)
            found.pod_cpu_ms.setdefault(name, []).append((used + proxy_used) / len(taken) * 1000)


async def _load(cluster: Cluster, host: str, name: str) -> list[float]:
    async def client() -> list[float]:
        connection = await Connection.open(cluster.gateway, host, f"/v2/models/{name}/infer", body())
        try:
            return [await connection.call() for _ in range(_EACH)]
        finally:
            connection.close()

    return [each for taken in await asyncio.gather(*(client() for _ in range(_CLIENTS))) for each in taken]


def _results(found: Measured) -> list[Result]:
    def added(where: str, before: str) -> list[float]:
        through, straight = found.path_p50[f"{where} {before}"], found.path_p50[f"{where} pod"]
        return [a - b for a, b in zip(through, straight, strict=True)]

    def ratio(of: dict[str, list[float]]) -> list[float]:
        return [a / b for a, b in zip(of[OURS], of[STOCK], strict=True)]

    each = f"{_CLIENTS} clients on kept connections through the gateway, one row, V2 JSON"
    starts = [
        ours.total / stock.total for ours, stock in zip(found.starts[OURS], found.starts[STOCK], strict=True)
    ]
    values = (
        ("cluster.path_added.p50_ms", added("cluster", "gateway"), "ms", "",
         "gateway, activator and queue-proxy: through the gateway less straight to the pod's port, one connection"),
        ("cluster.path_added.local_machine.p50_ms", added("local", "ingress"), "ms", "",
         "the same on the local machine, by turns with the cluster"),
        ("cluster.predict.cpu.ratio_to_kserve", ratio(found.cpu_ms), "x", "<= 0.3",
         f"CPU of the model's container a request, by its cgroup, ours over KServe's XGBoost server; {each}"),
        ("cluster.predict.cpu.with_queue_proxy.ratio_to_kserve", ratio(found.pod_cpu_ms), "x", "",
         "the same of the whole pod, with Knative's queue-proxy, which both have"),
        ("cluster.predict.p50.ratio_to_kserve", ratio(found.p50), "x", "", each),
        ("cluster.predict.p99.ratio_to_kserve", ratio(found.p99), "x", "", each),
        ("cluster.coldstart.ratio_to_kserve", starts, "x", "<= 0.6",
         "from zero, one request until its 200, ours over KServe's XGBoost server in the same round"),
    )  # fmt: skip
    return [
        summarise(metric, samples, unit, command=COMMAND, goal=goal, note=note)
        for metric, samples, unit, goal, note in values
    ]


def _table(found: Measured) -> Table:
    rows: list[Sequence[str | float]] = [
        [name, "p50 of one connection, ms", statistics.median(taken)]
        for name, taken in found.path_p50.items()
    ]
    for what, of in (
        (f"p50 of {_CLIENTS} clients, ms", found.p50),
        (f"p99 of {_CLIENTS} clients, ms", found.p99),
        ("CPU a request, model's container, ms", found.cpu_ms),
        ("CPU a request, whole pod, ms", found.pod_cpu_ms),
    ):
        rows += [[name, what, statistics.median(taken)] for name, taken in of.items()]
    for name, starts in found.starts.items():
        rows += [[name, *row] for row in phase_rows(starts)]
    notes = ("medians; phases of cold starts do not add up exactly", load_average())
    return Table(
        "cluster.numbers", "On a real cluster, beside KServe's XGBoost server", ("", "", "value"), rows, notes
    )


if __name__ == "__main__":
    for result in run():
        print(result, file=sys.stdout)
