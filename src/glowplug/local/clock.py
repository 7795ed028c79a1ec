"""The machine's clock: the time of day at its start, and from there on a clock that nobody sets.

What the control plane waits for (a back-off, a deadline, the age of a pod) it reckons from times of day, since objects
hold those. A clock that is set while the machine runs must neither end nor delay such a wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def steady_clock() -> Callable[[], float]:
    """Seconds since the epoch, as the time of day has them now; later changes of the time of day don't show."""
    offset = time.time() - _elapsed()
    return lambda: offset + _elapsed()


def _elapsed() -> float:
    # Where there is one, a clock that goes on while the computer sleeps.
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
