"""The newest events of a Broker in memory, so that triggers that keep up need not read them from the log. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from glowplug.broker.records import Record


class Recent:
    """Events after `floor` up to `last`, without gaps; bounded in number and bytes."""

    def __init__(self, last: int, max_events: int, max_bytes: int) -> None:
        self.last = last
        self._floor = last
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._records: list[Record] = []
        self._bytes = 0

    def add(self, records: Sequence[Record]) -> None:
        """The next events."""
        self._records += records
        self.last = records[-1].seq
        self._bytes += sum(record.size for record in records)
        # Dropped in halves, so that each event is moved once or twice in all.
        while self._records and (len(self._records) > self._max_events or self._bytes > self._max_bytes):
            half = max(1, len(self._records) // 2)
            dropped = self._records[:half]
            del self._records[:half]
            self._bytes -= sum(record.size for record in dropped)
            self._floor = dropped[-1].seq

    def after(self, seq: int, limit: int) -> Sequence[Record] | None:
        """At most `limit` events after number `seq`; None where they are no longer here."""
        if seq < self._floor:
            return None
        start = bisect.bisect_right(self._records, seq, key=lambda record: record.seq)
        return self._records[start : start + limit]
