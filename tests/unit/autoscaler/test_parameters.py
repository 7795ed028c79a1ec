from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.autoscaler.parameters import (
    Bounds,
    Parameters,
    bounds_of,
    initial_scale,
    parameters_of,
    resolve_target,
    windows_of,
)
from glowplug.spec.autoscaling import GROUP as G
from glowplug.spec.autoscaling import RevisionScaling, scaling_of
from glowplug.spec.autoscaling_config import parse

NOTHING = RevisionScaling()
S = 10**9


def test_a_revision_that_says_nothing() -> None:
    assert parameters_of(NOTHING, 0, True) == Parameters(target=70, total=100)
    windows = windows_of(NOTHING)
    assert (windows.stable_ns, windows.panic_ns, windows.is_weighted, windows.is_scraped) == (
        60 * S,
        6 * S,
        False,
        True,
    )
    assert (bounds_of(NOTHING, True), initial_scale(NOTHING)) == (Bounds(0, 0), 1)


@pytest.mark.parametrize(
    ("annotations", "concurrency", "target", "total"),
    [
        ({}, 4, 2.8, 4),
        ({"target": "10"}, 4, 2.8, 4),
        ({"target": "2"}, 4, 1.4, 2),
        ({"target": "10", "target-utilization-percentage": "100"}, 0, 10, 10),
        ({"metric": "rps"}, 4, 140, 200),
        ({"metric": "rps", "target": "10"}, 4, 7, 10),
        ({"target": "0.01", "target-utilization-percentage": "10"}, 0, 0.01, 0.01),
    ],
)
def test_targets(annotations: dict[str, str], concurrency: int, target: float, total: float) -> None:
    scaling = scaling_of({f"{G}/{key}": value for key, value in annotations.items()})
    assert resolve_target(scaling, concurrency) == pytest.approx((target, total))


def test_an_unreachable_revision_has_no_least_number_of_pods() -> None:
    scaling = RevisionScaling(min_scale=3, max_scale=5)
    assert (bounds_of(scaling, True), bounds_of(scaling, False)) == (Bounds(3, 5), Bounds(0, 5))
    config = parse({"min-scale": "2", "max-scale": "4"})
    assert bounds_of(NOTHING, True, config) == Bounds(2, 4)


def test_zero_initial_scale_needs_the_clusters_consent() -> None:
    zero = RevisionScaling(initial_scale=0)
    assert initial_scale(zero) == 1
    assert initial_scale(zero, parse({"allow-zero-initial-scale": "true"})) == 0


def test_windows() -> None:
    found = windows_of(scaling_of({f"{G}/window": "65s", f"{G}/target-burst-capacity": "-1"}))
    assert (found.stable_ns, found.panic_ns, found.is_scraped) == (65 * S, 7 * S, False)
    assert windows_of(scaling_of({f"{G}/window": "6s", f"{G}/panic-window-percentage": "1"})).panic_ns == S
    assert windows_of(scaling_of({f"{G}/metricAggregationAlgorithm": "weightedExponential"})).is_weighted


@given(
    st.floats(0.01, 1e9) | st.none(), st.floats(1, 100) | st.none(), st.integers(0, 1000),
    st.sampled_from(["rps", "concurrency"]),
)  # fmt: skip
def test_a_target_is_within_what_a_pod_takes(
    target: float | None, percentage: float | None, concurrency: int, metric: str
) -> None:
    scaling = RevisionScaling(metric=metric, target=target, utilization_percentage=percentage)
    found, total = resolve_target(scaling, concurrency)
    assert 0.01 <= found <= max(total, 0.01)
    if metric == "concurrency" and concurrency:
        assert total <= concurrency
