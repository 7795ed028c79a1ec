from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.autoscaler import status
from glowplug.autoscaler.scaler import Standing, effective_bounds, scale
from glowplug.spec.autoscaling import RevisionScaling
from glowplug.spec.autoscaling_config import AutoscalerConfig, parse

S = 10**9
ACTIVE = Standing("True", 3600 * S, is_initialized=True, is_reachable=True)
INACTIVE = Standing("False", 3600 * S, True, True, proxied_for_ns=3600 * S, is_activator_probed=True)
NEW = Standing("Unknown", 0, is_initialized=False, is_reachable=True)
PLAIN = RevisionScaling()


def test_bounds() -> None:
    scaling = RevisionScaling(min_scale=2, max_scale=5)
    assert [scale(desired, ACTIVE, scaling).scale for desired in (0, 3, 9)] == [2, 3, 5]
    assert scale(9, ACTIVE, scaling).reason == "9 cut to max-scale 5"
    assert scale(0, replace(ACTIVE, is_reachable=False), scaling).scale == 0


def test_the_initial_scale_is_a_bound_until_it_was_reached() -> None:
    scaling = RevisionScaling(initial_scale=3)
    assert (scale(-1, NEW, scaling).scale, scale(1, NEW, scaling).scale) == (3, 3)
    assert scale(1, replace(NEW, is_initialized=True), scaling).scale == 1
    assert scale(1, replace(NEW, is_reachable=False), scaling).scale == 1


def test_nothing_is_done_before_anything_is_measured() -> None:
    want = scale(-1, ACTIVE, PLAIN)
    assert (want.scale, want.is_applied) == (-1, False)


def test_zero_takes_a_stable_window_of_activity() -> None:
    want = scale(0, replace(ACTIVE, active_for_ns=20 * S), PLAIN)
    assert (want.scale, want.is_applied, want.again_ns) == (1, True, 40 * S)
    want = scale(0, ACTIVE, PLAIN)
    assert (want.scale, want.is_applied) == (0, False)


def test_zero_takes_the_activators_answer() -> None:
    want = scale(0, replace(INACTIVE, is_activator_probed=False), PLAIN)
    assert (want.scale, want.is_applied, want.needs_probe) == (0, False, True)
    # With a boundless burst it is there always.
    boundless = RevisionScaling(burst_capacity=-1)
    assert scale(0, replace(INACTIVE, is_activator_probed=False), boundless).is_applied


def test_zero_takes_the_grace_period() -> None:
    young = replace(INACTIVE, active_for_ns=10 * S, proxied_for_ns=12 * S)
    assert scale(0, young, PLAIN).again_ns == 18 * S
    assert not scale(0, young, PLAIN).is_applied
    assert scale(0, replace(young, proxied_for_ns=30 * S), PLAIN).is_applied
    assert scale(0, replace(young, active_for_ns=30 * S), PLAIN).is_applied


def test_the_last_pod_is_kept_for_its_retention_period() -> None:
    kept = RevisionScaling(pod_retention_ns=90 * S)
    standing = replace(INACTIVE, active_for_ns=60 * S)
    assert (scale(0, standing, kept).is_applied, scale(0, standing, kept).again_ns) == (False, 30 * S)
    assert scale(0, replace(standing, is_reachable=False), kept).is_applied


def test_a_cluster_without_scale_to_zero_keeps_one() -> None:
    want = scale(0, INACTIVE, PLAIN, parse({"enable-scale-to-zero": "false"}))
    assert (want.scale, want.is_applied) == (1, True)


def test_a_revision_that_never_becomes_ready_ends_at_zero() -> None:
    late = replace(NEW, active_for_ns=630 * S)
    assert not scale(0, late, PLAIN).is_applied
    want = scale(0, replace(late, active_for_ns=631 * S), PLAIN)
    assert (want.scale, want.is_applied) == (0, True)
    assert status.status_of(0, 0, late, PLAIN).active == status.TIMED_OUT
    own = RevisionScaling(progress_deadline_ns=5 * S)
    assert scale(0, replace(NEW, active_for_ns=36 * S), own).is_applied


@pytest.mark.parametrize(
    ("want", "ready", "standing", "active"),
    [
        (0, 5, ACTIVE, status.NO_TRAFFIC), (2, 0, ACTIVE, status.QUEUED), (2, 1, ACTIVE, status.IS_ACTIVE),
        (-1, 0, INACTIVE, status.NO_TRAFFIC), (-1, 0, ACTIVE, status.QUEUED), (-1, 3, INACTIVE, None),
        (-1, 1, NEW, status.IS_ACTIVE), (1, 0, INACTIVE, status.QUEUED),
    ],
)  # fmt: skip
def test_the_active_condition(
    want: int, ready: int, standing: Standing, active: status.Statement | None
) -> None:
    assert status.status_of(want, ready, standing, PLAIN).active == active


def test_a_restart_does_not_forget_the_desired_scale() -> None:
    assert status.status_of(-1, 1, ACTIVE, PLAIN, previous_desired=3).desired == 3
    assert status.status_of(-1, 1, ACTIVE, PLAIN).desired == -1
    assert status.status_of(2, 1, ACTIVE, PLAIN, previous_desired=3).desired == 2


def test_a_revision_is_initialized_with_all_its_first_pods_and_a_service() -> None:
    scaling = RevisionScaling(initial_scale=3)
    found = [status.status_of(3, ready, NEW, scaling).is_initialized for ready in (2, 3)]
    assert found == [False, True]


def test_the_path_of_requests() -> None:
    assert [status.needs_activator(*pair) for pair in ((1, 0), (1, -1), (0, 50), (-1, 50))] == [
        False,
        True,
        True,
        True,
    ]


SCALINGS = st.builds(
    RevisionScaling, min_scale=st.none() | st.integers(0, 5), max_scale=st.sampled_from([None, 0, 1, 9]),
    initial_scale=st.none() | st.integers(0, 5), window_ns=st.none() | st.integers(6, 90).map(lambda s: s * S),
    pod_retention_ns=st.none() | st.integers(0, 90).map(lambda s: s * S), burst_capacity=st.sampled_from([None, -1, 0]),
)  # fmt: skip
STANDINGS = st.builds(
    Standing, active=st.sampled_from(["", "True", "False", "Unknown"]), active_for_ns=st.integers(0, 4000 * S),
    is_initialized=st.booleans(), is_reachable=st.booleans(),
    proxied_for_ns=st.none() | st.integers(0, 100 * S), is_activator_probed=st.booleans(),
)  # fmt: skip
CONFIGS = st.builds(AutoscalerConfig, enable_scale_to_zero=st.booleans(), min_scale=st.integers(0, 2))


@given(st.integers(-1, 20), STANDINGS, SCALINGS, CONFIGS)
def test_what_holds_always(
    desired: int, standing: Standing, scaling: RevisionScaling, config: AutoscalerConfig
) -> None:
    want = scale(desired, standing, scaling, config)
    bounds, _ = effective_bounds(standing, scaling, config)
    assert want.reason
    assert want.again_ns is None or want.again_ns > 0
    if want.is_applied:
        assert want.scale >= min(bounds.minimum, bounds.maximum or bounds.minimum)
        assert not bounds.maximum or want.scale <= max(bounds.maximum, bounds.minimum, 1)
        assert want.scale > 0 or config.enable_scale_to_zero
    if want.is_applied and want.scale == 0:
        assert standing.active in ("False", "Unknown") and bounds.minimum == 0
