"""The schedule: profiles as exact integrals, and arrivals that follow them whatever happens."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug_loadtest.arrivals import CONSTANT, POISSON, due_times
from glowplug_loadtest.profiles import BURSTY, PROFILES, RAMP, STEADY, Profile, Segment, profile_named

RATES = st.floats(0, 2000)
SEGMENTS = st.builds(Segment, st.floats(0.1, 300), RATES, RATES)
PROFILE = st.builds(
    lambda segments: Profile("any", tuple(segments)), st.lists(SEGMENTS, min_size=1, max_size=4)
)


def test_the_named_profiles_are_the_papers() -> None:
    assert [profile.duration_s for profile in (STEADY, BURSTY, RAMP)] == [300, 300, 300]
    assert [STEADY.count, BURSTY.count, RAMP.count] == [30_000, 84_000, 82_500]
    assert [BURSTY.rate_at(t) for t in (0, 59.9, 60, 119.9, 120, 299.9, 300)] == [
        100,
        100,
        1000,
        1000,
        100,
        100,
        0,
    ]
    assert [RAMP.rate_at(t) for t in (-1, 0, 150)] == [0, 50, 275]
    assert (BURSTY.steps_up(), RAMP.steps_up()) == ((60,), ())
    assert {name: profile_named(name) for name in PROFILES} == PROFILES
    with pytest.raises(ConfigError, match="wave") as error:
        profile_named("wave")
    assert "steady, bursty, ramp" in error.value.hint


@given(PROFILE, st.floats(0, 1))
def test_time_of_is_the_inverse_of_due_until(profile: Profile, share: float) -> None:
    count = profile.count * share
    assert profile.due_until(profile.time_of(count)) == pytest.approx(count, rel=1e-6, abs=1e-3)
    assert profile.time_of(profile.count * 1.01 + 1) == math.inf


@given(PROFILE, st.floats(0.01, 10), st.floats(0.01, 10))
def test_scaling_scales_rates_and_times(profile: Profile, scale: float, time_scale: float) -> None:
    scaled = profile.scaled(scale, time_scale)
    assert scaled.duration_s == pytest.approx(profile.duration_s * time_scale)
    assert scaled.count == pytest.approx(profile.count * scale * time_scale)


@given(PROFILE, st.floats(0.05, 1500))
def test_the_first_seconds_are_as_they_were(profile: Profile, duration_s: float) -> None:
    cut = profile.first(duration_s)
    assert cut.duration_s == pytest.approx(min(duration_s, profile.duration_s))
    assert cut.count == pytest.approx(profile.due_until(duration_s), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("scale", "time_scale"), [(0, 1), (-1, 1), (1, 0), (math.nan, 1), (1, math.inf)])
def test_scales_are_above_zero(scale: float, time_scale: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        STEADY.scaled(scale, time_scale)
    with pytest.raises(ConfigError, match="--duration"):
        STEADY.first(0)


def test_constant_arrivals_are_evenly_spaced_and_all_there() -> None:
    times = [due for _, due in due_times(STEADY.scaled(0.1, 0.1), CONSTANT, 1)]
    assert len(times) == 300
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps == pytest.approx([0.1] * 299)


def test_poisson_arrivals_follow_the_rate_and_vary_as_poisson_does() -> None:
    times = [due for _, due in due_times(BURSTY, POISSON, 7)]
    assert times == sorted(times)
    spike = sum(60 <= due < 120 for due in times)
    # Six standard deviations of a Poisson count.
    assert abs(spike - 60_000) < 6 * math.sqrt(60_000)
    assert abs(len(times) - 84_000) < 6 * math.sqrt(84_000)
    counts = [0] * 60
    for due in times:
        if 60 <= due < 120:
            counts[int(due) - 60] += 1
    mean = sum(counts) / 60
    variance = sum((count - mean) ** 2 for count in counts) / 59
    assert 0.4 < variance / mean < 2.0


@given(st.sampled_from([CONSTANT, POISSON]), st.integers(0, 10), st.integers(1, 5))
def test_several_senders_share_the_same_arrivals(kind: str, seed: int, of: int) -> None:
    profile = RAMP.scaled(0.02, 0.1)
    alone = list(due_times(profile, kind, seed))
    shared = [list(due_times(profile, kind, seed, index=index, of=of)) for index in range(of)]
    assert sorted(itertools.chain(*shared)) == alone
