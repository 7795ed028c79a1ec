"""The forecast, in virtual time."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from glowplug.warmfloor.forecast import SLOTS, Forecast, Model, forecast, observed

STEP, HORIZON, QUANTILE = 5.0, 35.0, 0.9


def told(
    model: Model, demand: list[float], season_s: float, start: float = 0.0
) -> tuple[Model, list[Forecast]]:
    found = []
    for tick, value in enumerate(demand):
        now = start + tick * STEP
        model = observed(model, value, now, season_s, QUANTILE)
        model, each = forecast(model, now, HORIZON, STEP, season_s, QUANTILE)
        found.append(each)
    return model, found


def test_a_steady_demand_is_forecast_as_it_is() -> None:
    _, found = told(Model(), [20.0] * 200, 3600)
    assert math.isclose(found[-1].upper, 20.0, rel_tol=0.01)


def test_a_rising_demand_is_forecast_higher_than_it_is() -> None:
    _, found = told(Model(), [0.2 * tick for tick in range(200)], 86400)
    # A horizon later it will be 1.4 more; at the quantile not less than nearly all of it.
    assert found[-1].upper > 0.2 * 199 + 1.2


def wave(ticks: int, period: int) -> list[float]:
    """A square: nothing in its first half, 30 in the second."""
    return [30.0 if tick % period >= period // 2 else 0.0 for tick in range(ticks)]


def test_a_season_is_known_before_it_comes() -> None:
    period = 720  # an hour of steps of 5 s
    model, _ = told(Model(), wave(3 * period, period), 3600)
    _, found = told(model, wave(period, period), 3600, 3 * 3600.0)
    edge = period // 2
    assert found[edge - 60].upper < 5
    assert found[edge - int(HORIZON / STEP)].upper > 25, "a horizon ahead of the step"
    without, _ = told(Model(), [0.0] * edge, 3600)
    _, unaware = told(without, [0.0], 3600, edge * STEP)
    assert unaware[-1].upper < 1


def test_a_season_that_does_not_repeat_loses_its_weight() -> None:
    steady = [10.0] * 720
    spike = [10.0] * 300 + [40.0] * 12 + [10.0] * 408
    model, _ = told(Model(), spike, 3600)
    model, found = told(model, steady * 3, 3600, 3600.0)
    assert found[-1].upper < 15
    assert model.season.loss >= 0 and model.trend.loss >= 0


def test_the_days_height_carries_over() -> None:
    model, _ = told(Model(), [10.0] * 720 * 2, 3600)
    _, found = told(model, [15.0] * 720, 3600, 7200.0)
    assert found[-1].season is not None and found[-1].season > 13


@given(st.lists(st.floats(0, 1e6), max_size=80), st.floats(60, 1e6))
def test_it_is_finite_and_bounded_whatever_comes(demand: list[float], season_s: float) -> None:
    model, found = told(Model(), demand, season_s)
    assert all(math.isfinite(each.upper) and each.upper >= 0 for each in found)
    assert len(model.slots) == SLOTS and len(model.guesses) <= 512


def test_memory_is_bounded() -> None:
    model, _ = told(Model(), [1.0] * 2000, 3600)
    assert len(model.guesses) <= HORIZON / STEP + 1
    assert max(len(model.trend.errors), len(model.season.errors)) <= 240


def test_a_pause_is_no_error() -> None:
    model, _ = told(Model(), [5.0] * 100, 3600)
    errors = len(model.trend.errors)
    model, found = told(model, [5.0], 3600, 50_000.0)
    assert len(model.trend.errors) <= errors + 1
    assert found[-1].upper < 6
