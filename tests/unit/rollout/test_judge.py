"""Verdicts on given evidence: what fails, what passes, what cannot be said, and why."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.rollout.evidence import Evidence, Histogram, Moments, NoEvidence, Sample
from glowplug.rollout.gates import DEFAULT_GATES, parse_gates
from glowplug.rollout.judge import Confidence, guards, judge
from glowplug.rollout.judge_gates import Tail, compare
from glowplug.rollout.sums import reading, sum_of
from glowplug.rollout.verdict import Outcome, Verdict
from glowplug.router.responses import BOUNDS_US

BOUNDS = tuple(bound / 1e6 for bound in BOUNDS_US)
GATES = parse_gates(DEFAULT_GATES)
NOTHING = NoEvidence("not asked")


def latencies(requests: int, median_s: float = 0.05, sigma: float = 0.5) -> Histogram:
    """Lognormal, each bucket with its share, none by chance."""
    shares = [0.5 * math.erfc(-math.log(bound / median_s) / sigma / math.sqrt(2)) for bound in BOUNDS]
    upto = [round(requests * share) for share in shares] + [requests]
    return Histogram(BOUNDS, tuple(b - a for a, b in zip([0, *upto], upto, strict=False)))


def sample(requests: int, errors: float = 0.0, median_s: float = 0.05, sigma: float = 0.5) -> Sample:
    return Sample(requests, round(requests * errors), latencies(requests, median_s, sigma))


def verdict(
    canary: Sample, stable: Sample, text: str = DEFAULT_GATES, recent: Evidence | None = None
) -> Verdict:
    return judge(parse_gates(text), Evidence(canary, stable), recent or NOTHING, steps=3)


def test_equal_versions_pass_with_their_numbers() -> None:
    found = verdict(sample(20_000, 0.001), sample(180_000, 0.001))
    assert found.outcome is Outcome.PASS
    errors, p50, p99 = found.gates
    assert errors.observed == errors.compared == pytest.approx(0.001)
    assert errors.limit == pytest.approx(0.006)
    assert errors.low is not None and errors.high is not None and errors.low < 0.001 < errors.high < 0.003
    assert p50.observed == pytest.approx(0.05, rel=0.05)
    assert p99.limit == pytest.approx(1.1 * 0.16, rel=0.05)
    assert "p99 16" in found.reason
    assert "20,000 requests" in found.reason
    json.dumps(found.as_json())


@pytest.mark.parametrize(
    ("canary", "gate"),
    [
        (sample(20_000, 0.011), "errors"),
        (sample(20_000, 0.001, median_s=0.06), "p50"),
        (sample(20_000, 0.001, sigma=0.58), "p99"),
    ],
)
def test_what_is_worse_fails_by_its_gate(canary: Sample, gate: str) -> None:
    found = verdict(canary, sample(180_000, 0.001))
    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith(gate)
    failed = [result.gate.partition("<=")[0] for result in found.gates if result.outcome is Outcome.FAIL]
    assert gate in failed


def test_90_requests_never_suffice_for_a_99th_percentile_and_it_says_so() -> None:
    found = verdict(sample(90), sample(810), "p99<=1.1x")
    assert found.outcome is Outcome.INCONCLUSIVE
    (gate,) = found.gates
    assert gate.minimum > 300
    assert gate.needed is not None and gate.needed >= gate.minimum
    assert f"90 requests never suffice, it takes {gate.minimum} at best" in found.reason


def test_what_is_needed_is_about_what_it_takes() -> None:
    found = verdict(sample(2_000, 0.001), sample(18_000, 0.001))
    assert found.outcome is Outcome.INCONCLUSIVE
    needed = max(gate.needed or 0 for gate in found.gates)
    assert verdict(sample(2 * needed, 0.001), sample(18 * needed, 0.001)).outcome is Outcome.PASS
    half = needed // 2
    assert verdict(sample(half, 0.001), sample(9 * half, 0.001)).outcome is Outcome.INCONCLUSIVE


def test_close_to_the_limit_more_requests_are_not_promised_to_help() -> None:
    found = verdict(sample(10_000, 0.006), sample(90_000, 0.001), "errors<=+0.5%")
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.gates[0].needed is None
    assert "so close to the limit" in found.reason


def test_ten_percent_of_errors_fail_well_within_200_requests() -> None:
    requests = next(
        n for n in range(1, 201) if verdict(sample(n, 0.1), sample(9 * n, 0.001)).outcome is Outcome.FAIL
    )
    assert requests <= 100


def test_a_burst_after_a_long_good_time_fails_by_the_last_seconds() -> None:
    """90 % errors for two seconds, after ten good minutes: of the whole step they are 0.3 %."""
    recent = Evidence(sample(10, 0.9), sample(90, 0.001))
    good = sample(3_000), sample(27_000)
    assert verdict(*good, recent=Evidence(sample(10), sample(90))).outcome is not Outcome.FAIL
    found = verdict(*good, recent=recent)
    assert found.outcome is Outcome.FAIL
    assert found.is_urgent
    assert "in the last seconds errors 90.00 % against 0.00 %" in found.reason


def test_errors_of_both_sides_alike_are_not_the_canary_s() -> None:
    found = verdict(
        sample(3_000, 0.5), sample(27_000, 0.5), recent=Evidence(sample(50, 0.5), sample(450, 0.5))
    )
    assert found.outcome is not Outcome.FAIL


def test_a_cliff_of_latency_fails_also_without_a_gate_on_latency() -> None:
    recent = Evidence(sample(40, median_s=0.5), sample(360))
    found = verdict(sample(3_000), sample(27_000), "errors<=+0.5%", recent)
    assert found.outcome is Outcome.FAIL
    assert found.is_urgent
    assert "p50 " in found.reason
    slower = Evidence(sample(40, median_s=0.1), sample(360))
    assert not verdict(sample(3_000), sample(27_000), "errors<=+0.5%", slower).is_urgent


def test_guardrails_are_not_stricter_than_the_gates() -> None:
    assert [gate.text for gate in guards(parse_gates("p99<=1.1x"))] == ["errors<=+5%", "p50<=3x"]
    assert [gate.text for gate in guards(parse_gates("errors<=+0.5%"))] == ["errors<=+0.5%", "p50<=3x"]
    assert [gate.text for gate in guards(parse_gates("errors<=20%, p50<=8x"))] == ["errors<=+20%", "p50<=8x"]


@pytest.mark.parametrize(
    ("canary", "stable", "side"),
    [
        (Sample(), sample(500), "canary"),
        (sample(500), Sample(), "stable revision"),
        (Sample(), Sample(), "canary"),
    ],
)
def test_without_requests_nothing_is_said(canary: Sample, stable: Sample, side: str) -> None:
    found = verdict(canary, stable, recent=Evidence(canary, stable))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert f"no requests of the {side}" in found.reason


def test_without_evidence_the_reason_is_told() -> None:
    found = judge(GATES, NoEvidence("Prometheus is away"), NoEvidence("Prometheus is away"), steps=3)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == "nothing is measured: Prometheus is away"


def test_ceilings_need_no_stable_revision() -> None:
    assert verdict(sample(5_000, 0.001), Sample(), "errors<=1%, p99<=250ms").outcome is Outcome.PASS
    assert verdict(sample(5_000, 0.03), Sample(), "errors<=1%").outcome is Outcome.FAIL
    assert verdict(sample(5_000, 0.0), Sample(), "p99<=100ms").outcome is Outcome.FAIL


def losses(count: int, mean: float) -> Sample:
    return Sample(count, 0, loss=Moments(count, mean, count * 1.0))


def test_losses_are_compared_where_labels_are_known() -> None:
    assert verdict(losses(20_000, 2.0), losses(20_000, 2.0), "loss<=1.05x").outcome is Outcome.PASS
    assert verdict(losses(20_000, 2.3), losses(20_000, 2.0), "loss<=1.05x").outcome is Outcome.FAIL
    few = verdict(losses(99, 9.0), losses(20_000, 2.0), "loss<=1.05x")
    json.dumps(verdict(losses(1, 9.0), losses(2, 2.0), "loss<=1.05x").as_json(), allow_nan=False)
    assert few.outcome is Outcome.INCONCLUSIVE
    assert "no labels of the canary" in verdict(sample(10), sample(10), "loss<=1.05x").reason
    assert verdict(losses(20_000, 0.2), Sample(), "loss<=0.3").outcome is Outcome.PASS


def test_what_a_coarse_histogram_hides_is_told() -> None:
    """Knative's buckets: 0.1 to 0.25 s is one."""
    histogram = Histogram((0.1, 0.25, 0.5), (9_500, 500, 0, 0))
    side = Sample(10_000, 0, histogram)
    found = verdict(side, side, "p99<=1.1x")
    assert found.outcome is Outcome.PASS
    assert "as far as can be seen between 100 ms and 250 ms" in found.reason
    assert "as far as" not in verdict(sample(20_000), sample(180_000)).reason


