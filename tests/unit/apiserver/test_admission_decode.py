"""Bodies of requests: JSON and YAML, repeated fields, and everything that is neither."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.apiserver.admission import decode
from glowplug.errors import ApiError, BadRequest, UnsupportedMedia

JSON, YAML = "application/json", "application/yaml"


@pytest.mark.parametrize(
    "content_type", [JSON, "application/json; charset=utf-8", "", YAML, "application/apply-patch+yaml"]
)
def test_json_is_read_as_either(content_type: str) -> None:
    assert decode(b'{"a": [1, {"b": null}]}', content_type) == ({"a": [1, {"b": None}]}, ())


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"a": {"x": 1, "x": 2}, "l": [{"y": 1, "y": 1, "y": 1}], "a": {"x": 1, "x": 2}}', JSON),
        (b"a: {x: 1, x: 2}\nl: [{y: 1, y: 1, y: 1}]\na: {}\n", YAML),
    ],
)
def test_repeated_fields_are_told_with_their_paths(body: bytes, content_type: str) -> None:
    _, duplicates = decode(body, content_type)
    assert set(duplicates) == {"a", "a.x", "l[0].y"}


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b'{"a": 1,\n "b" 2}', JSON, "line 2, column 6"),
        (b"", JSON, "not JSON"),
        (b"[]", JSON, "not an object"),
        (b'{"a": NaN}', JSON, "not JSON"),
        (b'{"a": "\\ud800"}', JSON, "not JSON"),
        (b'{"a": "\xff"}', JSON, "not JSON"),
        (b"[" * 1000 + b"]" * 1000, JSON, "levels deep"),
        (b'{"a":' * 5000, JSON, "not JSON"),
        (b"a: [1,\n", YAML, "line 2, column 1"),
        (b"a: \xff", YAML, "UTF-8"),
        (b"a: 1\n---\nb: 2\n", YAML, "2 objects"),
        (b"", YAML, "0 objects"),
        (b"text", YAML, "not an object"),
    ],
)
def test_what_is_no_object_is_told_with_its_place(body: bytes, content_type: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        decode(body, content_type)


def test_other_content_types_are_refused() -> None:
    with pytest.raises(UnsupportedMedia, match="protobuf"):
        decode(b"", "application/vnd.kubernetes.protobuf")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from([JSON, YAML]))
def test_any_body_is_read_or_refused(body: bytes, content_type: str) -> None:
    try:
        obj, _ = decode(body, content_type)
    except ApiError:
        return
    orjson.dumps(obj)


_json: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=15,
)


@given(st.dictionaries(st.text(max_size=3), _json, max_size=4))
def test_what_is_written_is_read(obj: dict[str, Any]) -> None:
    assert decode(orjson.dumps(obj), JSON) == (obj, ())
