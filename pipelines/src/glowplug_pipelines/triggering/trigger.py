"""An event that asks for a retraining, or tells how a rollout ended: CloudEvents → values.

Events that speak of the same cause have the same episode: drift by the detector's word, arrived data by their span,
an alert by what it is about and when it began, a request by its id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from glowplug.spec.times import parse_time
from glowplug.wire.events import CloudEvent, EventProblem

DRIFT = "dev.glowplug.drift.detected"
DATA = "dev.glowplug.data.arrived"
ALERT = "dev.glowplug.alert.fired"
REQUESTED = "dev.glowplug.retraining.requested"
# A PingSource's own type, which cannot be chosen: a schedule's request.
SCHEDULED = "dev.knative.sources.ping"
TRIGGERS = (DRIFT, DATA, ALERT, REQUESTED, SCHEDULED)
PROMOTED = "dev.glowplug.rollout.promoted"
ROLLED_BACK = "dev.glowplug.rollout.rolledback"
ROLLOUTS = (PROMOTED, ROLLED_BACK)
# Kept in a ConfigMap while it waits; what is longer is reduced to nothing, and the run takes its own window.
_MAX_DATA_BYTES = 16 * 1024


@dataclass(frozen=True)
class Trigger:
    """`at` is when it was sent, in seconds since the epoch; `is_forced` passes over cool-down and budget."""

    type: str
    id: str
    source: str
    episode: str
    at: float
    is_forced: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)

    def is_same_event(self, other: Trigger) -> bool:
        """Whether it is the very same event: CloudEvents are told apart by source and id."""
        return (self.source, self.id) == (other.source, other.id)

    def as_json(self) -> dict[str, str]:
        """As the events of a run name it."""
        return {"type": self.type, "id": self.id, "source": self.source}


@dataclass(frozen=True)
class RolloutEnded:
    """An InferenceService's canary has all requests, or none. `at` is seconds since the epoch."""

    namespace: str
    inference_service: str
    is_promoted: bool
    reason: str
    at: float
    stable: Mapping[str, str] = field(default_factory=dict)
    canary: Mapping[str, str] = field(default_factory=dict)


def read(event: CloudEvent, now: float) -> Trigger | RolloutEnded:
    """What an event says. Raises EventProblem where it is none of these types, or lacks what it must have."""
    type = event.text("type")
    if type not in (*TRIGGERS, *ROLLOUTS):
        raise EventProblem(f"type = {type[:200]}, must be one of {', '.join((*TRIGGERS, *ROLLOUTS))}")
    data = _data(event)
    moment = parse_time(event.text("time"))
    # A sender whose clock is ahead must not stay the newest for ever.
    at = min(now, moment.timestamp()) if moment is not None else now
    if type in ROLLOUTS:
        return RolloutEnded(
            namespace=_text(data, "namespace", type),
            inference_service=_text(data, "name", type),
            is_promoted=type == PROMOTED,
            reason=str(data.get("reason", "")),
            at=at,
            stable=_texts(data.get("stable")),
            canary=_texts(data.get("canary")),
        )
    return Trigger(
        type=type,
        id=event.text("id"),
        source=event.text("source"),
        episode=_episode(event, data),
        at=at,
        is_forced=type == REQUESTED and data.get("force") is True,
        data=data if len(event.data or b"") <= _MAX_DATA_BYTES else {},
    )


def model_of(event: CloudEvent) -> str:
    """The model that a trigger is about. Raises EventProblem where it names none."""
    data = _data(event)
    if event.text("type") == ALERT:
        data = data.get("labels") or {}
        if not isinstance(data, Mapping):
            raise EventProblem("data.labels of an alert must be an object")
    return _text(data, "model", event.text("type"))


def _episode(event: CloudEvent, data: Mapping[str, Any]) -> str:
    type, id, source = (event.text(name) for name in ("type", "id", "source"))
    if type == DRIFT and data.get("episode"):
        # The detector counts its episodes anew with each model's profile.
        words = [source, str(data.get("profile", "")), str(data["episode"])]
    elif type == DATA and data.get("from") and data.get("to"):
        words = [str(data["from"]), str(data["to"])]
    elif type == ALERT and data.get("startsAt"):
        words = [_canonical(data.get("labels")), str(data["startsAt"])]
    else:
        words = [source, id]
    text = "\0".join([type, *words])
    # Short, whatever the sender wrote: it is kept in a ConfigMap for a while.
    return f"{type.removeprefix('dev.glowplug.')}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _canonical(labels: object) -> str:
    return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode()


def _data(event: CloudEvent) -> dict[str, Any]:
    try:
        data = orjson.loads(event.data or b"{}")
    except orjson.JSONDecodeError as error:
        raise EventProblem(f"the data of {event.text('type')} are no JSON: {error}") from None
    if not isinstance(data, dict):
        raise EventProblem(f"the data of {event.text('type')} are no JSON object")
    return data


def _text(data: Mapping[str, Any], name: str, type: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise EventProblem(f"the data of {type} have no {name}, a text that is not empty")
    return value


def _texts(found: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, Mapping) else {}
