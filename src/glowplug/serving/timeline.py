"""When a server's start reached which phase: told to whoever started it, and shown on /metrics.

`GLOWPLUG_TIMELINE` names a file or a named pipe that is there already; it gets a line a phase, `loaded 1735689600.25`
(seconds since the epoch). Without the variable, or where nobody reads, nothing is written and nothing fails.

On /metrics each phase is a gauge, not a histogram: a process starts once, so there is one value a process, and a
histogram that is born with its only observation has no increase that Prometheus could see. Over the pods of a model
it is aggregated there: `quantile(0.9, glowplug_start_phase_seconds{phase="loaded"})`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, MutableMapping

from glowplug.serving.metrics import Metrics, process_samples

VARIABLE = "GLOWPLUG_TIMELINE"
FAMILY = "glowplug_start_phase_seconds"
IMPORTED, LOADED, WARMED, LISTENING, FIRST_BYTE = "imported", "loaded", "warmed", "listening", "first_byte"
_HELP = "how long each phase of this process's start took, from the end of the one before it"


class Timeline:
    """The moments of one start, in the order in which they came; each counts the first time only."""

    def __init__(self, path: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file = _opened(path) if path else None
        self._moments: dict[str, float] = {}

    @classmethod
    def from_environment(cls, env: MutableMapping[str, str]) -> Timeline:
        """Takes the variable out of `env`: processes that this one starts are not its own start."""
        return cls(env.pop(VARIABLE, None))

    @property
    def moments(self) -> Mapping[str, float]:
        """Phase → seconds since the epoch."""
        return dict(self._moments)

    def mark(self, phase: str) -> None:
        """The phase is over, now."""
        if phase in self._moments:
            return
        moment = self._moments[phase] = self._clock()
        if self._file is not None:
            # One short write, which is whole or not at all; a reader that has gone is none of our business.
            with contextlib.suppress(OSError):
                os.write(self._file, f"{phase} {moment:.6f}\n".encode())

    def close(self) -> None:
        """Nothing more comes."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def durations(self) -> dict[str, float]:
        """Phase → seconds since the one before it; the first since the start of the process, where that is known."""
        started = process_samples().get("process_start_time_seconds")
        before = started[2] if started else None
        result: dict[str, float] = {}
        for phase, moment in self._moments.items():
            if before is not None:
                result[phase] = max(moment - before, 0.0)
            before = moment
        return result


class TimedMetrics(Metrics):
    """A server's metrics with the phases of its start; it also sees the first prediction that succeeds."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self._timeline = timeline

    def watch_first_answer(self) -> None:
        """From here to the first success every answer is looked at; after it, none is, and none pays for it."""
        vars(self)["count"] = self._count_first

    def _count_first(self, model: str, protocol: str, code: str) -> None:
        super().count(model, protocol, code)
        if model and code in _SUCCESSES:
            del vars(self)["count"]
            self._timeline.mark(FIRST_BYTE)
            self._timeline.close()

    def render(self) -> bytes:
        """The page at /metrics."""
        durations = self._timeline.durations()
        if not durations:
            return super().render()
        lines = [f"# HELP {FAMILY} {_HELP}", f"# TYPE {FAMILY} gauge"]
        lines += [f'{FAMILY}{{phase="{phase}"}} {value:.6f}' for phase, value in durations.items()]
        return super().render() + ("\n".join(lines) + "\n").encode()


# What the protocols count a good answer as.
_SUCCESSES = ("200", "OK")


def _opened(path: str) -> int | None:
    try:
        # Never made here: the path means something to whoever gave it, and a pipe without a reader is refused.
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
