from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug.spec.autoscaling_config import DEFAULTS, KEYS, AutoscalerConfig, parse, read


def test_knatives_defaults() -> None:
    assert parse({}) == AutoscalerConfig() == DEFAULTS
    assert (DEFAULTS.target_burst_capacity, DEFAULTS.max_scale_up_rate, DEFAULTS.stable_window_ns) == (
        211,
        1000,
        60 * 10**9,
    )
    assert len(KEYS) == 20


def test_a_percentage_may_be_a_fraction() -> None:
    key = "container-concurrency-target-percentage"
    fractions = [parse({key: text}).container_concurrency_target_fraction for text in ("80", "0.8", "1")]
    assert fractions == [0.8, 0.8, 1.0]


def test_keys_that_nobody_knows_are_ignored() -> None:
    assert parse({"_example": "…", "tick-interval": "2s"}) == DEFAULTS


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("stable-window", "5s", "stable-window = 5s, must be in [6s; 1h0m0s] range"),
        ("stable-window", "60.5s", "stable-window = 1m0.5s, must be specified with at most second precision"),
        ("scale-to-zero-grace-period", "0s", "scale-to-zero-grace-period must be positive, was: 0s"),
        ("scale-down-delay", "-1s", "scale-down-delay cannot be negative, was: -1s"),
        ("target-burst-capacity", "-2", "must be either non-negative or -1 (for unlimited), was: -2.000000"),
        ("container-concurrency-target-percentage", "0", "= 0.000000 is outside of valid range of (0, 100]"),
        ("container-concurrency-target-default", "0.001", "target concurrency of 0.0007, can't be less than 0.01"),
        ("requests-per-second-target-default", "0", "requests-per-second-target-default must be at least 0.01, was: 0"),
        ("activator-capacity", "0.5", "activator-capacity = 0.5, must be at least 1"),
        ("max-scale-up-rate", "1", "max-scale-up-rate = 1, must be greater than 1.0"),
        ("max-scale-down-rate", "1", "max-scale-down-rate = 1, must be greater than 1.0"),
        ("panic-window-percentage", "101", "panic-window-percentage = 101, must be in [1, 100] interval"),
        ("initial-scale", "0", "= 0, must be at least 0 (or at least 1 when allow-zero-initial-scale is false)"),
        ("min-scale", "-1", "min-scale = -1, must be at least 0"),
        ("max-scale-limit", "5", "max-scale = 0, must be in [1, max-scale-limit(5)] range"),
        ("max-scale-limit", "-1", "max-scale-limit = -1, must be at least 0"),
        ("max-scale", "x", 'failed to parse data: failed to parse "max-scale": strconv.ParseInt: parsing "x": invalid'),
        ("stable-window", "soon", 'failed to parse "stable-window": time: invalid duration "soon"'),
    ],
)  # fmt: skip
def test_what_knative_refuses(key: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse({key: value})
    assert words in error.value.message


def test_all_problems_are_found_at_once() -> None:
    _, problems = read({"max-scale-up-rate": "1", "min-scale": "-1", "activator-capacity": "0"})
    assert len(problems) == 3
    _, problems = read({"max-scale-up-rate": "x", "min-scale": "y"})
    assert len(problems) == 2


def test_zero_initial_scale_must_be_allowed() -> None:
    assert parse({"initial-scale": "0", "allow-zero-initial-scale": "true"}).initial_scale == 0


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=8) | st.integers().map(str)))
def test_any_text_is_answered(data: dict[str, str]) -> None:
    config, problems = read(data)
    assert isinstance(config, AutoscalerConfig)
    assert all(problems)
