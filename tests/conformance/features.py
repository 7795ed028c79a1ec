"""An online store for either target: the machine's way on this computer, a Pod of Redis in the cluster.

On a cluster the image is $CONFORMANCE_REDIS_IMAGE, else that of the backing services; rows are written through
`kubectl port-forward`.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import redis.asyncio as redis
from conformance.target import READY_TIMEOUT_S, Target
from local.machine_lab import wait_for

from glowplug.features.online_writer import Job, RowBatch, write
from glowplug.features.redis_server import start_redis
from glowplug.features.view import FeatureView

IMAGE = "CONFORMANCE_REDIS_IMAGE"
DEFAULT_IMAGE = "redis:7.2.7"
NAME = "features"
PORT = 6379
Rows = dict[str, tuple[float, ...]]


@contextmanager
def online_store(target: Target, view: FeatureView, rows: Rows) -> Iterator[str]:
    """REDIS_URL for a pod, of a store that holds the rows of the view's one group."""
    with _on_this_computer() if target.is_local else _in_the_cluster(target) as (for_us, for_pods):
        asyncio.run(_write(for_us, view, rows))
        yield for_pods


async def _write(url: str, view: FeatureView, rows: Rows) -> None:
    (group,) = view.groups
    job = Job("conformance", len(rows), 1_000)

    async def batches() -> AsyncIterator[RowBatch]:
        values = np.array(list(rows.values()), np.float32)
        yield RowBatch([list(rows)], np.full(len(rows), 1_000, np.int64), values)

    client = redis.from_url(url)
    try:
        await write(client, view, group, job, batches())
    finally:
        await client.aclose()


@contextmanager
def _on_this_computer() -> Iterator[tuple[str, str]]:
    """The server lives in a loop of its own: a case is no coroutine."""
    is_over, is_up = threading.Event(), threading.Event()
    urls: list[str] = []

    async def run(folder: Path) -> None:
        async with start_redis(folder) as server:
            urls.append(server.url)
            is_up.set()
            await asyncio.to_thread(is_over.wait)

    with tempfile.TemporaryDirectory() as folder:
        thread = threading.Thread(target=lambda: asyncio.run(run(Path(folder))), name="redis")
        thread.start()
        try:
            wait_for(lambda: is_up.is_set() or not thread.is_alive(), "Redis")
            yield urls[0], urls[0]
        finally:
            is_over.set()
            thread.join()


@contextmanager
def _in_the_cluster(target: Target) -> Iterator[tuple[str, str]]:
    labels = {"app.kubernetes.io/name": NAME}
    container = {
        "name": "redis",
        "image": os.environ.get(IMAGE, DEFAULT_IMAGE),
        # Else it answers its own pod only.
        "args": ["--protected-mode", "no", "--save", ""],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    metadata = {"name": NAME, "labels": labels}
    target.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    )
    ports = [{"port": PORT}]
    spec = {"selector": labels, "ports": ports}
    target.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    try:
        target.wait(f"pod/{NAME}")
        with _forwarded(target) as port:
            yield f"redis://127.0.0.1:{port}", f"redis://{NAME}.{target.namespace}:{PORT}"
    finally:
        target.kubectl("delete", f"pod/{NAME}", f"service/{NAME}", "--ignore-not-found", "--grace-period=1")


@contextmanager
def _forwarded(target: Target) -> Iterator[int]:
    """A free port of this computer that leads to the Pod."""
    command = [*target.command("port-forward", f"pod/{NAME}", f":{PORT}")]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:

        def port() -> int:
            log.seek(0)
            text = log.read().decode()
            assert process.poll() is None, text
            found = re.search(r"127\.0\.0\.1:(\d+)", text)
            return int(found[1]) if found else 0

        try:
            yield wait_for(port, "kubectl port-forward", READY_TIMEOUT_S)
        finally:
            process.terminate()
