"""Transformer, Redis and predictor: entity ids in, the prediction out, with the same rows in the same Redis for all.

Redis is one process that all of them share; its CPU is nobody's. A server's CPU and memory are those of its
transformer and its predictor together.
"""

from __future__ import annotations

import asyncio
import pathlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from benchmarks.environments import KSERVE, PEERS
from benchmarks.lab import FEATURES
from benchmarks.processes import Server, free_port
from benchmarks.xgboost_servers import (
    GLOWPLUG,
    STOCK,
    Place,
    await_ready,
    glowplug_environment,
    glowplug_xgboost,
    kserve_xgboost,
)
from glowplug.features.keys import row_prefix
from glowplug.features.online import OnlineConfig, connect
from glowplug.features.online_writer import Job, RowBatch, write
from glowplug.features.parse import read_view
from glowplug.features.view import FeatureView

OVER_REST, OVER_GRPC = f"{STOCK} over REST", f"{STOCK} over gRPC"
USERS = 64
_GROUPS = ("profile", "activity")
_COLUMNS = FEATURES // len(_GROUPS)


@dataclass(frozen=True)
class Store:
    """A filled Redis: its URL, the view and its file, and each user's row, float32 [users, features]."""

    url: str
    view: FeatureView
    view_file: pathlib.Path
    rows: Any


def write_view(path: pathlib.Path) -> FeatureView:
    """Two groups of 25 features, both by user id: two keys a row, one round trip."""
    groups = [
        {
            "name": name,
            "keys": ["user_id"],
            "source": name,
            "timestamp": "event_timestamp",
            "onMissing": "error",
            "onStale": "use",
            "features": [{"name": f"{name}_{i}", "dtype": "float32", "default": 0} for i in range(_COLUMNS)],
        }
        for name in _GROUPS
    ]
    document = {
        "apiVersion": "glowplug.dev/v1alpha1",
        "kind": "FeatureView",
        "metadata": {"name": "users"},
        "spec": {"entities": [{"name": "user_id", "type": "int64"}], "groups": groups},
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return read_view(path)


async def fill(url: str, folder: pathlib.Path) -> Store:
    """Write the rows of all users as a materialization does."""
    view_file = folder / "view.yaml"
    view = write_view(view_file)
    rows = np.random.default_rng(2).random((USERS, FEATURES), dtype=np.float32)
    now_ms = int(time.time() * 1000)
    client = connect(OnlineConfig(url))
    try:
        for index, group in enumerate(view.groups):
            values = np.ascontiguousarray(rows[:, index * _COLUMNS : (index + 1) * _COLUMNS])
            batch = RowBatch([[str(user) for user in range(USERS)]], np.full(USERS, now_ms), values)
            await write(client, view, group, Job("benchmark", USERS, now_ms), _one(batch))
    finally:
        await client.aclose()
    return Store(url, view, view_file, rows)


async def _one(batch: RowBatch) -> AsyncIterator[RowBatch]:
    await asyncio.sleep(0)
    yield batch


def start_glowplug(place: Place, store: Store) -> Server:
    """The pod of transformers/feature-lookup: the unit before predictors/xgboost, as its isvc.yaml has them."""

    def command(front: Server, predictor: Server) -> list[str]:
        return [
            sys.executable, "-m", "glowplug_feature_lookup", "--model_name=m", f"--model_dir={place.folder}",
            f"--feature_view={store.view_file}", f"--http_port={front.http_port}", f"--grpc_port={free_port()}",
            f"--predictor_host=127.0.0.1:{predictor.grpc_port}", "--predictor_protocol=grpc-v2",
            "--enable_predictor_health_check",
        ]  # fmt: skip

    environment = glowplug_environment({"REDIS_URL": store.url})
    predictor = glowplug_xgboost(f"{GLOWPLUG} predictor", place)
    return _behind(GLOWPLUG, predictor, command, environment, place)


def start_kserve(name: str, place: Place, store: Store) -> Server:
    """A stock transformer that does the same look-up, before the stock predictor, over V2 REST or V2 gRPC."""

    def command(front: Server, predictor: Server) -> list[str]:
        is_grpc = name == OVER_GRPC
        return [
            str(KSERVE.python), str(PEERS / "kserve_lookup.py"), "--model_name=m", f"--http_port={front.http_port}",
            "--enable_grpc=false",
            f"--predictor_host=127.0.0.1:{predictor.grpc_port if is_grpc else predictor.http_port}",
            f"--predictor_protocol={'grpc-v2' if is_grpc else 'v2'}",
        ]  # fmt: skip

    prefixes = " ".join(row_prefix(store.view, group) for group in store.view.groups)
    environment = {**place.variables, "REDIS_URL": store.url, "KEY_PREFIXES": prefixes}
    predictor = kserve_xgboost(f"{name} predictor", place)
    return _behind(name, predictor, command, environment, place)


def _behind(
    name: str,
    predictor: Server,
    command: Callable[[Server, Server], list[str]],
    environment: dict[str, str],
    place: Place,
) -> Server:
    """Wait for the predictor, then start the transformer before it; both are one server from here on."""
    await_ready(predictor)
    front = Server(name, free_port(), processes=predictor.processes, launched=predictor.launched)
    try:
        front.launch(command(front, predictor), environment, place.folder)
    except BaseException:
        front.stop()
        raise
    return await_ready(front)
