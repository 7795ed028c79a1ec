"""CloudEvents that are handed on: strict, and unchanged; the CloudEvents SDK reads what is written."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from cloudevents.http import from_http
from hypothesis import given
from hypothesis import strategies as st

from glowplug.wire.events import (
    CloudEvent,
    EventProblem,
    decode,
    encode_binary,
    encode_structured,
    structured_json,
)

STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
EVENT = {"specversion": "1.0", "id": "1", "type": "t", "source": "/s"}

_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
_names = st.from_regex(r"[a-z][a-z0-9]{0,12}", fullmatch=True).filter(
    lambda name: name not in {*EVENT, "data", "time", "subject", "dataschema", "datacontenttype"}
)
_values = st.one_of(_text, st.integers(-(2**31), 2**31 - 1), st.booleans())


@given(st.dictionaries(_names, _values, max_size=4), _text, st.none() | st.binary(min_size=1, max_size=50))
def test_both_forms_come_back(extensions: dict[str, Any], subject: str, data: bytes | None) -> None:
    attributes = {**EVENT, "subject": subject, **extensions}
    if data is not None:
        attributes["datacontenttype"] = "application/octet-stream"
    event = CloudEvent(attributes, data)
    assert decode(*encode_structured(event)) == (event,)
    (binary,) = decode(*encode_binary(event))
    assert binary.data == data
    assert binary.attributes == {name: event.text(name) for name in attributes}


@given(st.recursive(st.none() | st.booleans() | st.integers() | _text, st.lists, max_leaves=5))
def test_json_data_stay_the_bytes_that_they_were(value: Any) -> None:
    import json

    raw = json.dumps(value, indent=1).encode()
    body = orjson.dumps(EVENT)[:-1] + b', "data" :\n ' + raw + b" }"
    (event,) = decode(STRUCTURED, body)
    if value is None:
        assert event.data is None
        return
    assert event.data == raw
    assert event.attributes["datacontenttype"] == "application/json"
    assert raw in structured_json(event)


def test_the_sdk_reads_it() -> None:
    event = CloudEvent({**EVENT, "subject": 'a "b" 100 %', "datacontenttype": "application/json"}, b'{"n":1}')
    for write in (encode_binary, encode_structured):
        headers, body = write(event)
        found = from_http(headers, body)
        assert (found["id"], found.get_data()) == ("1", {"n": 1})
    assert encode_binary(event)[0]["ce-subject"] == "a%20%22b%22%20100%20%25"


def test_text_and_bytes_in_json() -> None:
    text = CloudEvent({**EVENT, "datacontenttype": "text/plain"}, "ä".encode())
    assert orjson.loads(structured_json(text))["data"] == "ä"
    assert decode(*encode_structured(text)) == (text,)
    # What says that it is JSON, and is not.
    odd = CloudEvent({**EVENT, "datacontenttype": "application/json"}, b"{")
    assert orjson.loads(structured_json(odd))["data_base64"] == "ew=="
    assert decode(*encode_structured(odd)) == (odd,)


def test_quoted_headers_of_older_senders() -> None:
    headers = {f"ce-{name}": value for name, value in EVENT.items()}
    (event,) = decode({**headers, "ce-subject": '"a \\"b\\""', "ce-tenant": "gr\xc3\xbcn"}, b"")
    assert (event.text("subject"), event.text("tenant"), event.data) == ('a "b"', "grün", None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "found '[' at character 1, expected an object"),
        (b"", "found the end at character 1, expected an object"),
        (b"{", "not JSON"),
        (b'{"id": NaN}', "not JSON: NaN"),
        (b'{"id": "1", "id": "2"}', "id is given twice"),
        (b'{"id": "1"} x', "expected the end"),
        (b'{"id": "1"; }', "found ';' at character 11, expected ',' or '}'"),
        (b'{"id": [1]}', "id = [1], expected text, a 32-bit integer or a boolean"),
        (b'{"n": 1.5}', "n = 1.5, expected"),
        (b'{"n": 4294967296}', "n = 4294967296, expected"),
        (b"[" * 100_000, "expected an object"),
        (b'{"data":' + b"[" * 100_000, "nested too deeply"),
        (b"{}", "specversion, id, source, type are missing"),
        (b"\xff", "the body is not UTF-8 at byte 0"),
        (orjson.dumps({**EVENT, "id": 1}), "id = 1, expected text"),
        (orjson.dumps({**EVENT, "type": ""}), "type is empty"),
        (orjson.dumps({**EVENT, "type": "a\nb"}), "type has a control character"),
        (orjson.dumps({**EVENT, "myName": "x"}), "'myName' is no attribute"),
        (orjson.dumps({**EVENT, "source": "a b"}), "source = 'a b', expected a URI-reference"),
        (orjson.dumps({**EVENT, "dataschema": "x/y"}), "dataschema = 'x/y', expected an absolute URI"),
        (orjson.dumps({**EVENT, "data_base64": "%"}), "data_base64 is not base64"),
        (orjson.dumps({**EVENT, "data": 1, "data_base64": ""}), "both given"),
    ],
)
def test_what_is_malformed_is_named(body: bytes, said: str) -> None:
    with pytest.raises(EventProblem) as raised:
        decode(STRUCTURED, body)
    assert said in raised.value.message


@given(
    st.binary(max_size=60),
    st.sampled_from(["application/cloudevents+json", "application/cloudevents-batch+json"]),
)
def test_anything_else_is_an_event_problem(body: bytes, content_type: str) -> None:
    with contextlib.suppress(EventProblem):
        decode({"content-type": content_type}, body)
