"""The real flights of 2013 through the detector, day by day: trained on January to March, replayed from April on.

Features and model are the flights workload's own. Each hour's flights are a request and an answer as a logger copies
them; their labels come a day later. The whole detector is in it: payloads, joins, store, windows, decisions.
"""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from glowplug.drift.config import DriftConfig
from glowplug.drift.detector import Detector, Judged, Target, moment
from glowplug.drift.episodes import Episodes, decide
from glowplug.drift.judge import Reference, judge
from glowplug.drift.nulls import calibrate
from glowplug.drift.payloads import LABEL, REQUEST, RESPONSE
from glowplug.drift.profile import Profile
from glowplug.drift.replaying import replay
from glowplug.drift.slots import Slot, merged
from glowplug.drift.store import Store
from glowplug.features.offline_training import TrainingSet, training_set
from glowplug.features.parse import parse_view
from glowplug.wire import v2_json
from glowplug.wire.events import CloudEvent
from glowplug.wire.tensors import InferRequest, InferResponse, Tensor
from glowplug_flights.demo import FlightsDemo, Period
from glowplug_flights.tables import spine
from glowplug_flights.training import train

ROOT = pathlib.Path(__file__).parent.parent
VIEW = ROOT / "transformers" / "feature-lookup" / "feature_view.yaml"
PERIOD = Period(stop="2014-01-01")
_HOUR_MS, _DAY_S = 3_600_000, 86400.0


@dataclass(frozen=True)
class Year:
    """The flights that arrived in 2013, in time's order, and what the model of January to March says of them."""

    names: tuple[str, ...]
    features: Any
    event_ms: Any
    predictions: Any
    labels: Any
    importance: tuple[float, ...]

    def profile(self) -> Profile:
        """Of the training months; the errors of the weeks that the model was not fitted to."""
        is_training = self.event_ms < _ms(PERIOD.serving)
        return Profile.of(
            self.features[is_training],
            self.names,
            self.predictions[is_training],
            self.labels[is_training],
            started=_utc(PERIOD.start),
            ended=_utc(PERIOD.serving),
            at_ms=self.event_ms[is_training],
            held_out=self.event_ms[is_training] >= _ms(PERIOD.validation),
            importance=self.importance,
        )


def year() -> Year:
    """Builds features and trains; about 15 s."""
    view = parse_view(VIEW.read_text(), str(VIEW))
    with tempfile.TemporaryDirectory(prefix="glowplug-drift-") as folder:
        demo = FlightsDemo(pathlib.Path(folder), view, period=PERIOD)
        demo.prepare_offline()
        data = training_set(demo._connection, demo.store, spine(PERIOD.start, PERIOD.stop))
        demo.close()
    is_training = data.event_ms < _ms(PERIOD.serving)
    part = TrainingSet(
        data.features[is_training],
        data.event_ms[is_training],
        {name: values[is_training] for name, values in data.extras.items()},
        data.report,
    )
    trained = train(view, part, _ms(PERIOD.validation), lambda what, done, total: None)
    gains = trained.booster.get_score(importance_type="total_gain")
    return Year(
        names=tuple(view.feature_names),
        features=data.features,
        event_ms=data.event_ms,
        predictions=trained.booster.inplace_predict(data.features).astype(np.float32),
        labels=np.asarray(data.extras["arr_delay"], dtype=np.float32),
        importance=tuple(float(gains.get(name, 0.0)) for name in view.feature_names),
    )


def replayed(flights: Year, config: DriftConfig) -> tuple[list[Judged], list[Slot]]:
    """Every window from April to December, in order; and the slots that they were made of."""
    judged: list[Judged] = []
    slots: list[Slot] = []
    store = Store(None)

    def on_judged(each: Judged) -> None:
        judged.append(each)
        slots.extend(list(detector._closed)[-1 if slots else 0 :])

    target = Target("default", "flights", "flights")
    detector = Detector(target, flights.profile(), config, store, on_judged=on_judged)
    replay(detector, store, events(flights))
    store.close()
    return judged, slots


def rejudged(flights: Year, slots: Sequence[Slot], config: DriftConfig) -> list[Judged]:
    """What other settings would have made of the same days."""
    profile = flights.profile()
    reference = Reference.of(profile, calibrate(profile, seconds=config.window_s))
    state, judged = Episodes(), []
    for stop in range(config.slots, len(slots) + 1):
        window = merged(slots[stop - config.slots : stop])
        verdict = judge(reference, window, config)
        ended = slots[stop - 1].started + _DAY_S
        state, decision = decide(state, verdict.is_drifted, verdict.is_calm, ended, config)
        judged.append(Judged(window, verdict, decision, None))
    return judged


def events(flights: Year) -> Iterator[CloudEvent]:
    """Requests, answers and labels in the order in which they come."""
    places = np.nonzero(flights.event_ms >= _ms(PERIOD.serving))[0]
    hours = flights.event_ms[places] // _HOUR_MS
    pending: list[tuple[float, CloudEvent]] = []
    for part in np.split(places, np.nonzero(np.diff(hours))[0] + 1):
        at = float(flights.event_ms[part[0]]) / 1000
        while pending and pending[0][0] <= at:
            yield pending.pop(0)[1]
        id = f"hour-{int(at)}"
        body, _ = v2_json.encode_request(
            InferRequest("flights", (Tensor.from_numpy("input-0", flights.features[part]),), id), binary=True
        )
        yield _event(REQUEST, id, at, body)
        answer = InferResponse("flights", (Tensor.from_numpy("predict", flights.predictions[part]),), id)
        yield _event(RESPONSE, id, at, v2_json.encode_response(answer)[0])
        labels = {"inferenceservice": "flights", "labels": flights.labels[part].tolist()}
        label = _event(LABEL, f"label-{id}", at + _DAY_S, json.dumps(labels).encode(), subject=id)
        pending.append((at + _DAY_S, label))
    yield from (event for _, event in pending)


def _event(type: str, id: str, at: float, data: bytes, **more: str) -> CloudEvent:
    attributes = {"specversion": "1.0", "id": id, "source": "/flights", "type": type, "time": moment(at)}
    service = {"inferenceservicename": "flights", "namespace": "default"}
    return CloudEvent({**attributes, **service, **more}, data)


def _utc(date: str) -> datetime:
    return datetime.fromisoformat(date).replace(tzinfo=timezone.utc)


def _ms(date: str) -> int:
    return int(_utc(date).timestamp() * 1000)
