"""Weights that replicas map and share, against weights of each replica's own: time to ready, and memory of three."""

from __future__ import annotations

import pathlib
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack

import psutil

from benchmarks.environments import Absent, deep_models
from benchmarks.processes import Server, free_port
from benchmarks.results import Result, summarise
from benchmarks.xgboost_servers import await_ready, glowplug_environment

_COMMAND = "make bench-weights"
_MODELS = {"resnet50": "resnet", "bert-base": "bert"}
_ROUNDS, _REPLICAS = 5, 3
_NOWHERE = "/proc/nowhere"
_LIMIT_S = 120.0


def run() -> list[Result]:
    """Raises `Absent` where the models cannot be exported."""
    results = []
    models = deep_models()
    for name, short in _MODELS.items():
        with tempfile.TemporaryDirectory(prefix="glowplug-weights-") as made:
            folder = pathlib.Path(made)
            _make_form(models / name, folder)
            starts: dict[str, list[float]] = {_NOWHERE: [], str(folder): []}
            memory: dict[str, list[float]] = {_NOWHERE: [], str(folder): []}
            for _ in range(_ROUNDS):
                for cache in starts:
                    start_s, mib = _replicas(models / name, folder, cache)
                    starts[cache].append(start_s)
                    memory[cache].append(mib)
        own, mapped = _NOWHERE, str(folder)
        note = f"{name}, fp32, 1 thread; weights mapped against weights of each replica's own"
        for metric, figures in (
            ("start_to_ready", starts),
            (f"memory_of_{_REPLICAS}", memory),
        ):
            ratios = [a / b for a, b in zip(figures[mapped], figures[own], strict=True)]
            results.append(
                summarise(f"weights.{short}.{metric}.ratio", ratios, "x", command=_COMMAND, note=note)
            )
        results.append(
            summarise(f"weights.{short}.start_to_ready.s", starts[mapped], "s", command=_COMMAND, note=note)
        )
    return results


def _replicas(model: pathlib.Path, folder: pathlib.Path, cache: str) -> tuple[float, float]:
    """Seconds from its start until the first one is ready; MiB (PSS) of all, each of them warmed up."""
    with ExitStack() as stack:
        servers = []
        for number in range(_REPLICAS):
            servers.append(_start(f"replica-{number}", model, folder, cache))
            stack.callback(servers[-1].stop)
        pss = sum(psutil.Process(pid).memory_full_info().pss for each in servers for pid in each.tree())
        return servers[0].start_s, pss / 2**20


def _make_form(model: pathlib.Path, folder: pathlib.Path) -> None:
    server = _start("first", model, folder, str(folder))
    try:
        deadline = time.monotonic() + _LIMIT_S
        while not _is_mapped(server):
            if time.monotonic() > deadline:
                raise Absent(f"the form of {model} was not made in {_LIMIT_S:.0f} s")
            time.sleep(0.1)
    finally:
        server.stop()


def _is_mapped(server: Server) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=10) as answer:
        return b'key="weights",value="mapped' in answer.read()


def _start(name: str, model: pathlib.Path, folder: pathlib.Path, cache: str) -> Server:
    server = Server(name, free_port(), free_port())
    command = [
        sys.executable, "-m", "glowplug_onnx", "--model_name=m", f"--model_dir={model}",
        f"--http_port={server.http_port}", f"--grpc_port={server.grpc_port}",
    ]  # fmt: skip
    server.launch(command, glowplug_environment({"XDG_CACHE_HOME": cache}), folder / "logs")
    return await_ready(server)
