"""What windows of the training time measure against the rest of it: the scale on which later windows are judged.

Block bootstrap in its plainest form: every run of consecutive blocks that is as long as a window is taken for one and
compared with the others, so that storms, weekdays and the season's slow turn are part of what is usual. Runs overlap;
what they are worth is how many fit side by side.
Source: H. Künsch, The Jackknife and the Bootstrap for General Stationary Observations, Ann. Stat. 17 (1989).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from glowplug.drift import measures
from glowplug.drift.grid import Counts
from glowplug.drift.profile import Doubles, Errors, Profile
from glowplug.drift.significance import t_survival

# Added before the logarithm: differences below it are none.
_FLOOR = 0.01
# What the logarithm varies by at the least: a tenth more or less is no drift, however regular the training days.
_MIN_SPREAD = 0.1
_SEED = 20130101


@dataclass(frozen=True)
class Null:
    """Logarithms of a measure over windows without drift: mean, spread, [features] or [1]; of `windows` windows."""

    mean: Doubles
    spread: Doubles
    windows: float

    def p_value(self, measured: Doubles, place: int = 0, *, noise: float = 0.0) -> float:
        """How often a further window without drift measures as much, or more.

        `noise` is a further variance of the logarithm, of the measurement itself.
        """
        distance = math.log(float(measured[place]) + _FLOOR) - float(self.mean[place])
        scale = math.sqrt(float(self.spread[place]) ** 2 * (1 + 1 / self.windows) + noise)
        return t_survival(distance / scale, self.windows - 1)


@dataclass(frozen=True)
class Nulls:
    """For windows of one length: of each feature, the prediction last; `error` of the mean absolute error."""

    psi: Null
    ks: Null
    missing: Null
    error: Null | None


def calibrate(profile: Profile, *, seconds: float = 0.0, rows: int = 0) -> Nulls:
    """The nulls for windows of so many seconds, or of so many rows.

    A window longer than a quarter of the training time is judged as one of a quarter; one shorter than a block as part
    of a block's rows, drawn at random.
    """
    count = len(profile.blocks)
    if rows:
        length = math.ceil(rows / max(1.0, profile.rows / count))
    else:
        length = round(seconds / profile.block_s)
    length = max(1, min(length, count // 4))
    runs = _runs(profile.blocks, length)
    rest = profile.blocks.sum(axis=0) - runs
    has_rows = runs[:, -1, :].sum(axis=-1) > 0
    runs, rest = runs[has_rows], rest[has_rows]
    windows = max(2.0, count / length)
    if rows:
        runs = _thinned(runs, rows)
    places = measures.bins(profile.blocks.sum(axis=0)[:, :-1])
    return Nulls(
        psi=_null(
            measures.psi(measures.binned(runs[..., :-1], places), measures.binned(rest[..., :-1], places)),
            windows,
        ),
        ks=_null(measures.ks(runs[..., :-1], rest[..., :-1]), windows),
        missing=_null(np.abs(measures.missing(runs) - measures.missing(rest)), windows),
        error=None if profile.errors is None else _error_null(profile.errors, length, windows),
    )


def _runs(blocks: Counts, length: int) -> Counts:
    """[blocks - length + 1, ...] sums of consecutive blocks."""
    sums = np.cumsum(np.concatenate([np.zeros_like(blocks[:1]), blocks]), axis=0)
    return np.asarray(sums[length:] - sums[:-length])


def _thinned(runs: Counts, rows: int) -> Counts:
    """Counts of `rows` of each run's rows, where it has more."""
    random = np.random.default_rng(_SEED)
    totals = runs.sum(axis=-1, keepdims=True)
    drawn = random.multinomial(rows, runs / np.maximum(1, totals))
    return np.asarray(np.where(totals > rows, drawn, runs))


def _null(measured: Doubles, windows: float) -> Null:
    logarithms = np.log(measured + _FLOOR)
    spread = logarithms.std(axis=0, ddof=1) if len(measured) > 1 else np.zeros(measured.shape[1:])
    return Null(logarithms.mean(axis=0), np.maximum(spread, _MIN_SPREAD), windows)


def _error_null(errors: Errors, length: int, windows: float) -> Null | None:
    rows = _runs(errors.rows, length)
    is_known = rows > 0
    means = _runs(errors.absolute, length)[is_known] / rows[is_known]
    if len(means) < 2 or not errors.level:
        return None
    spread = max(float(np.log(means + _FLOOR).std(ddof=1)), _MIN_SPREAD)
    # How days differ is told by all of them, how large errors are by those that the model was not fitted to.
    return Null(np.array([math.log(errors.level + _FLOOR)]), np.array([spread]), windows)
