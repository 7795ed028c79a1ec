"""Keys and packed rows: nothing collides, nothing is lost, nothing foreign is taken for a row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.features.lab import small_view

from glowplug.errors import FeatureError
from glowplug.features.keys import entity_values, row_keys, state_key
from glowplug.features.packing import HEADER_BYTES, pack, unpack
from glowplug.features.view import Feature

VIEW = small_view()
PAIR, USER = VIEW.group("pair"), VIEW.group("user")
# Surrogates too: a JSON string may hold a lone one.
texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=8) | st.sampled_from(
    ["", ":", "%", "%3A", "::"]
)
bits = st.integers(0, 2**32 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)


@given(texts, texts)
def test_a_key_gives_its_values_back(user: str, shop: str) -> None:
    (key,) = row_keys(VIEW, PAIR, [[user], [shop]])
    assert entity_values(VIEW, PAIR, key) == (user, shop)


@given(st.lists(st.tuples(texts, texts), unique=True, max_size=30))
def test_different_entities_have_different_keys(pairs: list[tuple[str, str]]) -> None:
    columns = [[user for user, _ in pairs], [shop for _, shop in pairs]]
    assert len(set(row_keys(VIEW, PAIR, columns))) == len(pairs)


def test_keys_of_other_groups_and_feature_lists_are_others() -> None:
    widened = replace(USER, features=(*USER.features, Feature("more")))
    assert row_keys(VIEW, USER, [["1"]]) != row_keys(VIEW, widened, [["1"]])
    assert state_key(VIEW, USER) != state_key(VIEW, PAIR)
    with pytest.raises(ValueError, match="is not a key of"):
        entity_values(VIEW, PAIR, row_keys(VIEW, USER, [["1"]])[0])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        row_keys(VIEW, PAIR, [["1"], []])


@given(st.lists(st.tuples(int64s, bits, bits), max_size=20), st.data())
def test_rows_come_back_bit_for_bit(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    event_ms = np.array([row[0] for row in rows], dtype=np.int64)
    values = np.array([row[1:] for row in rows], dtype=np.uint32).reshape(-1, 2).view(np.float32)
    packed: list[bytes | None] = list(pack(USER, event_ms, values))
    absent = data.draw(st.sets(st.integers(0, len(rows) - 1))) if rows else set()
    for index in absent:
        packed[index] = None
    found = unpack(USER, packed)
    assert found.found.tolist() == [index not in absent for index in range(len(rows))]
    assert (found.event_ms[found.found] == event_ms[found.found]).all()
    assert found.values[found.found].tobytes() == values[found.found].tobytes()


def test_the_layout_is_little_endian_and_documented() -> None:
    (row,) = pack(USER, np.array([1], dtype=np.int64), np.array([[1.0, -2.0]], dtype=np.float32))
    assert len(row) == HEADER_BYTES + 8
    assert row == (
        b"\x01\x00"
        + b"\x02\x00"
        + USER.schema_hash
        + b"\x01"
        + bytes(7)
        + b"\x00\x00\x80\x3f"
        + b"\x00\x00\x00\xc0"
    )


@given(st.binary(max_size=60))
def test_foreign_bytes_are_refused_or_are_a_row(value: bytes) -> None:
    try:
        assert unpack(USER, [value]).found.all()
    except FeatureError as error:
        assert "user" in error.message
    else:
        assert value[4:12] == USER.schema_hash


def test_what_is_wrong_with_a_row_is_said() -> None:
    (row,) = pack(USER, np.zeros(1, np.int64), np.zeros((1, 2), np.float32))
    with pytest.raises(FeatureError, match="has 27 bytes, must be 28"):
        unpack(USER, [row, row[:-1]])
    with pytest.raises(FeatureError, match=r"have format 2, must be 1"):
        unpack(USER, [b"\x02" + row[1:]])
    renamed = replace(USER, features=(Feature("age"), Feature("spent")))
    with pytest.raises(FeatureError, match=f"{USER.schema_hash.hex()}.*must be {renamed.schema_hash.hex()}"):
        unpack(renamed, [row])
    with pytest.raises(FeatureError, match=r"shape \(1, 3\), must be \(1, 2\)"):
        pack(USER, np.zeros(1, np.int64), np.zeros((1, 3), np.float32))
