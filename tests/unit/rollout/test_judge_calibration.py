"""The judge over whole rollouts, simulated with a fixed seed: how often it is wrong."""

from __future__ import annotations

import importlib.util
import math
import pathlib
import random
import sys
from collections import Counter

import numpy
import pytest

from glowplug.rollout.evidence import Evidence, Histogram, Sample
from glowplug.rollout.gates import DEFAULT_GATES, parse_gates
from glowplug.rollout.judge import Confidence
from glowplug.rollout.judge_gates import compare

# By path: the checkout's root must not be on sys.path, where its `transformers` would stand for the library's.
_PATH = pathlib.Path(__file__).parents[3] / "benchmarks" / "judge_simulation.py"
_SPEC = importlib.util.spec_from_file_location("judge_simulation", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
simulation = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = simulation
_SPEC.loader.exec_module(simulation)

STABLE = simulation.Version()
GATES = parse_gates(DEFAULT_GATES)


def ends(canary: object, rps: float, rollouts: int = 60, **options: object) -> Counter[str]:
    plan = simulation.Plan(GATES, interval_s=120, **options)
    return Counter(each.how for each in simulation.simulate(canary, STABLE, rps, plan, rollouts, seed=5))


def test_equal_versions_are_promoted_and_none_is_rolled_back() -> None:
    found = ends(STABLE, 500)
    assert found["rolled back"] == 0
    assert found["promoted"] >= 50


def test_equal_versions_whose_pods_stall_are_not_rolled_back() -> None:
    """Without a word for requests that were slow together, half of them were."""
    stalling = simulation.Version(stall_every_s=20)
    plan = simulation.Plan(GATES, interval_s=120)
    ended = simulation.simulate(stalling, stalling, 500, plan, 40, seed=5)
    assert "rolled back" not in {each.how for each in ended}


@pytest.mark.parametrize("worse", [simulation.Version(errors=0.011), simulation.Version(p99_factor=1.2)])
def test_worse_versions_are_rolled_back_and_none_is_promoted(worse: object) -> None:
    found = ends(worse, 500)
    assert found["promoted"] == 0
    assert found["rolled back"] >= 50


def test_too_few_requests_decide_nothing() -> None:
    for version in (STABLE, simulation.Version(errors=0.011)):
        assert set(ends(version, 1, 20)) == {"undecided"}


def test_a_bad_model_is_found_before_200_of_its_requests() -> None:
    plan = simulation.Plan(GATES)
    ended = simulation.simulate(simulation.Version(errors=0.1), STABLE, 100, plan, 60, seed=5)
    assert {each.how for each in ended} == {"rolled back"}
    assert sorted(each.canary_requests for each in ended)[55] <= 200


@pytest.mark.parametrize(
    ("gate", "canary"),
    [
        ("errors<=+0.5%", simulation.Version(errors=STABLE.errors + 0.005)),
        ("p99<=1.1x", simulation.Version(p99_factor=1.1)),
    ],
)
def test_on_the_very_margin_neither_is_said_more_often_than_allowed(gate: str, canary: object) -> None:
    """Where both errors are most likely, with budgets so large that they would be seen."""
    budget = 0.2
    confidence = Confidence(false_rollback=budget, false_promotion=budget, guards=0.001)
    plan = simulation.Plan(parse_gates(gate), steps=(30,), interval_s=1, patience=600, confidence=confidence)
    rollouts = 100
    found = Counter(each.how for each in simulation.simulate(canary, STABLE, 50, plan, rollouts, seed=5))
    allowed = rollouts * (budget + 3 * math.sqrt(budget * (1 - budget) / rollouts))
    assert found["rolled back"] <= allowed
    assert found["promoted"] <= allowed


def test_where_the_simulation_asks_nobody_the_judge_has_nothing_to_say() -> None:
    """The capital that numpy finds is never below the judge's."""
    rng = random.Random(2)
    bounds = tuple(0.01 * 1.2**n for n in range(20))
    sides = [(1.0, numpy.ones(21), numpy.ones(21), STABLE)] * 2
    step = simulation._Step(simulation.Plan(GATES), bounds, sides, None, is_equal=True)
    for _ in range(60):
        samples, times = [], []
        for mean in (rng.uniform(6, 9), rng.uniform(6, 9)):
            counts = [0] * 21
            for _ in range(rng.randrange(20, 3000)):
                counts[min(max(int(rng.gauss(mean, 3)), 0), 20)] += 1
            total = sum(counts)
            samples.append(
                Sample(total, round(total * rng.choice((0, 0.001, 0.02))), Histogram(bounds, tuple(counts)))
            )
            times.append(numpy.array([[counts]], float))
        errors = [numpy.array([[float(each.errors)]]) for each in samples]
        totals = [numpy.array([[float(each.requests)]]) for each in samples]
        for gate in GATES:
            alpha = 0.001
            comparison = compare(gate, Evidence(*samples))
            tails = [simulation._tails(each) for each in times]
            worse, within = (
                float(each[0, 0]) + math.log(alpha) for each in step._capital(gate, tails, errors, totals)
            )
            assert comparison.is_worse(alpha) <= worse + 1e-6
            assert comparison.is_within(alpha) <= within + 1e-6
