"""A dead letter as a value: the event as it came, and what Knative says of why nobody took it.

Knative's brokers add knativeerrordest (who did not take it), knativeerrorcode (the last HTTP status) and
knativeerrordata (the start of the last answer, in base64) as extension attributes.
Source: https://knative.dev/docs/eventing/event-delivery/#configuring-channel-event-delivery
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from glowplug.wire.events import CloudEvent, structured_json

DESTINATION, CODE, ANSWER = "knativeerrordest", "knativeerrorcode", "knativeerrordata"


@dataclass(frozen=True)
class Letter:
    """`body` is the event in the structured form. `destination` and `code` are empty where the sender says none."""

    type: str
    source: str
    id: str
    destination: str
    code: str
    answer: str
    body: bytes


def letter_of(event: CloudEvent) -> Letter:
    """What is kept of an event."""
    return Letter(
        event.text("type"),
        event.text("source"),
        event.text("id"),
        event.text(DESTINATION),
        event.text(CODE),
        _text(event.text(ANSWER)),
        structured_json(event),
    )


def _text(encoded: str) -> str:
    """Knative's base64 as text; what is no base64 is left as it is."""
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return encoded
