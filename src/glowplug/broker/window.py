"""Which events of a trigger are under way, and up to where all are settled. Pure.

Events are taken in order and settled in any. `position` is what may be written down: everything up to it is settled.
An event that holds the position back while many later ones are settled is `lagging`: it is written down by itself, and
then counts as settled, so that a crash repeats few deliveries however slow one of them is.
"""

from __future__ import annotations


class Window:
    """The events after `position` that were read."""

    def __init__(self, position: int, most_out_of_turn: int) -> None:
        self._head = position
        self._most = most_out_of_turn
        self._settled = 0
        # In order; the value is how many were settled when the event was taken.
        self._open: dict[int, int] = {}

    @property
    def head(self) -> int:
        """The last event that was read."""
        return self._head

    @property
    def position(self) -> int:
        first = next(iter(self._open), None)
        return self._head if first is None else first - 1

    def pass_over(self, seq: int) -> None:
        """Events up to `seq` were read, and are not for this trigger."""
        self._head = max(self._head, seq)

    def take(self, seq: int) -> None:
        """Event `seq`, a later one than all before, is under way."""
        self._head = seq
        self._open[seq] = self._settled

    def settle(self, seq: int) -> None:
        """Event `seq` is over, or written down by itself; unknown ones are."""
        if self._open.pop(seq, None) is not None:
            self._settled += 1

    def lagging(self) -> int | None:
        """The first event, where too many that were taken after it are settled."""
        first = next(iter(self._open.items()), None)
        return first[0] if first is not None and self._settled - first[1] > self._most else None
