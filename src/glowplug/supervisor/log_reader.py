"""Reading a container's log back, as `kubectl logs` asks for it.

Reads files in chunks, so that neither a long log nor many readers fill the memory, and goes on to what is written
while it reads when told to follow.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio
import anyio.lowlevel
import anyio.to_thread

from glowplug.supervisor.log_file import ContainerLog, rotated
from glowplug.supervisor.log_lines import Line, decode, render

_CHUNK = 64 * 1024
# Lines between two looks at the rest of the machine.
_BREATH = 500


@dataclass(frozen=True)
class LogQuery:
    """`since` is a stamp (see log_lines) before which lines are left out; `tail_lines` None is all of them."""

    is_followed: bool = False
    tail_lines: int | None = None
    since: str | None = None
    has_timestamps: bool = False


async def read_log(path: Path, live: ContainerLog | None, query: LogQuery) -> AsyncIterator[bytes]:
    """Chunks of text. `live` is the log that is still written to, None for one of the past."""
    shown = _Shown(query)
    position = 0
    with contextlib.ExitStack() as stack:
        # Opened at once: a rotation while we read renames the files, and does not change what we have open.
        files = [stack.enter_context(file.open("rb")) for file in _files(path)]
        generation = live.generation if live else 0
        sizes = [os.fstat(file.fileno()).st_size for file in files]
        skip = await anyio.to_thread.run_sync(_lines_to_skip, files, sizes, query)
        for file in reversed(files):
            for count, (raw, position) in enumerate(_raw_lines(file, 0)):  # noqa: B007
                line = _wanted(raw, query)
                if line is not None and skip > 0:
                    skip -= not line.is_partial
                elif line is not None and shown.add(line):
                    yield shown.take()
                if count % _BREATH == 0:
                    await anyio.lowlevel.checkpoint()
    if shown.has_any():
        yield shown.take()
    if live is not None and query.is_followed:
        async for chunk in _follow(live, shown, generation, position if files else 0):
            yield chunk


async def _follow(live: ContainerLog, shown: _Shown, generation: int, position: int) -> AsyncIterator[bytes]:
    """From `position` in the file that was the newest at `generation`, until the log is closed."""
    with live.watch() as more:
        while True:
            more.clear()
            is_last = live.is_closed
            behind = -1
            while behind != 0:
                if behind > 0:
                    generation, position = generation + 1, 0
                behind = live.generation - generation
                for line, position in _new_lines(rotated(live.path, behind), position):  # noqa: B007, B020
                    if shown.add(line):
                        yield shown.take()
            if shown.has_any():
                yield shown.take()
            if is_last:
                return
            await more.wait()


def _new_lines(path: Path, position: int) -> Iterator[tuple[Line, int]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for raw, after in _raw_lines(file, position):
            line = decode(raw)
            if line is not None:
                yield line, after


class _Shown:
    """Gathers rendered lines into chunks."""

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._parts: list[bytes] = []
        self._size = 0
        self._is_continued = False

    def add(self, line: Line) -> bool:
        """True when there is a chunk's worth to take."""
        text = render(line, self._query.has_timestamps, self._is_continued)
        self._is_continued = line.is_partial
        self._parts.append(text)
        self._size += len(text)
        return self._size >= _CHUNK

    def has_any(self) -> bool:
        return bool(self._parts)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return data


def _files(path: Path) -> list[Path]:
    """The files of a log that exist, newest first."""
    found: list[Path] = []
    while rotated(path, len(found)).exists():
        found.append(rotated(path, len(found)))
    return found


def _raw_lines(file: IO[bytes], position: int) -> Iterator[tuple[bytes, int]]:
    """Complete lines from `position` on, each with the position after it."""
    file.seek(position)
    for raw in file:
        if not raw.endswith(b"\n"):
            return
        position += len(raw)
        yield raw[:-1], position


def _wanted(raw: bytes, query: LogQuery) -> Line | None:
    line = decode(raw)
    return None if line is None or (query.since is not None and line.time < query.since) else line


def _lines_to_skip(files: Sequence[IO[bytes]], sizes: Sequence[int], query: LogQuery) -> int:
    """How many lines come before the last `tail_lines`, of those that were there when we were asked."""
    if query.tail_lines is None:
        return 0
    lines = (
        _wanted(raw, query)
        for file, size in zip(files, sizes, strict=True)
        for raw, after in _raw_lines(file, 0)
        if after <= size
    )
    total = sum(1 for line in lines if line is not None and not line.is_partial)
    return max(0, total - query.tail_lines)
