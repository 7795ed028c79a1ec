"""How a starting server tells us where it is: a named pipe, one line a phase.

Whoever runs in the container writes there, so nothing that comes is trusted: unknown words, times of another age and
anything past a few hundred bytes are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path

VARIABLE = "GLOWPLUG_TIMELINE"
LISTENING = "listening"
_KNOWN = frozenset({"imported", "loaded", "warmed", LISTENING, "first_byte"})
_LONGEST = 2048


class StartPipe:
    """`path` is there from the beginning; `on_phase` gets (phase, seconds since the epoch) until `close`."""

    def __init__(self, path: Path, on_phase: Callable[[str, float], None]) -> None:
        """Raises OSError where there can be no pipe."""
        self.path = path
        self._on_phase = on_phase
        self._rest = b""
        self._taken = 0
        self._loop = asyncio.get_running_loop()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        # Opened for writing too, or it would end whenever the other side closes it.
        self._file: int | None = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.add_reader(self._file, self._read)

    def close(self) -> None:
        """Nothing more is of interest."""
        if self._file is not None:
            self._read()
        self._shut()

    def _shut(self) -> None:
        if self._file is not None:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = None
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _read(self) -> None:
        assert self._file is not None
        try:
            data = os.read(self._file, _LONGEST)
        except OSError:
            return
        self._taken += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            phase, moment = parse(line)
            if phase:
                self._on_phase(phase, moment)
        if self._taken > _LONGEST:
            self._shut()


def parse(line: bytes) -> tuple[str, float]:
    """`loaded 1735689600.25` → phase and moment; "" for what is neither."""
    name, _, number = line.decode("ascii", "replace").partition(" ")
    try:
        moment = float(number)
    except ValueError:
        return "", 0.0
    return (name, moment) if name in _KNOWN and math.isfinite(moment) and moment > 0 else ("", 0.0)
