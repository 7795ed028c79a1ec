"""How far a group is with one partition: what is committed, and what has to be known beside an offset. Pure.

Records are taken in order and are over in any. The offset that is committed is that of the first record that is not
over; which of the later ones are not over, and how often each was tried, is committed with it as the offset's
metadata. So whoever takes the partition over, after a crash or a rebalance, repeats little, and goes on counting the
attempts of a record where the last one stopped: one schedule a record, whoever works it off.
"""

from __future__ import annotations

import json

# Kafka takes 4096 bytes (offset.metadata.max.bytes).
MAX_METADATA = 3800


class Progress:
    """Of one partition, from the committed `offset` on."""

    def __init__(self, offset: int, metadata: str = "") -> None:
        """`metadata` is what was committed with `offset`; what is not understood reads as nothing."""
        self._head = offset
        # In order, and how often each was tried.
        self._open: dict[int, int] = {}
        # Of a former owner: records up to `_known` that are in here are not over, the others are.
        self._known, self._left = _read(offset, metadata)

    @property
    def position(self) -> int:
        """The offset to commit: everything before it is over."""
        first = next(iter(self._open), None)
        position = self._head if first is None else first
        # What is over already and was not looked at yet need not be looked at.
        while position < self._known and position not in self._left and first is None:
            position += 1
        return position

    @property
    def open(self) -> int:
        """How many records are under way."""
        return len(self._open)

    def is_over(self, offset: int) -> bool:
        """Whether a record that is read needs nothing more; such a record is passed over."""
        return offset < self._head or (offset < self._known and offset not in self._left)

    def pass_over(self, offset: int) -> None:
        """A record that needs nothing was read."""
        self._head = max(self._head, offset + 1)

    def take(self, offset: int) -> int:
        """A record is under way, a later one than all before; how often it was tried already."""
        self._head = offset + 1
        self._open[offset] = self._left.get(offset, 0)
        return self._open[offset]

    def note(self, offset: int, attempts: int) -> None:
        """A record was tried so often, and is to be tried again."""
        if offset in self._open:
            self._open[offset] = attempts

    def settle(self, offset: int) -> None:
        """A record is over."""
        self._open.pop(offset, None)

    def metadata(self) -> str:
        """What is to be committed with `position`; empty where there is nothing to say."""
        position = self.position
        left = {**self._left, **self._open}
        still = {
            at - position: tries for at, tries in sorted(left.items()) if at in self._open or at >= self._head
        }
        head = max(self._head, self._known) - position
        if not any(still.values()) and head <= len(still):
            return ""
        text = _written(head, still)
        while len(text) > MAX_METADATA:
            # What is left out may come twice; the first ones are those that were tried most.
            kept = len(still) * MAX_METADATA // len(text) - 1
            head = sorted(still)[kept]
            still = {at: tries for at, tries in still.items() if at < head}
            text = _written(head, still)
        return text


def _written(head: int, still: dict[int, int]) -> str:
    numbers = [number for pair in still.items() for number in pair]
    return json.dumps([head, *numbers], separators=(",", ":"))


def _read(offset: int, metadata: str) -> tuple[int, dict[int, int]]:
    try:
        numbers = json.loads(metadata) if metadata else []
    except ValueError:
        return offset, {}
    is_ours = isinstance(numbers, list) and len(numbers) % 2 == 1
    if not is_ours or not all(type(number) is int and number >= 0 for number in numbers):
        return offset, {}
    pairs = zip(numbers[1::2], numbers[2::2], strict=True)
    return offset + numbers[0], {offset + at: tries for at, tries in pairs}
