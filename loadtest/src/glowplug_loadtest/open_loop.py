"""Sends each request when it is due, whatever became of those before it. Runs under gevent.

Every request has a greenlet of its own, up to a bound. At the bound the next ones wait in order of their due times;
their latency counts from there, and those which the end overtakes are recorded as not sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import gevent
from gevent.event import Event
from gevent.pool import Pool

from glowplug_loadtest.records import INTERRUPTED, UNSENT, Record

Send = Callable[[int], str]
"""Sends the request of that number and waits for its answer, no longer than its own time-out; the error, "" if none."""


class OpenLoop:
    """One sender; `run` it once."""

    def __init__(
        self, send: Send, max_in_flight: int, timeout_s: float, told: Callable[[Record], None]
    ) -> None:
        self._send = send
        self._pool = Pool(max_in_flight)
        self._timeout_s = timeout_s
        self._told = told
        self._stopped = Event()
        self._start_at = 0.0

    def stop(self) -> None:
        """No more is sent, and no answer waited for."""
        self._stopped.set()

    def run(self, arrivals: Iterable[tuple[int, float]], start_at: float, duration_s: float) -> None:
        """`arrivals` are (number, due seconds), in order; `start_at` is on the monotonic clock. Returns when all are
        answered, failed or given up: at most two time-outs after `duration_s`."""
        self._start_at = start_at
        deadline = start_at + duration_s + self._timeout_s
        for number, due_s in arrivals:
            if self._wait_until(start_at + due_s):
                break
            free = not self._pool.full() or self._pool.wait_available(max(deadline - time.monotonic(), 0))
            if free and time.monotonic() < deadline:
                self._pool.spawn(self._one, number, due_s)
            else:
                self._told(Record(due_s, None, time.monotonic() - start_at, UNSENT))
        self._finish(time.monotonic() + self._timeout_s + 1)

    def _finish(self, deadline: float) -> None:
        while len(self._pool) and not self._stopped.is_set() and time.monotonic() < deadline:
            self._pool.join(timeout=0.1)
        self._pool.kill()

    def _wait_until(self, moment: float) -> bool:
        """True if stopped. Lets the others run in any case: who is late must not keep what he spawned from sending."""
        if (left := moment - time.monotonic()) <= 0:
            gevent.sleep(0)
        while left > 0 and not self._stopped.is_set():
            # libev's timers count from when its loop last looked at the clock, so they may be early.
            self._stopped.wait(left)
            left = moment - time.monotonic()
        return bool(self._stopped.is_set())

    def _one(self, number: int, due_s: float) -> None:
        sent_s = time.monotonic() - self._start_at
        error = INTERRUPTED
        try:
            error = self._send(number)
        finally:
            self._told(Record(due_s, sent_s, time.monotonic() - self._start_at, error))