def in_seconds(seconds: int, requests: int, *, stalled: int = 0, sigma: float = 0.5) -> Sample:
    """So many readings of so many requests each; in those that are stalled every answer takes three times as long."""
    parts = []
    for second in range(seconds):
        one = latencies(requests, 0.15 if second < stalled else 0.05, sigma)
        parts.append(Evidence(Sample(requests, 0, reading(one.bounds_s, one.counts))))
    return sum_of(parts).canary


def test_requests_that_were_slow_together_count_for_less() -> None:
    """One second of twenty: nothing that the next twenty may not do to the other side."""
    stable = in_seconds(20, 1800)
    stalled = in_seconds(20, 200, stalled=1)
    assert verdict(stalled, stable, "p99<=1.1x").outcome is Outcome.INCONCLUSIVE
    blind = [Sample(s.requests, 0, replace(s.latency, readings=0, spread=())) for s in (stalled, stable)]
    assert judge(parse_gates("p99<=1.1x"), Evidence(*blind), NOTHING, steps=3).outcome is Outcome.FAIL
    assert Tail.of(stalled.latency).dispersion(0.17) > 5
    assert Tail.of(stable.latency).dispersion(0.17) == 1
    # As many slow ones, in all seconds alike, are the version's own.
    assert verdict(in_seconds(60, 200, sigma=0.7), in_seconds(60, 1800), "p99<=1.1x").outcome is Outcome.FAIL


