"""Records of Kafka to CloudEvents and back. Pure.

A record that is no CloudEvent, in neither form, becomes one: whatever comes can be handed on, and nothing is stuck.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md and, for records
that are no events, eventing-kafka-broker data-plane InvalidCloudEventInterceptor and KeyDeserializer.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from urllib.parse import quote

from glowplug.spec.kafka import EVENT_TYPE, KeyType
from glowplug.wire.cloudevents import STRUCTURED_TYPE, media_type
from glowplug.wire.events import CloudEvent, EventProblem, Value, decode, text_of

PARTITION_KEY = "partitionkey"
_KEY = "key"
_CONTENT_TYPE = "content-type"
_BAD_IN_NAME = re.compile(r"[^a-z0-9]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
Headers = Sequence[tuple[str, "bytes | None"]]


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `at_ms` is its timestamp since the epoch, below 0 where it has none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    at_ms: int = -1

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        return len(self.value or b"") + len(self.key or b"") + 64 * len(self.headers) + 256


@dataclass(frozen=True)
class Origin:
    """What events that are made of plain records say of where they are from, and what is added to every event.

    `source` is followed by `#` and the topic.
    """

    source: str
    key_type: KeyType = KeyType.STRING
    extensions: Mapping[str, str] = field(default_factory=dict)


def event_of(record: Record, origin: Origin) -> CloudEvent:
    """The event in a record, or the event that says what is in the record."""
    event = _carried(record) or _made(record, origin)
    return event.with_attributes(**origin.extensions) if origin.extensions else event


def record_of(event: CloudEvent) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """Key, value and headers of the binary form. Events of one `partitionkey` stay in order."""
    headers = [
        (f"ce_{name}", text_of(value).encode())
        for name, value in event.attributes.items()
        if name != "datacontenttype"
    ]
    if content_type := event.text("datacontenttype"):
        headers.append((_CONTENT_TYPE, content_type.encode()))
    key = event.text(PARTITION_KEY)
    return key.encode() or None, event.data, headers


def _carried(record: Record) -> CloudEvent | None:
    headers = {name.lower(): _text(value) for name, value in record.headers}
    content_type = headers.get(_CONTENT_TYPE, "")
    try:
        if media_type(content_type) == STRUCTURED_TYPE:
            (event,) = decode({_CONTENT_TYPE: content_type}, record.value or b"")
            return event
        if "ce_specversion" not in headers:
            return None
        # In Kafka values are UTF-8 as they are; over HTTP, whose rules are checked here, they are escaped.
        binary = {f"ce-{name[3:]}": quote(value) for name, value in headers.items() if name[:3] == "ce_"}
        if content_type:
            binary[_CONTENT_TYPE] = content_type
        (event,) = decode(binary, record.value or b"")
    except (EventProblem, ValueError):
        return None
    return event


def _made(record: Record, origin: Origin) -> CloudEvent:
    attributes: dict[str, Value] = {
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "source": f"{origin.source}#{record.topic}",
        "id": f"partition:{record.partition}/offset:{record.offset}",
        "subject": f"partition:{record.partition}#{record.offset}",
    }
    if record.at_ms >= 0:
        moment = datetime.fromtimestamp(record.at_ms / 1000, timezone.utc)
        attributes["time"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if record.key:
        attributes[PARTITION_KEY] = attributes[_KEY] = _key(record.key, origin.key_type)
    for name, value in record.headers:
        if name.lower() == _CONTENT_TYPE:
            attributes["datacontenttype"] = _text(value).lower() or "application/octet-stream"
        elif clean := _BAD_IN_NAME.sub("", name.lower()):
            attributes[f"kafkaheader{clean}"] = _text(value)
    return CloudEvent(attributes, record.value)


def _key(key: bytes, key_type: KeyType) -> str:
    """As text: CloudEvents know no fractions, and integers of 32 bits only."""
    if key_type is KeyType.INT and len(key) == 4:
        return str(struct.unpack(">i", key)[0])
    if key_type is KeyType.FLOAT and len(key) in (4, 8):
        return repr(struct.unpack(">f" if len(key) == 4 else ">d", key)[0])
    if key_type is KeyType.BYTES:
        return base64.b64encode(key).decode()
    return _text(key)


def _text(value: bytes | str | None) -> str:
    """As UTF-8, without what no attribute may have."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
    return _CONTROL.sub("", text)
