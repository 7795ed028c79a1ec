"""What a materialization has to write: everything, what is new, or nothing. Pure.

What Redis has is described by what the last finished job left beside its rows: which range it was of, and every part of
the table with its version. New rows are those from the watermark (the former end) on. That is right only while nothing
has changed below it; where a part was replaced, withdrawn or added there, the group is written in full, with the
reason. A key that is no longer in the table stays in Redis either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glowplug.features.offline import Part


@dataclass(frozen=True)
class Range:
    """Which rows: start_ms <= timestamp < stop_ms, in Unix ms; `start_ms` None means from the beginning."""

    stop_ms: int
    start_ms: int | None = None


@dataclass(frozen=True)
class Watermark:
    """What the last finished job left: its range, and the version of each part that the table had."""

    rows: Range
    parts: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """Write the newest rows of `rows`, because of `reason`; none at all where `is_done`."""

    rows: Range
    reason: str
    is_full: bool = True
    is_done: bool = False


def plan(wanted: Range, parts: Mapping[str, Part], before: Watermark | None) -> Plan:
    """`parts` is the table as it is; `before` None if nothing was ever finished under this feature list."""
    if before is None:
        return Plan(wanted, "nothing was materialized yet")
    if wanted.start_ms != before.rows.start_ms:
        return Plan(wanted, "the range begins elsewhere than the last time")
    if wanted.stop_ms < before.rows.stop_ms:
        return Plan(wanted, "the range ends before what was materialized")
    for change in _changes_below(parts, before):
        return Plan(wanted, change)
    fresh = Range(wanted.stop_ms, before.rows.stop_ms)
    return Plan(fresh, "from the watermark on", is_full=False, is_done=_is_empty(fresh, parts))


def _changes_below(parts: Mapping[str, Part], before: Watermark) -> Iterator[str]:
    watermark_ms = before.rows.stop_ms
    for name in sorted(before.parts.keys() - parts.keys()):
        yield f"part {name} is gone"
    for name, part in sorted(parts.items()):
        if before.parts.get(name) == part.version:
            continue
        if name in before.parts:
            # What it held below the watermark, nobody knows any more.
            yield f"part {name} was replaced"
        elif part.min_ms is not None and part.min_ms < watermark_ms:
            yield f"part {name} is new and has rows from before the watermark"


def _is_empty(fresh: Range, parts: Mapping[str, Part]) -> bool:
    """Whether no part can have a row in it, by their first and last timestamps."""
    start_ms = fresh.start_ms
    assert start_ms is not None
    return not any(
        part.min_ms is not None
        and part.max_ms is not None
        and part.max_ms >= start_ms
        and part.min_ms < fresh.stop_ms
        for part in parts.values()
    )
