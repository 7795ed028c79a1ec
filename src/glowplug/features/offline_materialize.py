"""Offline → online: the newest row of every key into Redis, group by group, resumable; in full, or what is new.

The store is read in a worker thread, so that the event loop stays free while a group is being sorted. The watermark is
beside the rows in Redis, and written after them: it cannot get ahead of them, whatever dies, Redis included.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
import redis.asyncio as redis

from glowplug.errors import FeatureError
from glowplug.features.offline import BATCH_ROWS, Latest, OfflineStore, Part, layout
from glowplug.features.online import OnlineConfig, connect
from glowplug.features.online_writer import (
    WRITE_TIMEOUT_S,
    Job,
    RowBatch,
    finish,
    read_watermark,
    rows_done,
    write,
)
from glowplug.features.view import Group
from glowplug.features.watermark import Plan, Range, Watermark, plan

__all__ = ["Plan", "Range", "materialize"]

Progress = Callable[[str, int, int], None]
T = TypeVar("T")
# A table that is written again each time it is being read: somebody else's loop.
_MAX_STARTS = 5


async def materialize(
    store: OfflineStore,
    config: OnlineConfig,
    ranges: Mapping[str, Range],
    progress: Progress = lambda group, done, total: None,
    batch_rows: int = BATCH_ROWS,
    *,
    incremental: bool = False,
    planned: Callable[[str, Plan], None] = lambda group, plan: None,
) -> dict[str, int]:
    """Write the newest row of each key in its group's range into Redis, for the groups in `ranges`; rows by group.

    `incremental` writes only what is new since the last finished job, where that gives the same rows in Redis (see
    `watermark`); `planned(group, plan)` is told which. A run that was killed continues where Redis has its last batch,
    as long as the table is the same. Calls `progress(group, rows done, rows in all)`. Raises `FeatureError`, and
    `StorageError` when the offline store does not answer.
    """
    client = connect(replace(config, timeout_s=WRITE_TIMEOUT_S))
    written = {}
    try:
        for group in (each for each in store.view.groups if each.name in ranges):
            before = await read_watermark(client, store.view, group) if incremental else None
            written[group.name] = await _materialize_group(
                client,
                store,
                group,
                (ranges[group.name], before),
                partial(progress, group.name),
                partial(planned, group.name),
                batch_rows,
            )
    finally:
        await client.aclose()
    return written


async def _materialize_group(
    client: redis.Redis,
    store: OfflineStore,
    group: Group,
    wanted: tuple[Range, Watermark | None],
    progress: Callable[[int, int], None],
    planned: Callable[[Plan], None],
    batch_rows: int,
) -> int:
    for _ in range(_MAX_STARTS):
        parts = await anyio.to_thread.run_sync(store.parts, group)
        todo = plan(wanted[0], parts, wanted[1])
        mark = Watermark(wanted[0], {name: part.version for name, part in parts.items()})
        if todo.is_done:
            planned(todo)
            await finish(client, store.view, group, _job(store, group, todo, parts, 0, mark))
            return 0
        async with _in_thread(store.latest(group, todo.rows.start_ms, todo.rows.stop_ms)) as latest:
            # The rows are held still from here on; these must be the parts that they are from.
            if await anyio.to_thread.run_sync(store.parts, group) != parts:
                continue
            planned(todo)
            job = _job(store, group, todo, parts, latest.rows, mark)
            done = await rows_done(client, store.view, group, job)
            batches = _batches(latest.batches(done, batch_rows))
            return await write(client, store.view, group, job, batches, progress)
    raise FeatureError(
        f"table {group.source} of group {group.name} was written again each of {_MAX_STARTS} times that it was read",
        hint="materialize when nothing is writing it",
    )


@asynccontextmanager
async def _in_thread(manager: AbstractContextManager[Latest]) -> AsyncIterator[Latest]:
    entered = await anyio.to_thread.run_sync(manager.__enter__)
    try:
        yield entered
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            # The store turns its driver's errors into ours; another error goes through as it is.
            await anyio.to_thread.run_sync(manager.__exit__, type(error), error, error.__traceback__)
        raise
    else:
        await anyio.to_thread.run_sync(manager.__exit__, None, None, None)


async def _batches(batches: Iterator[RowBatch]) -> AsyncIterator[RowBatch]:
    while (batch := await anyio.to_thread.run_sync(next, batches, None)) is not None:
        yield batch


def _job(
    store: OfflineStore, group: Group, todo: Plan, parts: Mapping[str, Part], rows: int, mark: Watermark
) -> Job:
    """Of the same name for the same table and range, so that a killed run is told from a new one."""
    lines = [*layout(store.view, group), str(todo.rows.start_ms), str(todo.rows.stop_ms)]
    lines += [f"{part.name}:{part.version}" for _, part in sorted(parts.items())]
    name = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return Job(name, rows, todo.rows.stop_ms, mark=mark, is_full=todo.is_full)
