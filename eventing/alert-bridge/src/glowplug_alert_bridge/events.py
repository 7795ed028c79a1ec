"""The event that an alert becomes: the same alert, however often it is notified, is the same event.

Alertmanager repeats a firing alert every `repeat_interval`, and two of them in a cluster may both notify. An alert's
fingerprint (its labels) and its start tell one firing from the next, so the id follows from the two, and whoever takes
events at least once (a JobSink makes one Job of an id) takes it once.
"""

from __future__ import annotations

import hashlib
import re

import orjson

from glowplug.wire.events import JSON_TYPE, CloudEvent, Value

from .webhook import Alert

TYPE = "dev.glowplug.alert.fired"
SOURCE = "/glowplug/alertmanager"
_LONGEST = 253
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def event_of(alert: Alert) -> CloudEvent:
    """Its data is the alert. `model` is an attribute of its own, since a Trigger's filter sees no data."""
    attributes: dict[str, Value] = {
        "specversion": "1.0",
        "type": TYPE,
        "source": SOURCE,
        "id": id_of(alert),
        "datacontenttype": JSON_TYPE,
    }
    if _TIME.fullmatch(alert.starts_at):
        attributes["time"] = alert.starts_at
    named = [_clean(alert.labels.get(label, "")) for label in ("inferenceservice", "model", "alertname")]
    if subject := next((name for name in named if name), ""):
        attributes["subject"] = subject
    if named[1]:
        attributes["model"] = named[1]
    return CloudEvent(attributes, orjson.dumps(alert.document))


def id_of(alert: Alert) -> str:
    """Follows from the alert's labels and its start alone."""
    who = alert.fingerprint or orjson.dumps(dict(alert.labels), option=orjson.OPT_SORT_KEYS).decode()
    return hashlib.sha256(f"{who}\n{alert.starts_at}".encode()).hexdigest()[:32]


def _clean(text: str) -> str:
    return _CONTROL.sub("", text)[:_LONGEST]
