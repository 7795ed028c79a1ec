"""The output of one run of a container: rotated files, and the last lines in memory.

Owns `<run>.log` (the newest), `<run>.log.1`, … up to `max_files`; what is older is gone. Writing never fails the
container: on a full disk lines are dropped, the last ones stay readable in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from glowplug.supervisor.log_lines import LineSplitter, encode, stamp

_TAIL_LINES = 80
_TAIL_BYTES = 4096


class ContainerLog:
    """Append with `write`, end with `close`; `watch` tells readers that there is more."""

    def __init__(self, folder: Path, run: int, *, max_bytes: int, max_files: int) -> None:
        self.path = folder / f"{run}.log"
        self.generation = 0
        self.is_closed = False
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._splitter = LineSplitter()
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._watchers: set[asyncio.Event] = set()
        self._file: IO[bytes] | None = None
        self._size = 0
        self._open()

    def write(self, data: bytes) -> None:
        """Keep a chunk of output."""
        self._keep(self._splitter.feed(data))

    def close(self) -> None:
        """The output has ended; readers that follow end too."""
        self._keep(self._splitter.flush())
        self.is_closed = True
        if self._file is not None:
            self._file.close()
            self._file = None
        self._wake()

    def tail(self, max_bytes: int = _TAIL_BYTES) -> str:
        """The last lines, at most `max_bytes` of them."""
        return b"\n".join(self._tail)[-max_bytes:].decode("utf-8", "replace").strip()

    @contextlib.contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever there is more to read, or nothing more to come."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    def _keep(self, lines: list[tuple[bytes, bool]]) -> None:
        if not lines:
            return
        now = stamp(time.time_ns())
        data = b"".join(encode(now, text, is_partial) for text, is_partial in lines)
        self._tail.extend(text[-_TAIL_BYTES:] for text, _ in lines)
        self._append(data)
        self._wake()

    def _append(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.write(data)
            self._size += len(data)

    def _open(self) -> None:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Unbuffered: a reader in this process sees at once what was written.
            self._file = open(self.path, "ab", buffering=0, opener=_private)  # noqa: SIM115
            self._size = self._file.tell()

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        with contextlib.suppress(OSError):
            for index in range(self._max_files - 1, 0, -1):
                older, newer = rotated(self.path, index), rotated(self.path, index - 1)
                if newer.exists():
                    newer.replace(older)
            if self._max_files == 1:
                self.path.unlink()
        self.generation += 1
        self._open()

    def _wake(self) -> None:
        for event in self._watchers:
            event.set()


def rotated(path: Path, index: int) -> Path:
    """`0.log` for 0, `0.log.1` for 1, …; higher is older."""
    return path if index == 0 else path.with_name(f"{path.name}.{index}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
