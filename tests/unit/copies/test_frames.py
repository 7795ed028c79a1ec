"""What the script writes, read: in any pieces, and what is no frame."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.copies.frames import MAX_FRAME_BYTES, Part, State, take_frames

NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def frame(part: Part) -> bytes:
    """As `copy.lua` writes it."""
    pairs = [text for pair in part.headers.items() for text in pair]
    about = json.dumps(part.about) if part.about else ""
    texts = "\0".join([part.id, "a" if part.is_answer else "q", part.state.value, about, *pairs]).encode()
    return b"%08x%08x%s%s" % (len(texts), len(part.body), texts, part.body)


PARTS = st.lists(
    st.builds(
        Part, NAME, st.booleans(), st.sampled_from(State), st.dictionaries(NAME, NAME, max_size=2),
        st.dictionaries(NAME, NAME, max_size=3), st.binary(max_size=60),
    ),
    max_size=4,
)  # fmt: skip


@given(PARTS, st.integers(1, 40))
def test_frames_come_in_any_pieces(parts: list[Part], size: int) -> None:
    data = b"".join(map(frame, parts))
    buffer, found = bytearray(), []
    for at in range(0, len(data), size):
        buffer += data[at : at + size]
        found += list(take_frames(buffer))
    assert found == parts and not buffer


def test_a_header_that_comes_twice_is_joined() -> None:
    texts = b"\0".join((b"1", b"q", b".", b"", b"a", b"1", b"a", b"2"))
    (part,) = take_frames(bytearray(b"%08x%08x%s" % (len(texts), 0, texts)))
    assert part.headers == {"a": "1,2"}


@pytest.mark.parametrize(
    "data",
    [
        b"not a number of bytes",
        b"%08x%08x" % (MAX_FRAME_BYTES, 1),
        b"-0000001%08x" % 1,
        b"%08x%08x1\0q\0." % (5, 0),
        b"%08x%08x1\0q\0?\0" % (6, 0),
        b"%08x%08x1\0q\0.\0[]" % (8, 0),
    ],
)
def test_what_is_no_frame_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError):
        list(take_frames(bytearray(data)))


@given(st.binary(max_size=80))
def test_any_bytes_are_survived(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        list(take_frames(bytearray(data)))
