"""The gate: what isn't better never passes, each check fails on proof only, and every verdict has its reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.pipelines.gate.cases import evidence

from glowplug_pipelines.gate.checks import Check, Result
from glowplug_pipelines.gate.evidence import Cost
from glowplug_pipelines.gate.verdict import Verdict, judge
from glowplug_pipelines.settings import GateSettings

_GATE = GateSettings(resamples=500)


def check(verdict: Verdict, name: str) -> Check:
    return next(each for each in verdict.checks if each.name == name)


def test_better_passes_worse_fails_and_alike_is_neither() -> None:
    better, worse, alike = (judge(evidence(difference), _GATE) for difference in (-1.0, 1.0, 0.0))
    assert better.result is Result.PASS
    assert better.reason.startswith("better: loses less than champion 1: ")
    assert worse.result is Result.FAIL
    assert worse.reason.startswith("better: loses no less than champion 1: ")
    assert alike.result is Result.INCONCLUSIVE
    assert "cannot be told apart from champion 1" in alike.reason
    numbers = check(better, "better").numbers
    assert numbers["improvement"]["low"] > 0
    assert numbers["improvement"]["mean"] == pytest.approx(numbers["reference"] - numbers["challenger"])


def test_the_same_model_never_passes() -> None:
    same = evidence(0)
    verdict = judge(replace(same, losses=same.reference_losses), _GATE)
    assert verdict.result is Result.FAIL


@settings(max_examples=40, deadline=None)
@given(difference=st.floats(-2, 2), seed=st.integers(0, 10_000), days=st.integers(2, 20))
def test_two_models_never_pass_against_each_other(difference: float, seed: int, days: int) -> None:
    one = evidence(difference, days=days, seed=seed, rows_per_day=30)
    other = replace(
        one,
        losses=one.reference_losses,
        predictions=one.reference_predictions,
        reference_losses=one.losses,
        reference_predictions=one.predictions,
    )
    gate = GateSettings(resamples=200)
    results = [judge(each, gate).result for each in (one, other)]
    assert results.count(Result.PASS) <= 1
    assert judge(one, gate) == judge(one, gate)


def test_a_challenger_that_is_no_better_seldom_passes() -> None:
    """alpha is two-sided: 2.5 % are promised; beyond 14 of 200 with a chance of 1 in 1000."""
    passed = sum(
        judge(evidence(0, seed=seed, rows_per_day=40), _GATE).result is Result.PASS for seed in range(200)
    )
    assert passed <= 14


def test_the_least_improvement_counts() -> None:
    seen = evidence(-1.0)
    verdict = judge(seen, replace(_GATE, min_improvement_percent=30))
    assert verdict.result is Result.FAIL
    assert "must be above 3" in verdict.reason


def test_too_few_days_are_not_enough() -> None:
    verdict = judge(evidence(-5.0, days=4), _GATE)
    assert verdict.result is Result.INCONCLUSIVE
    assert verdict.reason == "better: 4 held-out days, must be 5 or more"
    single = judge(evidence(-5.0, days=1), replace(_GATE, max_bias=1))
    assert single.result is Result.INCONCLUSIVE


def test_a_slice_that_gets_worse_fails_a_better_model() -> None:
    seen = evidence(-1.5)
    losses = seen.losses.copy()
    losses[seen.slices["colour"] == "red"] += 3.5
    verdict = judge(replace(seen, losses=losses), _GATE)
    assert check(verdict, "better").result is Result.PASS
    assert verdict.result is Result.FAIL
    assert verdict.reason.startswith("slices: loses over 5 % more on colour red: ")
    assert [each["value"] for each in check(verdict, "slices").numbers["regressed"]] == ["red"]
    assert verdict.slices[0].value == "red"
    assert (
        judge(replace(seen, losses=losses), replace(_GATE, slice_tolerance_percent=60)).result is Result.PASS
    )


def test_slices_that_are_too_small_are_left_out() -> None:
    seen = evidence(-1.5)
    rare = np.where(np.arange(len(seen.losses)) % 60 == 0, "rare", "usual")
    losses = np.where(rare == "rare", seen.losses + 50, seen.losses)
    losses -= losses.mean() - seen.losses.mean()
    verdict = judge(replace(seen, losses=losses, slices={"kind": rare}), _GATE)
    assert [each.value for each in verdict.slices] == ["usual"]


def test_a_bias_beyond_the_limit_and_the_references_fails() -> None:
    seen = evidence(-1.0)
    biased = replace(seen, predictions=seen.labels - 4.0)
    assert judge(biased, _GATE).result is Result.PASS
    verdict = judge(biased, replace(_GATE, max_bias=2))
    assert verdict.result is Result.FAIL
    assert verdict.reason.startswith("calibration: bias +4.000 ")
    as_before = replace(biased, reference_predictions=seen.labels + 5.0)
    assert judge(as_before, replace(_GATE, max_bias=2)).result is Result.PASS


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_latency_ms": 0.4}, "latency: 0.500 ms for one row, must be up to 0.4"),
        (
            {"max_latency_ratio": 2.0},
            "latency: 0.500 ms for one row, 5.0 times the reference's, must be up to 2 times",
        ),
        ({"max_size_mb": 0.5}, "size: 1.00 MB, must be up to 0.5"),
    ],
)
def test_budgets(limit: dict[str, float], reason: str) -> None:
    seen = evidence(-1.0, reference_cost=Cost(0.1, 1))
    verdict = judge(seen, replace(_GATE, **{"max_latency_ratio": 0, **limit}))
    assert (verdict.result, verdict.reason) == (Result.FAIL, reason)
    free = replace(_GATE, max_latency_ratio=0)
    assert judge(seen, free).result is Result.PASS
    assert (
        judge(replace(seen, reference_cost=None), replace(_GATE, max_latency_ratio=0.01)).result
        is Result.PASS
    )


def test_without_a_reference_it_is_inconclusive_and_says_why() -> None:
    seen = evidence(-5.0)
    nothing = np.full(len(seen.losses), np.nan)
    verdict = judge(
        replace(seen, reference_losses=nothing, unjudged="champion 3 was taken away by hand"), _GATE
    )
    assert (verdict.result, verdict.reason) == (
        Result.INCONCLUSIVE,
        "better: champion 3 was taken away by hand",
    )


def test_a_verdict_comes_back_from_json() -> None:
    verdict = judge(evidence(-1.0), _GATE)
    read = Verdict.from_json(verdict.to_json())
    assert (read.result, read.reason, read.checks) == (verdict.result, verdict.reason, verdict.checks)
