"""Records to events and back: both forms of CloudEvents, and whatever else there is in a topic."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.kafka.records import Origin, Record, event_of, record_of
from glowplug.spec.kafka import KeyType
from glowplug.wire.events import CloudEvent, decode, encode_binary

ORIGIN = Origin("/apis/v1/namespaces/flying/kafkasources/flights")


def record(value: bytes | None, *headers: tuple[str, bytes | None], key: bytes | None = None) -> Record:
    return Record("late", 3, 17, key, value, headers, 1_770_000_000_123)


def test_a_plain_record_is_an_event_that_says_where_it_was() -> None:
    found = event_of(
        record(b'{"delay": 12}', ("Trace-ID", b"7"), ("content-type", b"Application/JSON"), key=b"B6"), ORIGIN
    )
    assert found.data == b'{"delay": 12}'
    assert found.attributes == {
        "specversion": "1.0",
        "type": "dev.knative.kafka.event",
        "source": "/apis/v1/namespaces/flying/kafkasources/flights#late",
        "id": "partition:3/offset:17",
        "subject": "partition:3#17",
        "time": "2026-02-02T02:40:00.123Z",
        "key": "B6",
        "partitionkey": "B6",
        "kafkaheadertraceid": "7",
        "datacontenttype": "application/json",
    }


def test_a_record_in_binary_form_is_its_event() -> None:
    found = event_of(
        record(
            b"ab", ("ce_specversion", b"1.0"), ("ce_id", b"9"), ("ce_source", b"/s"), ("ce_type", b"t"),
            ("ce_note", "späť 100%".encode()), ("content-type", b"text/plain"), ("other", b"x"),
        ),
        ORIGIN,
    )  # fmt: skip
    wanted = {"specversion": "1.0", "id": "9", "source": "/s", "type": "t", "note": "späť 100%"}
    assert found.attributes == {**wanted, "datacontenttype": "text/plain"}
    assert found.data == b"ab"


def test_a_record_in_structured_form_is_its_event() -> None:
    body = b'{"specversion":"1.0","id":"9","source":"/s","type":"t","data":{"a":1.0}}'
    found = event_of(record(body, ("Content-Type", b"application/cloudevents+json; charset=utf-8")), ORIGIN)
    assert found.text("id") == "9" and found.data == b'{"a":1.0}'


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"{", (("content-type", b"application/cloudevents+json"),)),
        (None, (("content-type", b"application/cloudevents+json"),)),
        (b"x", (("ce_specversion", b"1.0"), ("ce_id", b"9"))),
        (b"x", (("ce_specversion", b"0.2"), ("ce_id", b"9"), ("ce_source", b"/s"), ("ce_type", b"t"))),
        (b"x", (("ce_specversion", b"1.0"), ("ce_id", b""), ("ce_source", b"/s"), ("ce_type", b"t"))),
    ],
)
def test_a_broken_event_is_handed_on_as_a_plain_record(
    value: bytes | None, headers: tuple[tuple[str, bytes], ...]
) -> None:
    found = event_of(record(value, *headers), ORIGIN)
    assert found.text("type") == "dev.knative.kafka.event" and found.data == value


@pytest.mark.parametrize(
    ("key_type", "key", "text"),
    [
        (KeyType.STRING, b"B6", "B6"),
        (KeyType.INT, struct.pack(">i", -7), "-7"),
        (KeyType.INT, b"B6", "B6"),
        (KeyType.FLOAT, struct.pack(">d", 1.25), "1.25"),
        (KeyType.FLOAT, struct.pack(">f", 0.5), "0.5"),
        (KeyType.BYTES, b"\x00\xff", "AP8="),
    ],
)
def test_a_key_is_read_as_its_type(key_type: KeyType, key: bytes, text: str) -> None:
    found = event_of(record(b"x", key=key), Origin("/s", key_type))
    assert (found.text("key"), found.text("partitionkey")) == (text, text)


def test_overrides_win_over_what_the_event_says() -> None:
    found = event_of(record(b"x", key=b"B6"), Origin("/s", extensions={"key": "other", "team": "red"}))
    assert (found.text("key"), found.text("team")) == ("other", "red")


@given(st.binary(), st.none() | st.binary(), st.lists(st.tuples(st.text(), st.none() | st.binary())))
def test_whatever_comes_is_an_event_that_can_be_sent(
    value: bytes, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    found = event_of(record(value, *headers, key=key), ORIGIN)
    sent_headers, body = encode_binary(found)
    assert body == value
    (read,) = decode(sent_headers, body)
    assert read.text("id") == found.text("id")


attributes = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True),
    st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1),
)


@given(attributes, st.none() | st.binary(min_size=1))
def test_an_event_comes_back_as_it_was(extensions: dict[str, str], data: bytes | None) -> None:
    own = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    known = {"time", "subject", "dataschema", "datacontenttype", "data", "database64"}
    event = CloudEvent(
        {**{name: value for name, value in extensions.items() if name not in known}, **own}, data
    )
    key, value, headers = record_of(event)
    assert event_of(record(value, *headers, key=key), ORIGIN) == event


def test_events_of_one_partition_key_have_one_record_key() -> None:
    event = CloudEvent({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "partitionkey": "JFK"})
    assert record_of(event)[0] == b"JFK"
