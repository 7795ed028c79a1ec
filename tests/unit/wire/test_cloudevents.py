"""CloudEvents in both forms; the CloudEvents SDK writes and reads the other side."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http

from glowplug.errors import InferenceError
from glowplug.wire import cloudevents

ATTRIBUTES = {"type": "t", "source": "s", "id": "1"}


def lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@pytest.mark.parametrize("write", [to_binary, to_structured])
def test_round_trip_with_the_sdk(write: Any) -> None:
    headers, body = write(CloudEvent(ATTRIBUTES, {"instances": [1]}))
    headers = lower(headers)
    assert cloudevents.is_event(headers)
    event, data = cloudevents.decode(headers, body)
    assert event.is_binary == (write is to_binary)
    assert (orjson.loads(data) if type(data) is bytes else data) == {"instances": [1]}
    answer_headers, answer = cloudevents.encode_answer(
        event,
        b'{"predictions":[2]}',
        model="m",
        policy=cloudevents.ResponsePolicy(),
        event_id="e",
        time="2026-11-21T10:00:00+00:00",
    )
    found = from_http(answer_headers, answer)
    assert found["type"] == "io.kserve.inference.response"
    assert found["source"] == "io.kserve.inference.m"
    assert found["id"] == "e"
    assert found.get_data() == {"predictions": [2]}


def test_a_structured_event_needs_no_time() -> None:
    document = {"specversion": "1.0", **ATTRIBUTES, "data": {"instances": [1]}}
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    _, data = cloudevents.decode(headers, orjson.dumps(document))
    assert data == {"instances": [1]}
    assert cloudevents.looks_structured(document)


def test_base64_data_is_unpacked() -> None:
    document = {"specversion": "1.0", **ATTRIBUTES, "data_base64": "eyJpbnN0YW5jZXMiOlsxXX0="}
    assert cloudevents.decode_structured(document)[1] == {"instances": [1]}


def test_the_requests_attributes_are_kept_where_the_policy_says_so() -> None:
    event = cloudevents.Event({**ATTRIBUTES, "specversion": "1.0", "subject": "q", "time": "old"}, False)
    policy = cloudevents.ResponsePolicy("my.type", "my-source", True)
    _, body = cloudevents.encode_answer(event, b"{}", model="m", policy=policy, event_id="e", time="now")
    found = orjson.loads(body)
    assert found["subject"] == "q"
    assert (found["type"], found["source"], found["id"], found["time"]) == (
        "my.type",
        "my-source",
        "e",
        "now",
    )


@pytest.mark.parametrize(
    ("headers", "body", "said", "code"),
    [
        ({"ce-specversion": "1.0"}, b"{}", "no id, source, type", 400),
        ({"content-type": "application/cloudevents+json"}, b"[]", "an array, expected an object", 400),
        ({"content-type": "application/cloudevents+json"}, b"{", "not JSON", 400),
        ({"content-type": "application/cloudevents+avro"}, b"", "expected application/cloudevents+json", 415),
        ({"content-type": "application/cloudevents-batch+json"}, b"[]", "expected one event", 415),
        (
            {"content-type": "application/cloudevents+json"},
            orjson.dumps({"specversion": "9", **ATTRIBUTES, "data": 1}),
            "specversion",
            400,
        ),
        (
            {"content-type": "application/cloudevents+json"},
            orjson.dumps({"specversion": "1.0", **ATTRIBUTES}),
            "no data",
            400,
        ),
        (
            {"content-type": "application/cloudevents+json"},
            orjson.dumps({"specversion": "1.0", **ATTRIBUTES, "data_base64": "?"}),
            "not base64",
            400,
        ),
    ],
)
def test_what_is_broken_is_named(headers: Any, body: bytes, said: str, code: int) -> None:
    with pytest.raises(InferenceError) as caught:
        cloudevents.decode(headers, body)
    assert said in caught.value.message
    assert caught.value.code == code
