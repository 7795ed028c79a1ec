"""How much demand there will be a start time from now: an upper bound, learned online in bounded memory.

Two forecasts of the demand at exactly one horizon, each made into an upper bound by the quantile of its own errors at
that horizon, as conformal prediction does it (Gibbs & Candès, Adaptive Conformal Inference, 2021):

- trend: Holt's linear method with a damped trend (Gardner & McKenzie, 1985), from the last minutes only;
- season: the demand at the same time of earlier seasons (seasonal naive, averaged exponentially), times how much
  more or less than usual there was of late. A season has 288 slots, five minutes of a day, and of a slot the
  highest demand is kept, so that what is shorter than a slot is not averaged away.

They are mixed by their pinball losses, the proper score of a quantile: who missed less often at less cost weighs more.
Where demand does not repeat itself the trend is left, and the other way round. Pure: time and demand are arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

SLOTS = 288
_LEVEL, _TREND, _DAMPING = 0.35, 0.08, 0.95
_SEASON_WEIGHT = 0.5  # of the newest season against all before
_RATIO_DECAY = 0.8
_RATIO_BOUNDS = (0.5, 2.0)
_ERRORS = 240  # kept for the quantile: 20 minutes of ticks of 5 s
_MIN_ERRORS = 30
_LOSS_WEIGHT = 0.01
_MAX_PENDING = 512
_NEVER = -1.0


@dataclass(frozen=True)
class Expert:
    """One forecast's record: its last errors, in units of √(forecast + 1), and its mean pinball loss."""

    errors: tuple[float, ...] = ()
    loss: float = _NEVER

    def upper(self, point: float, quantile: float) -> float:
        """The bound that `quantile` of the demand has stayed below when the forecast was like `point`."""
        if len(self.errors) < _MIN_ERRORS:
            return point
        ordered = sorted(self.errors)
        rank = min(math.ceil(quantile * (len(ordered) + 1)), len(ordered)) - 1
        return max(point + ordered[rank] * math.sqrt(point + 1.0), 0.0)

    def judged(self, point: float, upper: float, demand: float, quantile: float) -> Expert:
        """After it had said `point` and `upper` and `demand` came."""
        error = round((demand - point) / math.sqrt(point + 1.0), 3)
        over = demand - upper
        loss = quantile * over if over > 0 else (quantile - 1) * over
        mean = loss if self.loss == _NEVER else self.loss + _LOSS_WEIGHT * (loss - self.loss)
        return Expert((*self.errors[-_ERRORS + 1 :], error), mean)


@dataclass(frozen=True)
class Guess:
    """What was said of the demand at `due`, seconds; `season` is None where no season was known."""

    due: float
    trend: tuple[float, float]
    season: tuple[float, float] | None


@dataclass(frozen=True)
class Model:
    """What is known of a demand. `slots` has its height in each slot of a season, -1 where it was never seen."""

    slots: tuple[float, ...] = (_NEVER,) * SLOTS
    slot: int | None = None
    peak: float = 0.0
    recent: tuple[float, float] = (0.0, 0.0)
    level: float = 0.0
    slope: float = 0.0
    seen_at: float | None = None
    trend: Expert = Expert()
    season: Expert = Expert()
    guesses: tuple[Guess, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """An upper bound of the demand, and what it was made of."""

    upper: float
    trend: float
    season: float | None
    season_weight: float


def observed(model: Model, demand: float, now: float, season_s: float, quantile: float) -> Model:
    """The model after a mean `demand` was measured for the time since the last call, until `now`."""
    model = _judged(model, demand, now, quantile)
    model = _slotted(model, demand, now, season_s)
    return _holt(model, demand, now)


def forecast(
    model: Model, now: float, horizon_s: float, step_s: float, season_s: float, quantile: float
) -> tuple[Model, Forecast]:
    """The demand from `horizon_s` until `step_s` later, and the model that remembers having said so."""
    trend_point = _trend_point(model, horizon_s + step_s / 2, step_s)
    trend_upper = model.trend.upper(trend_point, quantile)
    due = now + horizon_s
    season_point = _season_point(model, due, due + step_s, season_s)
    season: tuple[float, float] | None = None
    upper, weight = trend_upper, 0.0
    if season_point is not None:
        season = season_point, model.season.upper(season_point, quantile)
        weight = _weight(model)
        upper = weight * season[1] + (1 - weight) * trend_upper
    guess = Guess(due, (trend_point, trend_upper), season)
    model = replace(model, guesses=(*model.guesses, guess)[-_MAX_PENDING:])
    return model, Forecast(upper, trend_upper, season[1] if season else None, weight)


def _judged(model: Model, demand: float, now: float, quantile: float) -> Model:
    due = [guess for guess in model.guesses if guess.due <= now]
    if not due:
        return model
    trend, season = model.trend, model.season
    # Only the last one: after a pause the others were about a time that nobody measured.
    guess = due[-1]
    trend = trend.judged(*guess.trend, demand, quantile)
    if guess.season is not None:
        season = season.judged(*guess.season, demand, quantile)
    return replace(model, trend=trend, season=season, guesses=model.guesses[len(due) :])


def _slotted(model: Model, demand: float, now: float, season_s: float) -> Model:
    slot = _slot(now, season_s)
    if slot == model.slot:
        return replace(model, peak=max(model.peak, demand))
    if model.slot is None:
        return replace(model, slot=slot, peak=demand)
    place = model.slot % SLOTS
    before, peak = model.slots[place], model.peak
    learned = peak if before == _NEVER else before + _SEASON_WEIGHT * (peak - before)
    recent = model.recent
    if before != _NEVER:
        recent = recent[0] * _RATIO_DECAY + peak, recent[1] * _RATIO_DECAY + before
    slots = (*model.slots[:place], round(learned, 4), *model.slots[place + 1 :])
    return replace(model, slots=slots, slot=slot, peak=demand, recent=recent)


def _holt(model: Model, demand: float, now: float) -> Model:
    if model.seen_at is None:
        return replace(model, level=demand, slope=0.0, seen_at=now)
    expected = model.level + _DAMPING * model.slope
    level = expected + _LEVEL * (demand - expected)
    slope = _DAMPING * model.slope + _TREND * (level - model.level - _DAMPING * model.slope)
    return replace(model, level=level, slope=slope, seen_at=now)


def _trend_point(model: Model, ahead_s: float, step_s: float) -> float:
    """level + (φ + φ² + … + φᵏ)·slope for k steps."""
    steps = max(round(ahead_s / step_s), 1)
    damped = _DAMPING * (1 - _DAMPING**steps) / (1 - _DAMPING)
    return max(model.level + damped * model.slope, 0.0)


def _season_point(model: Model, start: float, end: float, season_s: float) -> float | None:
    first, last = _slot(start, season_s), _slot(end, season_s)
    found = [model.slots[slot % SLOTS] for slot in range(first, min(last, first + SLOTS) + 1)]
    known = [value for value in found if value != _NEVER]
    if not known:
        return None
    low, high = _RATIO_BOUNDS
    ratio = min(max(model.recent[0] / model.recent[1], low), high) if model.recent[1] > 0 else 1.0
    return ratio * max(known)


def _weight(model: Model) -> float:
    """Of the season, from 0 to 1; as much as of the trend until it was judged."""
    if model.season.loss == _NEVER or model.trend.loss == _NEVER:
        return 0.5
    trend, season = model.trend.loss**2, model.season.loss**2
    return trend / (trend + season) if trend + season > 0 else 0.5


def _slot(moment: float, season_s: float) -> int:
    return math.floor(moment / season_s * SLOTS)
