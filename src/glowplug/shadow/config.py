"""The shadow's configuration: every default of it is here."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.spec import shadowing


@dataclass(frozen=True)
class ShadowConfig:
    """Bounds of what is copied, sent and kept; sizes are bytes, times seconds."""

    # Of one body, a request's or an answer's. What is larger is not compared.
    max_body_bytes: int = shadowing.MAX_BODY_BYTES
    # Of all copies that are being received, or wait. What comes beyond it is dropped.
    max_held_bytes: int = 64 * 1024 * 1024
    # By revision that is tried: requests at a time, one and another for so many that wait; and those that may wait.
    concurrency: int = 8
    waiting_per_worker: int = 8
    max_waiting: int = 64
    # From sending a request to the end of its answer. A revision without pods has to start within it.
    timeout_s: float = 60.0

    # As in numpy.allclose, but for 32-bit floats that were summed in another order.
    relative_tolerance: float = 1e-4
    absolute_tolerance: float = 1e-6

    # Differences that are kept to be looked at, of all services together.
    kept_differences: int = 50
    # Revisions and their shadows whose counters are kept; the oldest go.
    kept_pairs: int = 100
    # A notice is given when of the last so many comparisons at least this share differed.
    notice_window: int = 100
    notice_min_compared: int = 20
    notice_share: float = 0.05
    notice_interval_s: float = 600.0

    report_interval_s: float = 0.5
    restart_backoff_s: float = 1.0
    max_restart_backoff_s: float = 30.0
    stop_timeout_s: float = 2.0
    # Whoever answers the callers goes first.
    niceness: int = 19
