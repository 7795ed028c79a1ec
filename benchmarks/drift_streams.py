"""Made-up streams for the drift detector: days that differ among themselves, and a change on a day that is known.

Ten features with a day's effect of their own (autoregressive, so that bad days come together) of `spread` times a row's
standard deviation, a prediction of them, and errors whose size varies with the days, too. Slots are filled as the
detector fills them; HTTP and the store are left out, which have no say in what is decided.
"""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from glowplug.drift.config import DriftConfig
from glowplug.drift.episodes import Episodes, decide
from glowplug.drift.grid import Table
from glowplug.drift.judge import Reference, judge
from glowplug.drift.nulls import calibrate
from glowplug.drift.profile import Profile
from glowplug.drift.significance import benjamini_hochberg
from glowplug.drift.slots import Slot, merged

FEATURES = 10
ROWS_A_DAY = 400
TRAINING_DAYS = 90
_DAY_S = 86400.0
_MEMORY = 0.6
_ERRORS_FOLLOW = 0.3
_START = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


@dataclass(frozen=True)
class Change:
    """From `day` on: every feature moved by so many standard deviations, errors so many times as large."""

    day: int
    shift: float = 0.0
    error_ratio: float = 1.0


class Stream:
    """Endless days of rows."""

    def __init__(self, spread: float, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._spread = spread
        self._effect = self._random.normal(size=FEATURES + 1)

    def day(self, shift: float = 0.0, error_ratio: float = 1.0) -> tuple[Any, Any, Any]:
        """Features [rows, FEATURES], predictions [rows], labels [rows]."""
        fresh = self._random.normal(size=FEATURES + 1)
        self._effect = _MEMORY * self._effect + (1 - _MEMORY**2) ** 0.5 * fresh
        noise = self._random.normal(size=(ROWS_A_DAY, FEATURES))
        features = (noise + self._spread * self._effect[:-1] + shift).astype(np.float32)
        predictions = features.mean(axis=1, dtype=np.float32)
        size = error_ratio * np.exp(_ERRORS_FOLLOW * self._spread * self._effect[-1])
        return features, predictions, predictions + size * self._random.normal(size=ROWS_A_DAY)


@dataclass(frozen=True)
class Watched:
    """What became of a stream: the days on which an episode opened, of so many that were judged."""

    opened: tuple[int, ...]
    days: int


def reference_of(spread: float, seed: int, config: DriftConfig) -> tuple[Reference, Stream]:
    """The reference of a training time, and the stream as it goes on."""
    stream = Stream(spread, seed)
    days = [stream.day() for _ in range(TRAINING_DAYS)]
    features, predictions, labels = (
        np.concatenate([day[part] for day in days]).astype(np.float32) for part in range(3)
    )
    names = [f"x{number}" for number in range(FEATURES)]
    ended = _START + datetime.timedelta(days=TRAINING_DAYS)
    profile = Profile.of(features, names, predictions, labels, started=_START, ended=ended)
    return Reference.of(profile, calibrate(profile, seconds=config.window_s)), stream


def watch(spread: float, seed: int, days: int, config: DriftConfig, change: Change | None = None) -> Watched:
    """A detector over `days` after training; with a change it ends at the first episode from then on."""
    reference, stream = reference_of(spread, seed, config)
    recent: deque[Slot] = deque(maxlen=config.slots)
    state, opened = Episodes(), []
    for number in range(days):
        is_changed = change is not None and number >= change.day
        shift, ratio = (change.shift, change.error_ratio) if change and is_changed else (0.0, 1.0)
        recent.append(slot_of(reference.profile.table, *stream.day(shift, ratio)))
        if len(recent) < config.slots:
            continue
        verdict = judge(reference, merged(recent), config)
        state, decision = decide(state, verdict.is_drifted, verdict.is_calm, number * _DAY_S, config)
        if decision.opened:
            opened.append(number)
            if is_changed:
                break
    return Watched(tuple(opened), days - config.slots + 1)


def slot_of(table: Table, features: Any, predictions: Any, labels: Any) -> Slot:
    """A day's counts."""
    slot = Slot.empty(table, 0.0, DriftConfig())
    counts = table.count([*features.T, predictions])
    slot.add_features(counts[:-1], "")
    slot.add_predictions(counts[-1])
    slot.add_errors(np.abs(predictions - labels))
    return slot


def textbook(spread: float, seed: int, days: int, rate: float = 0.05) -> Iterator[bool]:
    """Whether a day alarms by what is usually done: a KS test of each feature, Benjamini-Hochberg at `rate`."""
    stream = Stream(spread, seed)
    training = np.concatenate([stream.day()[0][:50] for _ in range(TRAINING_DAYS)])
    for _ in range(days):
        features, _, _ = stream.day()
        p_values = [
            float(stats.ks_2samp(features[:, place], training[:, place], method="asymp").pvalue)
            for place in range(FEATURES)
        ]
        yield any(benjamini_hochberg(p_values, rate))
