"""Thresholds: what is understood, and what meets them."""

from __future__ import annotations

import numpy as np
import pytest

from glowplug.errors import ConfigError
from glowplug_loadtest.thresholds import judge, over_percent, parse

LATENCY = np.arange(1.0, 101.0)
ALL_OK = np.ones(100, dtype=bool)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99<200ms", ("latency", 99, 200)),
        ("p99.9 < 0.5s", ("latency", 99.9, 500)),
        ("p50<=20ms", ("latency", 50, 20)),
        ("errors<0.1%", ("errors", 0, 0.1)),
        ("over200ms<1%", ("over", 200, 1)),
    ],
)
def test_what_is_understood(text: str, expected: tuple[str, float, float]) -> None:
    (found,) = parse([text])
    assert (found.kind, found.at, found.limit) == expected
    assert found.text == text


def test_what_is_not_understood_is_told_all_at_once() -> None:
    with pytest.raises(ConfigError, match=r"p99, p99<200, errors<1ms, p100<1ms, p99>1ms") as error:
        parse(["p99", "p50<1ms", "p99<200", "errors<1ms", "p100<1ms", "p99>1ms"])
    assert "p99<200ms" in error.value.hint


def test_latencies_are_of_the_right_answers_and_failures_are_over_every_limit() -> None:
    is_ok = ALL_OK.copy()
    is_ok[-1] = False
    texts = ["p50<51ms", "p50<50ms", "errors<2%", "errors<1%", "over90ms<11%", "over90ms<10%"]
    verdicts = judge(parse(texts), LATENCY, is_ok)
    assert [verdict.is_met for verdict in verdicts] == [True, False, True, False, True, False]
    assert verdicts[0].value == 50
    # The failed one was quick.
    quick = LATENCY.copy()
    quick[-1] = 0.1
    assert over_percent(90, quick, is_ok) == 10
    assert "p50<50ms: measured 50 ms" in verdicts[1].spoken


def test_without_answers_no_threshold_is_met() -> None:
    nothing = np.array([])
    for latency, is_ok in ((nothing, nothing.astype(bool)), (LATENCY, ~ALL_OK)):
        (verdict,) = judge(parse(["p99<200ms"]), latency, is_ok)
        assert not verdict.is_met
        assert verdict.spoken.endswith("nothing was answered")
