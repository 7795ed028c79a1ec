"""What an incremental materialization may leave out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.features.offline import Part
from glowplug.features.watermark import Plan, Range, Watermark, plan

JANUARY = Part("january", "v1", 31, 0, 99)
FEBRUARY = Part("february", "v1", 28, 100, 199)
BEFORE = Watermark(Range(100), {"january": "v1"})


def parts(*each: Part) -> dict[str, Part]:
    return {part.name: part for part in each}


def test_new_rows_are_those_from_the_watermark_on() -> None:
    assert plan(Range(200), parts(JANUARY, FEBRUARY), BEFORE) == Plan(
        Range(200, 100), "from the watermark on", is_full=False
    )


def test_rows_that_were_not_yet_due_are_new_when_they_are() -> None:
    before = Watermark(Range(100), {"january": "v1", "february": "v1"})
    found = plan(Range(150), parts(JANUARY, FEBRUARY), before)
    assert (found.rows, found.is_full, found.is_done) == (Range(150, 100), False, False)


@pytest.mark.parametrize("more", [[], [Part("empty", "v1", 0)], [Part("march", "v1", 3, 200, 300)]])
def test_nothing_new_is_nothing_to_do(more: list[Part]) -> None:
    found = plan(Range(200), parts(JANUARY, *more), BEFORE)
    assert (found.rows, found.is_done) == (Range(200, 100), True)


@pytest.mark.parametrize(
    ("wanted", "found", "before", "reason"),
    [
        (Range(200), parts(JANUARY), None, "nothing was materialized yet"),
        (Range(200, 50), parts(JANUARY), BEFORE, "the range begins elsewhere"),
        (Range(99), parts(JANUARY), BEFORE, "the range ends before"),
        (Range(200), parts(FEBRUARY), BEFORE, "part january is gone"),
        (Range(200), parts(Part("january", "v2", 30, 0, 99), FEBRUARY), BEFORE, "part january was replaced"),
        # All its rows are new now, but not all that it had are known to have been.
        (Range(200), parts(Part("january", "v2", 30, 100, 199)), BEFORE, "part january was replaced"),
        (
            Range(200),
            parts(JANUARY, Part("late", "v1", 1, 99, 150)),
            BEFORE,
            "part late is new and has rows from",
        ),
    ],
)
def test_a_change_below_the_watermark_is_a_job_in_full(
    wanted: Range, found: dict[str, Part], before: Watermark | None, reason: str
) -> None:
    made = plan(wanted, found, before)
    assert (made.rows, made.is_full, made.is_done) == (wanted, True, False)
    assert made.reason.startswith(reason)


ROWS = st.dictionaries(st.tuples(st.integers(0, 2), st.integers(0, 9)), st.integers(), max_size=6)


@given(st.lists(st.tuples(st.sampled_from("abc"), ROWS, st.integers(0, 10)), min_size=1, max_size=6))
def test_any_sequence_of_parts_leaves_what_a_job_in_full_would(
    steps: list[tuple[str, dict[tuple[int, int], int], int]],
) -> None:
    """Parts come, and are replaced; after each step, online is as if everything had been written anew."""
    table: dict[str, dict[tuple[int, int], int]] = {}
    online: dict[int, tuple[int, int]] = {}
    mark: Watermark | None = None
    for name, rows, stop in steps:
        taken = {row for part, each in table.items() if part != name for row in each}
        # As the store sees to it: no row is in two parts. Keys are never withdrawn: that no job follows.
        kept = {row: value for row, value in rows.items() if row not in taken}
        lost = {key for key, _ in table.get(name, {})} - {key for key, _ in kept}
        table[name] = kept
        described = {part: _part(part, each) for part, each in table.items()}
        todo = plan(Range(stop), described, mark)
        if todo.is_full:
            online = {key: row for key, row in online.items() if key in lost or row[0] >= stop}
        online |= _newest(table, todo.rows) if not todo.is_done else {}
        mark = Watermark(Range(stop), {part: each.version for part, each in described.items()})
        expected = _newest(table, Range(stop))
        assert {key: online.get(key) for key in expected} == expected


def _part(name: str, rows: dict[tuple[int, int], int]) -> Part:
    moments = [at for _, at in rows]
    return Part(
        name, repr(sorted(rows.items())), len(rows), min(moments, default=None), max(moments, default=None)
    )


def _newest(table: dict[str, dict[tuple[int, int], int]], rows: Range) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for part in table.values():
        for (key, at), value in part.items():
            if (rows.start_ms is None or at >= rows.start_ms) and at < rows.stop_ms:
                found[key] = max(found.get(key, (at, value)), (at, value))
    return found
