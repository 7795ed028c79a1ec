"""XGBoost, 100 trees of depth 6, 50 features, one row a request, on every server that could be started."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.environments import ASGI, BENTOML, FLASK, KSERVE, LITSERVE, MLSERVER, TRITON, Absent, versions
from benchmarks.lab import FEATURES, write_model
from benchmarks.processes import Server
from benchmarks.protocols import BINARY, GRPC, JSON, Caller, Request, request
from benchmarks.results import Result, Table, summarise
from benchmarks.rounds import COMMAND, Cell, Measured, Options, by_turns, ratio
from benchmarks.serving_tables import figures
from benchmarks.xgboost_servers import (
    FLOOR,
    GLOWPLUG,
    PEERS_OF_XGBOOST,
    RAW_ASGI,
    STOCK,
    TRITON_BATCHING,
    TRITON_PLAIN,
    Peer,
    Place,
)

CONCURRENCIES = (1, 8, 64)
_ROWS = 64
_STARTS, _QUICK_STARTS = 7, 2
_NOTES = (
    versions(KSERVE, MLSERVER, BENTOML, LITSERVE, FLASK, ASGI, TRITON),
    "XGBoost, 100 trees of depth 6, 50 features, one row a request; all servers run at once and are loaded by turns"
    " on 127.0.0.1, two cores shared with it; medians of the rounds",
    "CPU is user and system time of the server's whole process tree; memory its resident pages after the"
    " load, shared ones once",
    "every server has one thread for the trees ($OMP_NUM_THREADS = 1); glowplug, kserve and Triton as they come;"
    " MLServer with parallel_workers 0, which costs it less; Flask on gunicorn with a worker a core and 4 threads each",
    "HTTP by wrk with another of 64 rows each request; gRPC by h2load, which repeats one row, another one each round:"
    " repeated, compiled trees cost about a tenth less",
    "answers are compared with the booster's own before, during and after each load",
    "nginx answers a constant: the floor of the protocol and the load tool",
    "kserve, MLServer, BentoML and LitServe speak the protocols that the table has them with; the others were written"
    " for V2 JSON",
)


def rows_and_answers(model_file: pathlib.Path) -> tuple[Any, Any]:
    """float32 [64, 50], and the booster's own predictions float32 [64]."""
    import xgboost

    rows = np.random.default_rng(1).random((_ROWS, FEATURES), dtype=np.float32)
    booster = xgboost.Booster(model_file=str(model_file))
    return rows, booster.inplace_predict(rows)


def run(options: Options, folder: pathlib.Path) -> tuple[list[Result], Table]:
    """Start-up by turns first, then the loads with all servers up."""
    write_model(folder / "model")
    place = Place(folder, folder / "model" / "model.ubj")
    rows, answers = rows_and_answers(place.model_file)

    def requests_of(peer: Peer, protocol: str) -> list[Request]:
        expected = [None] * _ROWS if peer.name == FLOOR else [answers[i : i + 1] for i in range(_ROWS)]
        return [request(protocol, "m", {"input-0": rows[i : i + 1]}, expected[i]) for i in range(_ROWS)]

    absent: dict[str, str] = {}
    starts = _starts(options, folder, place, requests_of)
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for peer in PEERS_OF_XGBOOST:
            try:
                servers[peer.name] = peer.start(place)
            except Absent as error:
                absent[peer.name] = str(error)
                continue
            stack.callback(servers[peer.name].stop)
        requests = {
            peer.name: {protocol: requests_of(peer, protocol) for protocol in peer.protocols}
            for peer in PEERS_OF_XGBOOST
            if peer.name in servers
        }
        found = by_turns(servers, requests, CONCURRENCIES, options)
    found.absent.update(absent)
    table = figures(
        "serving.xgboost",
        "XGBoost served: peers side by side",
        found,
        _NOTES,
        ("serving_cpu", "serving_rps", "serving_latency", "serving_protocols", "serving_memory"),
    )
    return [*_results(found), *_start_results(starts)], table


