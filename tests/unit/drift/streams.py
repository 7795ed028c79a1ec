"""Payload events and profiles of made-up streams."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from glowplug.drift.detector import moment
from glowplug.drift.payloads import LABEL, REQUEST, RESPONSE
from glowplug.drift.profile import Profile
from glowplug.wire import v2_json
from glowplug.wire.events import CloudEvent
from glowplug.wire.tensors import InferRequest, InferResponse, Tensor

NAMES = ("a", "b", "c")
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
DAYS = 40
T0 = START.timestamp() + DAYS * 86400.0


def rows(random: Any, count: int, shift: float = 0.0) -> Any:
    """float32 [count, 3]: normal, counts with many zeros, uniform."""
    return np.stack(
        [
            random.normal(shift, 1, count),
            random.poisson(0.7, count).astype(float),
            random.uniform(0, 1, count),
        ],
        axis=1,
    ).astype(np.float32)


def predicted(features: Any) -> Any:
    return (2 * features[:, 0] + features[:, 1]).astype(np.float32)


def profile(count: int = 20_000, seed: int = 1, noise: float = 1.0, **more: Any) -> Profile:
    random = np.random.default_rng(seed)
    features = rows(random, count)
    answers = predicted(features)
    labels = answers + random.normal(0, noise, count).astype(np.float32)
    ended = START + datetime.timedelta(days=DAYS)
    return Profile.of(features, NAMES, answers, labels, started=START, ended=ended, **more)


def event(type: str, id: str, at: float, data: bytes, **attributes: str) -> CloudEvent:
    return CloudEvent(
        {
            "specversion": "1.0",
            "id": id,
            "source": "/test",
            "type": type,
            "time": moment(at),
            "datacontenttype": "application/json",
            "inferenceservicename": "flights",
            "namespace": "default",
            **attributes,
        },
        data,
    )


def request(id: str, at: float, features: Any, *, binary: bool = False, **attributes: str) -> CloudEvent:
    tensor = Tensor.from_numpy("input-0", np.asarray(features, dtype=np.float32))
    body, _ = v2_json.encode_request(InferRequest("flights", (tensor,), id), binary=binary)
    return event(REQUEST, id, at, body, **attributes)


def response(id: str, at: float, values: Any, **attributes: str) -> CloudEvent:
    tensor = Tensor.from_numpy("predict", np.asarray(values, dtype=np.float32))
    body, _ = v2_json.encode_response(InferResponse("flights", (tensor,), id))
    return event(RESPONSE, id, at, body, **attributes)


def label(subject: str, at: float, values: Sequence[float | None], id: str = "") -> CloudEvent:
    data = json.dumps({"inferenceservice": "flights", "namespace": "default", "labels": list(values)})
    return event(LABEL, id or f"label-{subject}", at, data.encode(), subject=subject)
