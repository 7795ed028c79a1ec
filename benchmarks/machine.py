"""What the machine itself costs: apply to first answer, listing, watching, memory and CPU at rest."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
from queue import Queue

import httpx2
import psutil

from benchmarks.lab import Lab, lab, predict, wait_for
from benchmarks.results import Result, percentile, summarise

COMMAND = "make bench-machine"
_SERVICES = 1000
_APPLIES = 7
_LISTS = 20
_WATCHED = 300
_IDLE_SERVICES = 10
_IDLE_WINDOW_S = 30.0
_LIST = "/apis/serving.kserve.io/v1beta1/inferenceservices"
_NAMESPACED = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"


def run() -> list[Result]:
    """All of them, on one machine, in an order in which none disturbs the next."""
    with lab() as found, httpx2.Client(trust_env=False, timeout=30) as client:
        found.allow_zero()
        results = _apply_to_first_200(found, client)
        results += [_watch_latency(found)]
        results += _idle_cpu(found, client)
        results += _thousand(found)
    return results


def _apply_to_first_200(found: Lab, client: httpx2.Client) -> list[Result]:
    """Apply -> first 200, interleaved with the same unit started by hand."""
    applied, bare = [], []
    for i in range(_APPLIES):
        name = f"apply-{i}"
        started = time.perf_counter()
        found.create(name)
        found.wait_until_served(client, name)
        applied.append(time.perf_counter() - started)
        found.delete(name)
        bare.append(_bare_start(found, client))
    ratios = [mine / theirs for mine, theirs in zip(applied, bare, strict=True)]
    return [
        summarise("machine.apply_to_first_200.s", applied, "s", command=COMMAND, goal="< 5"),
        summarise(
            "machine.apply_to_first_200.ratio_to_bare_process", ratios, "x", command=COMMAND,
            note="the same unit started by hand as a process, without any machine, until its first 200",
        ),
    ]  # fmt: skip


def _bare_start(found: Lab, client: httpx2.Client) -> float:
    port, grpc_port = _free_port(), _free_port()
    command = [
        sys.executable, "-m", "glowplug_xgboost", "--model_name=bare", f"--model_dir={found.model_dir}",
        f"--http_port={port}", f"--grpc_port={grpc_port}",
    ]  # fmt: skip
    root = pathlib.Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root / "predictors/xgboost/src"), "HOST": "127.0.0.1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_served() -> bool:
        try:
            return predict(client, f"http://127.0.0.1:{port}", "bare").status_code == 200
        except httpx2.TransportError:
            return False

    try:
        wait_for(is_served, "the bare process", every_s=0.005)
        return time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def _watch_latency(found: Lab) -> Result:
    """From sending a write to seeing its event on an open watch."""
    found.create("watched", initial_scale=0)
    arrived: Queue[tuple[str, float]] = Queue()
    watching = threading.Thread(target=_watch, args=(found, arrived), daemon=True)
    watching.start()
    arrived.get(timeout=30)
    samples = []
    for i in range(_WATCHED):
        patch = json.dumps({"metadata": {"labels": {"round": str(i)}}}).encode()
        started = time.perf_counter()
        found.cluster.request(
            "PATCH",
            f"{_NAMESPACED}/watched",
            body=patch,
            headers={"Content-Type": "application/merge-patch+json"},
        )
        while True:
            label, seen = arrived.get(timeout=30)
            if label == str(i):
                samples.append((seen - started) * 1000)
                break
    found.delete("watched")
    return Result(
        "machine.watch_latency.p99_ms", percentile(samples, 99), "ms", percentile(samples, 10),
        percentile(samples, 90), len(samples), COMMAND,
        note="from sending a merge patch over HTTPS to its event on an open watch; the spread is of single events",
    )  # fmt: skip


def _watch(found: Lab, arrived: Queue[tuple[str, float]]) -> None:
    with found.cluster.stream(_NAMESPACED, {"watch": "true"}) as response:
        for line in response.iter_lines():
            event = json.loads(line)
            arrived.put((event["object"]["metadata"].get("labels", {}).get("round", ""), time.perf_counter()))


def _idle_cpu(found: Lab, client: httpx2.Client) -> list[Result]:
    """The machine's and Envoy's CPU while ten ready InferenceServices get no request."""
    names = [f"idle-{i}" for i in range(_IDLE_SERVICES)]
    for name in names:
        found.create(name)
    for name in names:
        found.wait_until_served(client, name)
    time.sleep(5)
    before = _cpu_seconds(found)
    time.sleep(_IDLE_WINDOW_S)
    percent = (_cpu_seconds(found) - before) / _IDLE_WINDOW_S * 100
    for name in names:
        found.delete(name)
    return [
        Result(
            "machine.idle_cpu.percent", percent, "% of a core", percent, percent, 1, COMMAND, "< 2",
            f"machine, Envoy and guardian over {_IDLE_WINDOW_S:.0f} s with {_IDLE_SERVICES} ready InferenceServices",
        )
    ]  # fmt: skip


def _thousand(found: Lab) -> list[Result]:
    """List a thousand InferenceServices at scale 0, and what one costs in memory."""
    before = _resident_kib(found)
    for i in range(_SERVICES):
        found.create(f"zero-{i:04}", initial_scale=0)
    wait_for(
        lambda: _ready_count(found) == _SERVICES, "a thousand InferenceServices to be reconciled", every_s=0.5
    )
    per_service = (_resident_kib(found) - before) / _SERVICES
    samples = []
    for _ in range(_LISTS):
        started = time.perf_counter()
        response = found.cluster.request("GET", _LIST)
        samples.append((time.perf_counter() - started) * 1000)
        if response.content.count(b'"kind":"InferenceService"') < _SERVICES:
            raise AssertionError("the list is not whole")
    return [
        summarise("machine.list_1000_isvc.ms", samples, "ms", command=COMMAND, goal="< 300"),
        Result(
            "machine.memory_per_idle_isvc.kib", per_service, "KiB", per_service, per_service, 1, COMMAND, "",
            "resident memory of machine and Envoy, a thousand InferenceServices at scale 0, all their objects",
        ),
    ]  # fmt: skip


def _ready_count(found: Lab) -> int:
    items = found.cluster.get(_LIST)["items"]
    return sum(
        any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in (item.get("status") or {}).get("conditions", ())
        )
        for item in items
    )


def _machine_processes(found: Lab) -> list[psutil.Process]:
    return [psutil.Process(pid) for name, pid in found.processes.items()]


def _cpu_seconds(found: Lab) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _machine_processes(found))


def _resident_kib(found: Lab) -> float:
    return sum(process.memory_info().rss for process in _machine_processes(found)) / 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