def _starts(
    options: Options, folder: pathlib.Path, place: Place, requests_of: Any
) -> Mapping[str, Sequence[float]]:
    """Seconds until ready, glowplug and stock kserve by turns; each must then answer rightly."""
    peers = [peer for peer in PEERS_OF_XGBOOST if peer.name in (GLOWPLUG, STOCK)]
    seconds: dict[str, list[float]] = {peer.name: [] for peer in peers}
    # The first of each writes bytecode and fills the page cache; an image has both.
    for number in range((_QUICK_STARTS if options.quick else _STARTS) + 1):
        for peer in peers:
            try:
                server = peer.start(place)
            except Absent:
                return {}
            try:
                caller = Caller(server.http_port, server.grpc_port)
                caller.call(requests_of(peer, JSON)[0])
                caller.close()
            finally:
                server.stop()
            if number:
                seconds[peer.name].append(server.start_s)
    return seconds


def _start_results(starts: Mapping[str, Sequence[float]]) -> list[Result]:
    if not starts:
        return []
    note = "from starting the process until /v2/health/ready is 200, XGBoost; by turns with stock kserve"
    return [
        summarise(
            "serving.start_to_ready.s", starts[GLOWPLUG], "s", command=COMMAND, goal="< 0.4", note=note
        ),
        *ratio("serving.start_to_ready.ratio_to_kserve", starts[GLOWPLUG], starts[STOCK]),
    ]


def _results(found: Measured) -> list[Result]:
    def each(server: str, protocol: str, concurrency: int, figure: str) -> list[float]:
        return found.each(Cell(server, protocol, concurrency), figure)

    def against(server: str, protocol: str, figure: str) -> tuple[list[float], list[float]]:
        return each(GLOWPLUG, protocol, 8, figure), each(server, protocol, 8, figure)

    stock = "kserve 0.21 as it comes; one row, 8 clients"
    return [
        *ratio("serving.v2_json.cpu.ratio_to_kserve", *against(STOCK, JSON, "cpu_us"), goal="<= 0.20", note=stock),
        *ratio("serving.v2_json.rps.ratio_to_kserve", *against(STOCK, JSON, "rps"), goal=">= 5", note=stock),
        *ratio(
            "serving.v2_json.cpu.ratio_to_raw_asgi", *against(RAW_ASGI, JSON, "cpu_us"), goal="<= 0.6",
            note="an ASGI callable of forty lines on uvicorn with uvloop and httptools, inplace_predict on one thread",
        ),
        *ratio(
            "serving.v2_json.p99.ratio_to_best_peer", each(GLOWPLUG, JSON, 8, "p99_ms"), _best_p99(found),
            goal="<= 1", note="the lowest p99 among the peers in each round, 8 clients; nginx is no peer",
        ),
        *ratio("serving.v2_grpc.cpu.ratio_to_kserve", *against(STOCK, GRPC, "cpu_us"), note=stock),
        *ratio(
            "serving.batching.rps.c64_to_c8", each(GLOWPLUG, JSON, 64, "rps"), each(GLOWPLUG, JSON, 8, "rps"),
            goal=">= 1.5", note="V2 JSON; the load tool has the other of two cores",
        ),
        *ratio(
            "serving.memory.ratio_to_kserve", found.memory_mib.get(GLOWPLUG, ()), found.memory_mib.get(STOCK, ()),
            goal="< 0.6", note="resident pages of the process tree, shared ones once, after each round of loads",
        ),
        *ratio(
            "triton.batching.rps.ratio", each(TRITON_BATCHING, BINARY, 64, "rps"),
            each(TRITON_PLAIN, BINARY, 64, "rps"),
            note="tritonserver 2.51, Python backend, XGBoost, 64 clients, V2 binary: dynamic batching (32, 5,000 µs)"
            " against none",
        ),
    ]  # fmt: skip


def _best_p99(found: Measured) -> list[float]:
    """The lowest p99 of each round among the peers, V2 JSON at 8 clients."""
    peers = [
        found.each(cell, "p99_ms")
        for cell in found.samples
        if cell.server not in (GLOWPLUG, FLOOR) and (cell.protocol, cell.concurrency) == (JSON, 8)
    ]
    return [min(of_round) for of_round in zip(*peers, strict=True)]
