"""The payload logger's configuration: every default of it is here."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.spec import logger


@dataclass(frozen=True)
class PayloadsConfig:
    """Bounds of what is copied, kept and sent; sizes are bytes, times seconds."""

    # Of one body, a request's or an answer's. What is larger is not told of.
    max_body_bytes: int = logger.MAX_BODY_BYTES
    # Of all copies that are being received.
    max_held_bytes: int = 64 * 1024 * 1024
    # Of the events that wait: bytes of all sinks together, and the number for each sink.
    max_waiting_bytes: int = 64 * 1024 * 1024
    max_waiting: int = 4096

    # At a time, to one sink.
    concurrency: int = 4
    # To a sink that takes batches: so many events or bytes at once, and how long the first of them waits for others.
    max_batch: int = 100
    max_batch_bytes: int = 512 * 1024
    linger_s: float = 0.05
    # From sending to the end of the answer; then, where it may go better, again after a wait that doubles.
    timeout_s: float = 5.0
    attempts: int = 3
    backoff_s: float = 0.2
    max_answer_bytes: int = 64 * 1024
    # On the way out, what waits still is sent for so long.
    drain_s: float = 1.0

    notice_interval_s: float = 60.0
    # Components whose counters are kept; the oldest go.
    kept_components: int = 1000
    report_interval_s: float = 0.5
    # Longer than `drain_s`.
    stop_timeout_s: float = 3.0
    # Whoever answers the callers goes first.
    niceness: int = 10
