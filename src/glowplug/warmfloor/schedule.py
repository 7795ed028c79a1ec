"""Floors by the clock: `0 8 * * 1-5=3; 0 20 * * *=1` is 3 replicas from 8 on workdays, 1 from 20 every day.

Pure. Cron expressions are cronsim's, which follows Debian's cron through changes of daylight saving time, has no
dependencies and, unlike a regular next-match library, also goes backwards: what holds now is the entry that matched
last. Six fields begin with seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo

from cronsim import CronSim, CronSimError

_MAX_ENTRIES = 50
# Any Monday will do: whether an expression is right does not depend on when it is asked.
_SOME_DAY = datetime(2024, 1, 1)


@dataclass(frozen=True)
class Entry:
    """From each match of `cron` on the floor is `replicas`."""

    cron: str
    replicas: int


@dataclass(frozen=True)
class Schedule:
    """Entries in the order they are written; of those that match at once the last one holds."""

    entries: tuple[Entry, ...] = ()
    zone: tzinfo | None = None

    @classmethod
    def parse(cls, text: str, zone: tzinfo, most: int) -> Schedule:
        """Reads `CRON=REPLICAS` separated by `;`. Raises ValueError, in words that follow "FOUND, ..."."""
        entries = [_entry(part.strip(), zone, most) for part in text.split(";") if part.strip()]
        if not 0 < len(entries) <= _MAX_ENTRIES:
            raise ValueError(f"must be 1 to {_MAX_ENTRIES} entries CRON=REPLICAS separated by ;")
        return cls(tuple(entries), zone)

    def at(self, moment_s: float) -> Entry | None:
        """The entry that matched last at `moment_s`, seconds since the epoch; None if none ever did."""
        found: tuple[datetime, Entry] | None = None
        # A second later: the iterator's first match lies before its start, and the present second counts.
        start = datetime.fromtimestamp(int(moment_s) + 1, self.zone)
        for entry in self.entries:
            last = next(CronSim(entry.cron, start, reverse=True), None)
            if last is not None and (found is None or last >= found[0]):
                found = last, entry
        return None if found is None else found[1]

    def between(self, start_s: float, end_s: float) -> Entry | None:
        """The entry with the most replicas that holds at either end; what is shorter than that is left out."""
        held = [entry for entry in (self.at(start_s), self.at(end_s)) if entry is not None]
        return max(held, key=lambda entry: entry.replicas, default=None)


def _entry(text: str, zone: tzinfo, most: int) -> Entry:
    cron, equals, replicas = (part.strip() for part in text.rpartition("="))
    if not equals or not replicas.isascii() or not replicas.isdigit() or not int(replicas) <= most:
        raise ValueError(f'must be CRON=REPLICAS with 0 to {most} replicas, "{text}" is not')
    try:
        next(CronSim(cron, _SOME_DAY.replace(tzinfo=zone), reverse=True))
    except CronSimError as error:
        raise ValueError(f'"{cron}" is no cron expression of 5 or 6 fields: {error}') from error
    except StopIteration:
        raise ValueError(f'"{cron}" never matches') from None
    return Entry(cron, int(replicas))
