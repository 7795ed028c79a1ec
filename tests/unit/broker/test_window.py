"""Up to where everything is settled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from glowplug.broker.window import Window


@given(st.integers(0, 5), st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60))
def test_the_position_is_behind_what_is_under_way(start: int, steps: list[tuple[bool, int]]) -> None:
    window = Window(start, 1000)
    under_way: list[int] = []
    head = start
    for is_taken, which in steps:
        if is_taken:
            head += 1
            if which == 3:
                window.pass_over(head)
            else:
                window.take(head)
                under_way.append(head)
        elif under_way:
            window.settle(under_way.pop(which % len(under_way)))
        assert window.head == head
        assert window.position == (min(under_way) - 1 if under_way else head)


def test_a_slow_event_lags_once_enough_others_are_settled() -> None:
    window = Window(0, 3)
    window.take(1)
    for seq in range(2, 5):
        window.take(seq)
        window.settle(seq)
    assert window.lagging() is None
    window.take(5)
    window.settle(5)
    assert window.lagging() == 1
    window.settle(1)
    assert (window.lagging(), window.position) == (None, 5)
    window.settle(1)
    assert window.position == 5
