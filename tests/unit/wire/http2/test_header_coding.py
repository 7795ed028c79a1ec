"""HPACK against the hpack package, in both directions, and what is remembered between blocks."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Decoder, Encoder
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from glowplug.wire.http2.frames import ConnectionFailed
from glowplug.wire.http2.header_coding import HeaderDecoder, TooManyHeaders, encode
from glowplug.wire.http2.static_table import STATIC_TABLE

VALUES = st.text(st.characters(max_codepoint=255), max_size=60) | st.sampled_from(["POST", "200", "trailers"])
NAMES = st.sampled_from([name for name, _ in STATIC_TABLE]) | st.text("abc-", min_size=1, max_size=9)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def collected(fields: list[tuple[str, str]]) -> Any:
    return list(fields)


def test_the_static_table() -> None:
    assert [(name.encode(), value.encode()) for name, value in STATIC_TABLE] == list(HeaderTable.STATIC_TABLE)


@given(st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([0, 64, 200, 4096, None])), max_size=8))
def test_what_hpack_writes_we_read(blocks: list[tuple[Any, bool, int | None]]) -> None:
    encoder, decoder = Encoder(), HeaderDecoder(2**20)
    for fields, is_huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode([(n.encode(), v.encode("latin-1")) for n, v in fields], huffman=is_huffman)
        assert decoder.headers(block, collected) == fields


@given(FIELDS)
def test_what_we_write_hpack_reads(fields: list[tuple[str, str]]) -> None:
    found = Decoder().decode(encode(fields), raw=True)
    assert [(name.decode(), value.decode("latin-1")) for name, value in found] == fields


def test_secrets_are_not_to_be_indexed() -> None:
    (field,) = Decoder().decode(encode([("authorization", "Bearer x")]))
    assert not field.indexable


def test_a_block_is_remembered_until_the_table_changes() -> None:
    encoder, decoder = Encoder(), HeaderDecoder(2**16)
    first = [("a", "1"), ("b", "2")]
    assert decoder.headers(encoder.encode(first), collected) == first
    again = encoder.encode(first)
    known = decoder.headers(again, collected)
    assert decoder.headers(again, collected) is known
    # The same bytes mean something else after another entry, whichever way that one was read.
    decoder.skip(encoder.encode([("c", "3")]))
    assert decoder.headers(again, collected) == [("b", "2"), ("c", "3")]
    with pytest.raises(TooManyHeaders):
        HeaderDecoder(10).headers(encode(first), collected)


def test_too_many_headers_leave_the_table_in_step() -> None:
    encoder, decoder = Encoder(), HeaderDecoder(100)
    with pytest.raises(TooManyHeaders):
        decoder.headers(encoder.encode([("a", "1" * 50), ("b", "2" * 50), ("c", "3")]), collected)
    assert decoder.headers(encoder.encode([("c", "3")]), collected) == [("c", "3")]


def test_a_bomb_of_references_is_not_kept() -> None:
    encoder, decoder = Encoder(), HeaderDecoder(2**16)
    bomb = encoder.encode([("a", "1" * 4000)]) + encoder.encode([("a", "1" * 4000)]) * 60_000
    with pytest.raises(TooManyHeaders):
        decoder.decode(bomb)


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\x80\x80\x80\x80\x80\x80\x01",  # a number without end
        b"\xbe",  # no entry in an empty table
        b"\x40\x05ab",  # cut off
        b"\x40",
        b"\x82\x20",  # a size update after a field
        b"\x3f\xe2\x1f",  # above what we allow
        b"\x40\x01a\x84\xff\xff\xff\xff",  # EOS in a Huffman string
        b"\x40\x01a\x81\x00",  # padded by zeros
        b"\x40\x01a\x82\x1f\xff",  # padded by more than seven bits
    ],
)
def test_broken_blocks(block: bytes) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        HeaderDecoder(2**16).headers(block, collected)
    assert caught.value.code == 9


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_error(block: bytes) -> None:
    decoder = HeaderDecoder(2**16)
    try:
        found, _ = decoder.decode(block)
    except ConnectionFailed:
        return
    try:
        theirs = Decoder().decode(block, raw=True)
    except Exception:
        return
    assert [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found] == list(theirs)
