"""The thread that owns the log: callers on the event loop leave work, and get its result back on the loop.

What waits while the disk is busy is written in one transaction: many waiting requests share one flush. Writes are done
in the order in which they came, reads after the writes that came with them, so that nothing is seen which may still be
rolled back.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from glowplug.broker.log import Log, is_full
from glowplug.errors import GlowplugError

_LOG = logging.getLogger(__name__)
_MOST_AT_ONCE = 512
T = TypeVar("T")
Work = Callable[[Log], Any]


@dataclass(slots=True)
class _Job:
    work: Work
    is_write: bool
    needs_room: bool
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class LogThread:
    """`open` it, leave work with `write` and `read`, `close` it: then everything left before is done."""

    def __init__(self, path: Path, reserve_bytes: int) -> None:
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Counted for the metrics: how many transactions were written, and how many jobs they held.
        self.commits = 0

    async def open(self) -> None:
        """Raises what `Log.open` raises."""
        self._loop = asyncio.get_running_loop()
        log = await self._loop.run_in_executor(None, Log.open, self._path)
        self._thread = threading.Thread(target=self._run, args=(log,), name="event log", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Does what is left and closes the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def write(self, work: Callable[[Log], T], *, needs_room: bool = False) -> asyncio.Future[T]:
        """The result of `work`, once it is on the disk. Its error is StoreFull where there is no room for it.

        `needs_room`: not to be done with the disk's last space.
        """
        return self._submit(work, True, needs_room)

    def read(self, work: Callable[[Log], T]) -> asyncio.Future[T]:
        """The result of `work`, which writes nothing."""
        return self._submit(work, False, False)

    def _submit(self, work: Work, is_write: bool, needs_room: bool) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(work, is_write, needs_room, future))
        return future

    def _run(self, log: Log) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._batch()
            _do(log, batch, self._reserve_bytes)
            self.commits += 1
            if batch and self._loop is not None:
                try:
                    self._loop.call_soon_threadsafe(_tell, batch)
                except RuntimeError:
                    # The loop is closed: nobody waits any more.
                    break
        log.database.close()

    def _batch(self) -> tuple[list[_Job], bool]:
        """What has come; waits for the first. False: nothing comes any more."""
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) >= _MOST_AT_ONCE:
                return batch, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False


def _tell(batch: Sequence[_Job]) -> None:
    for job in batch:
        if job.future.done():
            # Who waited was cancelled; what was written stays written.
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)


def _do(log: Log, batch: Sequence[_Job], reserve_bytes: int) -> None:
    writes = [job for job in batch if job.is_write]
    if any(job.needs_room for job in writes) and not log.has_room(reserve_bytes):
        error = log.full(f"less than {reserve_bytes / 2**20:g} MiB are left on the disk")
        for job in writes:
            job.error = error if job.needs_room else None
        writes = [job for job in writes if not job.needs_room]
    if writes:
        _write(log, writes)
    for job in batch:
        if not job.is_write:
            _read(log, job)


def _write(log: Log, jobs: Sequence[_Job]) -> None:
    """All in one transaction; where one of them errs, each in its own."""
    try:
        log.database.execute("BEGIN IMMEDIATE")
        for job in jobs:
            job.result = job.work(log)
        log.database.execute("COMMIT")
    except Exception as error:
        _roll_back(log)
        if isinstance(error, sqlite3.Error) and is_full(error):
            for job in jobs:
                job.error = log.full(error)
        elif len(jobs) == 1:
            _fail(jobs[0], error)
        else:
            for job in jobs:
                _write(log, [job])


def _read(log: Log, job: _Job) -> None:
    try:
        job.result = job.work(log)
    except Exception as error:
        _fail(job, error)


def _fail(job: _Job, error: Exception) -> None:
    job.error = error
    if not isinstance(error, GlowplugError):
        _LOG.error("the event log failed", exc_info=error)


def _roll_back(log: Log) -> None:
    try:
        if log.database.in_transaction:
            log.database.execute("ROLLBACK")
        log.load()
    except sqlite3.Error:
        _LOG.exception("the event log cannot be rolled back")
