"""Offline → online: the newest row of every key into Redis, group by group, resumable.

DuckDB runs in a worker thread, so that the event loop stays free while a group is being sorted.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import anyio.to_thread
import duckdb
import redis.asyncio as redis

from glowplug.features import offline
from glowplug.features.offline import OfflineStore
from glowplug.features.online import OnlineConfig, connect
from glowplug.features.online_writer import WRITE_TIMEOUT_S, Job, RowBatch, rows_done, write
from glowplug.features.view import Group

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Range:
    """Which rows: start_ms <= timestamp < stop_ms, in Unix ms; `start_ms` None means from the beginning."""

    stop_ms: int
    start_ms: int | None = None


async def materialize(
    store: OfflineStore,
    config: OnlineConfig,
    ranges: Mapping[str, Range],
    progress: Progress = lambda group, done, total: None,
    batch_rows: int = 4000,
) -> dict[str, int]:
    """Write the newest row of each key in its group's range into Redis, for the groups in `ranges`; rows by group.

    A run that was killed continues where Redis has its last batch, as long as the Parquet files are the same. Calls
    `progress(group, rows done, rows in all)`. Raises `FeatureError`.
    """
    client = connect(replace(config, timeout_s=WRITE_TIMEOUT_S))
    connection = offline.connect()
    written = {}
    try:
        for group in (each for each in store.view.groups if each.name in ranges):
            rows = ranges[group.name]
            report = partial(progress, group.name)
            written[group.name] = await _materialize_group(
                client, connection, store, group, rows, report, batch_rows
            )
    finally:
        connection.close()
        await client.aclose()
    return written


async def _materialize_group(
    client: redis.Redis,
    connection: duckdb.DuckDBPyConnection,
    store: OfflineStore,
    group: Group,
    rows: Range,
    progress: Callable[[int, int], None],
    batch_rows: int,
) -> int:
    prepare = partial(store.prepare_latest, connection, group, start_ms=rows.start_ms, stop_ms=rows.stop_ms)
    count = await anyio.to_thread.run_sync(prepare)
    job = Job(_job_name(store, group, rows), count, rows.stop_ms)
    done = await rows_done(client, store.view, group, job)
    batches = store.latest(connection, group, skip=done, batch_rows=batch_rows)
    return await write(client, store.view, group, job, _in_thread(batches), progress)


async def _in_thread(batches: Iterator[RowBatch]) -> AsyncIterator[RowBatch]:
    while (batch := await anyio.to_thread.run_sync(next, batches, None)) is not None:
        yield batch


def _job_name(store: OfflineStore, group: Group, rows: Range) -> str:
    """The same name for the same files and range, so that a killed run is told from a new one."""
    parts = [group.schema_hash.hex(), str(rows.start_ms), str(rows.stop_ms)]
    for path in store.files(group):
        stat = path.stat()
        parts.append(f"{path.name}:{stat.st_size}:{stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
