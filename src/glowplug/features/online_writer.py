"""The online store's write side: bulk, resumable, with progress.

Rows go in batches, each one MSET and a checkpoint in a transaction, so that after a kill the next run of the same job
continues behind the last batch that Redis has. A job is named by whoever makes it (source, range, schema); another
name starts from the first row. Rows must come in the same order each time.

The watermark, up to where and of which parts everything is in Redis, is written after a job's last row. A job in full
takes it away with its first rows, since until it is over Redis has rows of both.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import anyio
import redis.asyncio as redis
from redis.exceptions import RedisError

from glowplug.errors import FeatureError
from glowplug.features.keys import row_keys, state_key
from glowplug.features.packing import Float32s, Int64s, pack
from glowplug.features.view import FeatureView, Group
from glowplug.features.watermark import Range, Watermark

WRITE_TIMEOUT_S = 30.0

T = TypeVar("T")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RowBatch:
    """n rows on their way into Redis: one column of n texts for each join key, int64 [n], float32 [n, features]."""

    keys: Sequence[Sequence[str]]
    event_ms: Int64s
    values: Float32s


@dataclass(frozen=True)
class Job:
    """One materialization of one group: `rows` rows known up to `until_ms`, under a name that says what they are.

    `mark` is what Redis has once it is finished; `is_full` where it does not build on what was there before.
    """

    name: str
    rows: int
    until_ms: int
    mark: Watermark | None = None
    is_full: bool = True


async def rows_done(client: redis.Redis, view: FeatureView, group: Group, job: Job) -> int:
    """How many rows of this very job Redis has already."""
    name, done = await _bounded(client.hmget(state_key(view, group), ["job", "rows"]))
    return int(done) if name is not None and name.decode() == job.name and done else 0


async def read_watermark(client: redis.Redis, view: FeatureView, group: Group) -> Watermark | None:
    """What the last finished job left; None where none did, or one in full was cut off since."""
    stop, mark = await _bounded(client.hmget(state_key(view, group), ["until_ms", "watermark"]))
    if stop is None or mark is None:
        return None
    fields = json.loads(mark)
    return Watermark(Range(int(stop), fields["start_ms"]), fields["parts"])


async def write(
    client: redis.Redis,
    view: FeatureView,
    group: Group,
    job: Job,
    batches: AsyncIterable[RowBatch],
    progress: Progress = lambda done, total: None,
) -> int:
    """Write the batches of `job` that are not written yet; returns the number of rows in Redis of this job.

    `batches` must start behind `rows_done`. `progress(done, total)` is called after each batch. Raises
    `FeatureError` when Redis fails, or when there are fewer or more rows than the job says.
    """
    done = await rows_done(client, view, group, job)
    progress(done, job.rows)
    async for batch in batches:
        keys = row_keys(view, group, batch.keys)
        packed = pack(group, batch.event_ms, batch.values)
        done += len(keys)
        await _bounded(_write_batch(client, view, group, job, dict(zip(keys, packed, strict=True)), done))
        progress(done, job.rows)
    if done != job.rows:
        raise FeatureError(f"group {group.name} has {done} rows, the job {job.name} says {job.rows}")
    await finish(client, view, group, job)
    return done


async def finish(client: redis.Redis, view: FeatureView, group: Group, job: Job) -> None:
    """All rows of `job` are in Redis: say so."""
    finished: dict[str, str | int] = {"job": job.name, "rows": job.rows, "until_ms": job.until_ms}
    if job.mark is not None:
        finished["watermark"] = json.dumps(
            {"start_ms": job.mark.rows.start_ms, "parts": dict(job.mark.parts)}, sort_keys=True
        )
    await _bounded(client.hset(state_key(view, group), mapping=finished))


async def _write_batch(
    client: redis.Redis, view: FeatureView, group: Group, job: Job, rows: dict[bytes, bytes], done: int
) -> None:
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("MSET", *chain.from_iterable(rows.items()))
        pipeline.hset(state_key(view, group), mapping={"job": job.name, "rows": done})
        if job.is_full:
            pipeline.hdel(state_key(view, group), "watermark")
        await pipeline.execute()


async def _bounded(reply: Awaitable[T]) -> T:
    try:
        with anyio.fail_after(WRITE_TIMEOUT_S):
            return await reply
    except TimeoutError as error:
        raise FeatureError(f"the feature store did not take a batch in {WRITE_TIMEOUT_S:g} s") from error
    except (RedisError, OSError) as error:
        raise FeatureError(f"the feature store cannot be written: {error}") from error
