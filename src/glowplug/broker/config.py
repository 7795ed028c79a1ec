"""What the broker can be told, with every default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BrokerConfig:
    """`directory` holds the log. `port` 0 takes a free one.

    A request's body may have `max_body_bytes`; all bodies that are being read or written, `max_held_bytes`, and no
    more than `max_waiting` requests wait to be written: beyond that a sender is told to come again. A trigger delivers
    `concurrency` events at a time (an ordered one: one), together no larger than `window_bytes`; one that is slow while
    `window_events` after it are settled is written down by itself. A page that is read has `page_events` and at most
    `window_bytes`. A subscriber has `timeout_s` to answer where its Trigger says nothing. What is settled is written
    `mark_delay_s` later, with whatever else is by then.
    What all triggers have is kept as history: the last `history_events` of a Broker, as long as the log is smaller
    than `history_bytes`. Of dead letters without a sink, `dead_letters_kept` of a Broker are kept. Events are refused
    while the disk has less than `reserve_bytes` free, which are for writing down what was delivered. A broker that
    stops waits `drain_s` for deliveries under way. With a full disk, writing is tried again every `full_retry_s`.
    """

    directory: Path
    host: str = "127.0.0.1"
    port: int = 8082
    max_body_bytes: int = 16 * 2**20
    max_held_bytes: int = 64 * 2**20
    max_waiting: int = 10_000
    concurrency: int = 32
    window_events: int = 64
    page_events: int = 256
    mark_delay_s: float = 0.02
    window_bytes: int = 4 * 2**20
    timeout_s: float = 600.0
    hop_limit: int = 255
    history_events: int = 10_000
    history_bytes: int = 256 * 2**20
    dead_letters_kept: int = 10_000
    reserve_bytes: int = 32 * 2**20
    drain_s: float = 5.0
    full_retry_s: float = 1.0
    keep_alive_s: float = 75.0
