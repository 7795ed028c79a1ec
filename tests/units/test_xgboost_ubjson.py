"""The reader of UBJSON, against a writer of the same draft and against anything at all."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from units.xgboost_models import train

from glowplug_xgboost.ubjson import decode  # isort: skip

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "replace")
    return b"L" + struct.pack(">q", len(raw)) + raw


def encode(value: Any, counted: bool) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"Z", True: b"T", False: b"F"}[value]
    if isinstance(value, int):
        return b"L" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"D" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"S" + text(value)
    head = b"#U" + bytes((len(value),)) if counted else b""
    if isinstance(value, list):
        return b"[" + head + b"".join(encode(item, counted) for item in value) + (b"" if counted else b"]")
    items = b"".join(text(key) + encode(item, counted) for key, item in value.items())
    return b"{" + head + items + (b"" if counted else b"}")


@settings(max_examples=60)
@given(VALUES, st.booleans())
def test_what_is_written_is_read(value: Any, counted: bool) -> None:
    assert decode(encode(value, counted)) == value


@pytest.mark.parametrize(
    ("marker", "dtype"),
    [("i", "i1"), ("U", "u1"), ("I", "i2"), ("l", "i4"), ("L", "i8"), ("d", "f4"), ("D", "f8")],
)
def test_typed_arrays(marker: str, dtype: str) -> None:
    numbers = np.array([1, 2, 100], dtype=f">{dtype}")
    found = decode(b"[$" + marker.encode() + b"#i\x03" + numbers.tobytes())
    assert found.dtype == numbers.dtype
    np.testing.assert_array_equal(found, numbers)


@settings(max_examples=200)
@given(
    st.binary(max_size=60) | st.lists(st.sampled_from([*b"[]{}$#SLUiC\x00\x05TN"]), max_size=60).map(bytes)
)
def test_anything_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(data)


def test_a_booster_cut_off_or_nested_too_deep_is_refused() -> None:
    whole = bytes(train().save_raw("ubj"))
    assert decode(whole)["learner"]["gradient_booster"]["name"] == "gbtree"
    for share in range(20):
        with pytest.raises(ValueError, match="UBJSON"):
            decode(whole[: len(whole) * share // 20])
    with pytest.raises(ValueError, match="too deep"):
        decode(b"[" * 1000)