def test_the_first_seconds_of_a_canary_are_not_taken_for_all() -> None:
    cold, stable = in_seconds(2, 50, stalled=2), in_seconds(2, 450)
    assert not verdict(cold, stable, recent=Evidence(cold, stable)).is_urgent
    cliff, stable = in_seconds(15, 50, stalled=15), in_seconds(15, 450)
    assert verdict(cliff, stable, "p50<=1.1x").outcome is Outcome.FAIL


@given(st.data())
def test_it_never_both_fails_and_passes(data: st.DataObject) -> None:
    """Whatever the evidence; and the verdict is what its gates are."""
    counts = st.lists(st.integers(0, 200), min_size=4, max_size=4).map(tuple)

    def side() -> Sample:
        histogram = Histogram((0.01, 0.02, 0.05), data.draw(counts))
        requests = sum(histogram.counts)
        return Sample(requests, data.draw(st.integers(0, requests)), histogram)

    evidence = Evidence(side(), side())
    found = judge(GATES, evidence, evidence, steps=3)
    if not found.is_urgent:
        outcomes = {result.outcome for result in found.gates}
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS):
            if outcome in outcomes:
                assert found.outcome is outcome
                break
    for gate in GATES:
        comparison = compare(gate, evidence)
        assert not (comparison.is_worse(0.01) >= 0 and comparison.is_within(0.05) >= 0)
        if comparison.observed() is not None:
            low, high = comparison.bounds(0.025)
            assert low <= comparison.observed()[0] + 1e-6  # type: ignore[index]
            assert high >= comparison.observed()[0] - 1e-6  # type: ignore[index]


@given(st.lists(st.integers(0, 50), min_size=5, max_size=5), st.floats(0.01, 0.99))
def test_quantiles_are_read_as_prometheus_reads_them(counts: list[int], quantile: float) -> None:
    tail = Tail.of(Histogram((0.1, 0.2, 0.4, 0.8), tuple(counts)))
    if not sum(counts):
        return
    found = tail.quantile(quantile)
    assert tail.over(found) == pytest.approx(sum(counts) * (1 - quantile), abs=1e-6)
    assert 0 <= found <= 1.6


def test_the_budget_is_split_over_all_that_may_fail() -> None:
    confidence = Confidence()
    looks = 10_000
    total = 3 * 3 * confidence.fail_alpha(3, 3) + 2 * looks * confidence.window_alpha
    assert total == pytest.approx(confidence.false_rollback)


def test_equal_versions_at_random_are_judged_in_milliseconds() -> None:
    """The judge is asked each second for each rollout; a hundred times that long would still do."""
    import time

    rng = random.Random(1)
    evidence = Evidence(sample(rng.randrange(500, 2000), 0.001), sample(9_000, 0.001))
    start = time.process_time()
    for _ in range(20):
        judge(GATES, evidence, evidence, steps=3)
    assert (time.process_time() - start) / 20 < 0.1
