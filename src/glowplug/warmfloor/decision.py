"""How high the floor should be: a pure function of settings, state, observation and time.

    floor = the larger of ⌈upper bound of the demand at now + start time + interval / target⌉ and the schedule's,
            within the bounds that the annotations set

It rises at once and falls only when it has been lower for as long as a pod takes to start: a pod that is let go and
is needed again within that time would have been better kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from . import forecast
from .forecast import Forecast, Model
from .settings import Settings
from .starts import StartTime

# Demand of less than a thousandth of a pod is none.
_NOTHING = 1e-3
_MIN_HOLD_S = 30.0
_SERVICE_DOWN, _SERVICE_UP, _SERVICE_MARGIN = 0.3, 1.01, 1.25


@dataclass(frozen=True)
class Demand:
    """The mean demand since the last decision, in units of the revision's metric.

    Of concurrency, `requests` is how many a second arrived; without it what waits cannot be told from what is served.
    """

    mean: float
    requests: float | None = None


@dataclass(frozen=True)
class Unmeasured:
    """Nobody knows the demand; `why` says what is missing."""

    why: str


@dataclass(frozen=True)
class State:
    """What a decision leaves for the next. `wanted` holds (time, floor) of late, falling, the oldest first."""

    model: Model = field(default_factory=Model)
    starts: StartTime = field(default_factory=StartTime)
    service_s: float | None = None
    forecast_floor: int = 0
    wanted: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Decision:
    """`floor` replicas, and why."""

    floor: int
    reason: str
    forecast: Forecast | None = None


def decide(
    settings: Settings,
    state: State,
    demand: Demand | Unmeasured,
    target: float,
    interval_s: float,
    now: float,
) -> tuple[State, Decision]:
    """One tick. `target` is the demand that one replica should have, `now` seconds since the epoch, never falling."""
    horizon_s = state.starts.mean_s + interval_s
    found: Forecast | None = None
    if isinstance(demand, Demand):
        service_s, mean = _offered(demand, state.service_s, settings.maximum * target)
        state = replace(state, service_s=service_s)
        model = forecast.observed(state.model, mean, now, settings.season_s, settings.quantile)
        model, found = forecast.forecast(
            model, now, horizon_s, interval_s, settings.season_s, settings.quantile
        )
        wanted = math.ceil(max(found.upper / target - _NOTHING, 0.0))
        wanted = min(wanted, settings.maximum)
        state = _held(replace(state, model=model), wanted, now, max(horizon_s, _MIN_HOLD_S))
        reason = _reason(found, target, horizon_s, wanted, state.forecast_floor)
    else:
        reason = f"{demand.why}: the forecast's {state.forecast_floor} stay"
    floor = state.forecast_floor
    entry = settings.schedule.between(now, now + horizon_s)
    if entry is not None and entry.replicas > floor:
        floor, reason = entry.replicas, f"schedule {entry.cron} = {entry.replicas}"
    bounded = min(max(floor, settings.minimum), settings.maximum)
    if bounded != floor:
        reason += (
            f"; {floor} {'raised to the minimum' if bounded > floor else 'cut to the maximum'} {bounded}"
        )
    return state, Decision(bounded, reason, found)


def _offered(demand: Demand, service_s: float | None, most: float) -> tuple[float | None, float]:
    """What a request takes when none waits, and the demand without those that wait.

    A queue is in the measured concurrency, and is far more than will come again. By Little's law the time that a
    request is there is concurrency / rate; without a queue it is the service time, which is followed down at once
    and up slowly.
    """
    mean = min(demand.mean, most)
    if not demand.requests:
        return service_s, mean
    there_s = demand.mean / demand.requests
    if service_s is None:
        service_s = there_s
    elif there_s < service_s:
        service_s += _SERVICE_DOWN * (there_s - service_s)
    else:
        service_s = min(there_s, service_s * _SERVICE_UP)
    return service_s, min(mean, demand.requests * service_s * _SERVICE_MARGIN)


def _held(state: State, wanted: int, now: float, hold_s: float) -> State:
    """The highest floor that was wanted within `hold_s`."""
    kept = [(at, floor) for at, floor in state.wanted if at > now - hold_s and floor > wanted]
    recent = (*kept, (now, wanted))
    return replace(state, wanted=recent, forecast_floor=recent[0][1])


def _reason(found: Forecast, target: float, horizon_s: float, wanted: int, held: int) -> str:
    season = "" if found.season is None else f", season {found.season:.3g} at {found.season_weight:.0%}"
    text = (
        f"demand of up to {found.upper:.3g} in {horizon_s:.0f} s (trend {found.trend:.3g}{season})"
        f" / target {target:.4g} = {wanted}"
    )
    return text if held == wanted else f"{text}; {held} were wanted a moment ago"
