"""Transformer + Redis + predictor: glowplug's pod against stock kserve's, over REST and over gRPC."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from benchmarks.environments import KSERVE, Absent
from benchmarks.lab import write_model
from benchmarks.lookup_servers import OVER_GRPC, OVER_REST, Store, fill, start_glowplug, start_kserve
from benchmarks.processes import Server
from benchmarks.protocols import JSON, request
from benchmarks.results import Result, Table
from benchmarks.rounds import Cell, Measured, Options, by_turns, ratio
from benchmarks.serving_tables import figures
from benchmarks.xgboost_servers import GLOWPLUG, Place
from glowplug.features.redis_server import start_redis

CONCURRENCIES = (1, 8, 64)
_ROWS = 64
_NOTES = (
    "a user id over V2 JSON, two rows of 25 features by one MGET, the XGBoost predictor, its answer;"
    " transformer and predictor are two processes on one computer, as in one pod",
    "CPU and memory are those of transformer and predictor together; Redis is shared by all and counted for none",
    "the stock transformer decodes the same packed rows with numpy; answers are compared with the booster's own",
)


def run(options: Options, folder: pathlib.Path) -> tuple[list[Result], Table]:
    """All three pods on one Redis, loaded by turns."""
    write_model(folder / "model")
    place = Place(folder, folder / "model" / "model.ubj")
    found = asyncio.run(_with_redis(options, place))
    results = []
    for over, metric, goal in (
        (OVER_REST, "serving.lookup_predict.cpu.ratio_to_kserve_rest", "<= 0.08"),
        (OVER_GRPC, "serving.lookup_predict.cpu.ratio_to_kserve_grpc", "<= 0.15"),
    ):
        mine, theirs = (found.each(Cell(server, JSON, 8), "cpu_us") for server in (GLOWPLUG, over))
        results += ratio(
            metric, mine, theirs, goal=goal, note="transformer and predictor together, 8 clients"
        )
    title = "Transformer, Redis and predictor: peers side by side"
    return results, figures("serving.lookup", title, found, _NOTES, ("serving_lookup",))


async def _with_redis(options: Options, place: Place) -> Measured:
    async with start_redis(place.folder / "redis") as redis:
        store = await fill(redis.url, place.folder)
        # The loads block; nothing else wants this loop until they are over.
        return await asyncio.to_thread(_measure, options, place, store)


def _measure(options: Options, place: Place, store: Store) -> Measured:
    import xgboost

    answers = xgboost.Booster(model_file=str(place.model_file)).inplace_predict(store.rows)
    sent = [
        request(JSON, "m", {"user_id": np.array([user], dtype=np.int64)}, answers[user : user + 1])
        for user in range(_ROWS)
    ]
    launches: dict[str, Callable[[], Server]] = {
        GLOWPLUG: lambda: start_glowplug(place, store),
        OVER_REST: lambda: start_kserve(OVER_REST, place, store),
        OVER_GRPC: lambda: start_kserve(OVER_GRPC, place, store),
    }
    absent: dict[str, str] = {}
    servers: dict[str, Server] = {}
    with ExitStack() as stack:
        for name, launch in launches.items():
            try:
                KSERVE.ensure()
                servers[name] = launch()
            except Absent as error:
                absent[name] = str(error)
                continue
            stack.callback(servers[name].stop)
        found = by_turns(servers, {name: {JSON: sent} for name in servers}, CONCURRENCIES, options)
    found.absent.update(absent)
    return found
