"""How far a group is: what is committed is safe, and what a successor reads of it is what was so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from glowplug.kafka.progress import MAX_METADATA, Progress


def test_the_offset_stays_at_the_first_that_is_not_over() -> None:
    progress = Progress(10)
    for offset in (10, 11, 12):
        progress.take(offset)
    progress.settle(11)
    assert progress.position == 10
    progress.settle(10)
    assert progress.position == 12
    progress.settle(12)
    assert (progress.position, progress.metadata()) == (13, "")


def test_a_successor_skips_what_is_over_and_counts_on() -> None:
    progress = Progress(10)
    for offset in (10, 11, 12, 13):
        progress.take(offset)
    progress.note(10, 4)
    for offset in (11, 13):
        progress.settle(offset)
    successor = Progress(progress.position, progress.metadata())
    assert [successor.is_over(offset) for offset in (10, 11, 12, 13, 14)] == [False, True, False, True, False]
    assert [successor.take(10), successor.take(12)] == [4, 0]


def test_what_is_not_ours_reads_as_nothing() -> None:
    for metadata in ("", "mine", "{}", "[1,2]", "[-1]", '["a"]', "[1,2,true]", "null", "[3,0,1.5]"):
        successor = Progress(10, metadata)
        assert not successor.is_over(10) and successor.take(10) == 0


def test_metadata_fits_whatever_is_open() -> None:
    progress = Progress(0)
    for offset in range(0, 40_000, 2):
        progress.take(offset)
        progress.note(offset, 3)
    assert len(progress.metadata()) <= MAX_METADATA
    successor = Progress(progress.position, progress.metadata())
    # What is left out comes again, and nothing is skipped that was not over.
    assert not any(successor.is_over(offset) for offset in range(0, 40_000, 2))
    assert successor.take(0) == 3


steps = st.lists(
    st.tuples(st.sampled_from(["take", "settle", "note", "crash", "gap"]), st.integers(0, 30)), max_size=60
)


@given(steps)
def test_nothing_is_skipped_that_was_not_over(actions: list[tuple[str, int]]) -> None:
    """Against a plain list of what is over; a crash at any moment goes on from what would have been committed."""
    progress = Progress(100)
    following = 100
    is_over: set[int] = set()
    tried: dict[int, int] = {}
    open_now: list[int] = []
    for action, number in actions:
        if action == "gap":
            is_over.add(following)
            progress.pass_over(following)
            following += 1
        elif action == "take":
            if progress.is_over(following):
                assert following in is_over
                progress.pass_over(following)
            else:
                assert progress.take(following) == tried.get(following, 0)
                open_now.append(following)
            following += 1
        elif action == "crash":
            progress = Progress(progress.position, progress.metadata())
            following, open_now = progress.position, []
            assert all(offset in is_over for offset in range(100, following))
        elif open_now:
            offset = open_now[number % len(open_now)]
            if action == "settle":
                progress.settle(offset)
                is_over.add(offset)
                open_now.remove(offset)
            else:
                tried[offset] = tried.get(offset, 0) + 1
                progress.note(offset, tried[offset])
        assert all(offset in is_over for offset in range(100, progress.position))
