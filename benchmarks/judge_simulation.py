"""Rollouts in virtual time: requests by Poisson, the real judge, a look each second.

Which second decides is found in two ways at once, so that thousands of rollouts take a minute. The capital that the
judge wants is the least over all values that the stable revision may have; numpy finds the capital for one of them,
the observed one, for all rollouts and seconds together. Where that is too little, so is the least. Only where it is
enough is the judge itself asked. Where versions are not equal, or stall, it is then asked again when there are 1 %
more requests.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy

from glowplug.rollout.evidence import Evidence, Histogram, Sample
from glowplug.rollout.gates import ERRORS, Gate
from glowplug.rollout.judge import Confidence, guards, judge
from glowplug.rollout.judge_gates import compare
from glowplug.rollout.sequential import CANARY_KEPT, DOWN, STABLE_KEPT, UP
from glowplug.rollout.verdict import Outcome
from glowplug.router.responses import BOUNDS_US

PROMOTED, ROLLED_BACK, UNDECIDED = "promoted", "rolled back", "undecided"
WINDOW_S = 15
_CHUNK_S = 60
# Standard errors, for looks that the observed value alone would have decided.
_SHIFTS = (0.7, 1.4, 2.1, 2.8, 3.5)

_CONFIDENCE = Confidence()
Array = Any


@dataclasses.dataclass(frozen=True)
class Version:
    """How a version answers: the share of errors, and latencies, lognormal; above the median the logarithm is stretched
    so that the 99th percentile is `p99_factor` times as long. In one second of `stall_every_s`, at random, all answers
    take `stall_factor` times as long (0: never)."""

    errors: float = 0.001
    median_s: float = 0.05
    sigma: float = 0.5
    p99_factor: float = 1.0
    stall_every_s: float = 0.0
    stall_factor: float = 2.0

    def stalled(self) -> Version:
        """How it answers in such a second."""
        return dataclasses.replace(self, median_s=self.median_s * self.stall_factor)


@dataclasses.dataclass(frozen=True)
class Plan:
    """`steps` are percents below 100; a step without a verdict is given up after `patience` intervals."""

    gates: Sequence[Gate]
    steps: Sequence[int] = (10, 25, 50)
    interval_s: int = 900
    patience: int = 4
    confidence: Confidence = _CONFIDENCE


@dataclasses.dataclass(frozen=True)
class Ended:
    """One rollout: how, after how long, with how many canary requests, and how many of all requests failed for the
    canary's sake."""

    how: str
    after_s: int
    canary_requests: int
    why: str = ""


def simulate(
    canary: Version, stable: Version, rps: float, plan: Plan, rollouts: int, seed: int
) -> list[Ended]:
    """So many rollouts of `canary` beside `stable`."""
    rng = numpy.random.default_rng(seed)
    bounds, chances = _buckets(canary, stable)
    ended: dict[int, Ended] = {}
    alive = numpy.arange(rollouts)
    elapsed = numpy.zeros(rollouts, int)
    seen = numpy.zeros(rollouts, int)
    is_equal = canary == stable and not canary.stall_every_s
    for share in plan.steps:
        sides = [
            (rps * part / 100, *chances[side], version)
            for side, (version, part) in enumerate(((canary, share), (stable, 100 - share)))
        ]
        step = _Step(plan, bounds, sides, rng, is_equal=is_equal)
        passed = []
        for number, (how, after_s, requests, why) in zip(alive, step.run(len(alive)), strict=True):
            elapsed[number] += after_s
            seen[number] += requests
            if how == PROMOTED:
                passed.append(number)
            else:
                ended[number] = Ended(how, int(elapsed[number]), int(seen[number]), why)
        alive = numpy.array(passed, int)
    for number in alive:
        ended[number] = Ended(PROMOTED, int(elapsed[number]), int(seen[number]))
    return [ended[number] for number in range(rollouts)]


class _Step:
    """All rollouts that are at one step."""

    def __init__(
        self, plan: Plan, bounds: tuple[float, ...], sides: Any, rng: Any, *, is_equal: bool
    ) -> None:
        self._plan, self._bounds, self._sides, self._rng = plan, bounds, sides, rng
        self._is_equal = is_equal
        self._places = numpy.array([0.0, *bounds, 2 * bounds[-1]])
        confidence = plan.confidence
        self._fail = math.log(1 / confidence.fail_alpha(len(plan.gates), len(plan.steps)))
        self._pass = math.log(1 / confidence.false_promotion)
        self._window = math.log(1 / confidence.window_alpha)

    def run(self, count: int) -> list[tuple[str, int, int, str]]:
        """How each of `count` rollouts leaves the step."""
        ended: dict[int, tuple[str, int, int, str]] = {}
        alive = numpy.arange(count)
        buckets = len(self._bounds) + 1
        # Cumulated since the step began; the last seconds are kept for the windows of the guardrails.
        times = [numpy.zeros((count, 1, buckets)) for _ in self._sides]
        spread = [numpy.zeros((count, 1, buckets - 1)) for _ in self._sides]
        readings = [numpy.zeros((count, 1)) for _ in self._sides]
        errors = [numpy.zeros((count, WINDOW_S + 1)) for _ in self._sides]
        totals = [numpy.zeros((count, WINDOW_S + 1)) for _ in self._sides]
        again = numpy.zeros(count)
        horizon = self._plan.interval_s * self._plan.patience
        for start in range(0, horizon, _CHUNK_S):
            if not len(alive):
                break
            for side, (rate, chances, stalled, version) in enumerate(self._sides):
                drawn = self._rng.poisson(rate * chances, (len(alive), _CHUNK_S, buckets))
                if version.stall_every_s:
                    stalls = self._rng.random(drawn.shape[:2]) < 1 / version.stall_every_s
                    drawn[stalls] = self._rng.poisson(rate * stalled, (int(stalls.sum()), buckets))
                failed = self._rng.binomial(drawn.sum(2), version.errors)
                times[side] = times[side][:, -1:] + numpy.cumsum(drawn, 1)
                asked = numpy.maximum(drawn.sum(2), 1)
                over = _tails(drawn)[..., 1:-1] ** 2 / asked[..., None]
                spread[side] = spread[side][:, -1:] + numpy.cumsum(over, 1)
                readings[side] = readings[side][:, -1:] + numpy.cumsum(drawn.any(2), 1)
                errors[side] = _carried(errors[side], failed)
                totals[side] = _carried(totals[side], drawn.sum(2))
            self._spread, self._readings = spread, readings
            left = self._looks(start, times, errors, totals, again, alive, ended)
            alive, again = alive[left], again[left]
            kept = (times, spread, readings, errors, totals)
            times, spread, readings, errors, totals = ([each[left] for each in one] for one in kept)
        for place, number in enumerate(alive):
            ended[number] = (UNDECIDED, horizon, int(totals[0][place, -1]), "")
        return [ended[number] for number in range(count)]

    def _looks(
        self,
        start: int,
        times: list[Array],
        errors: list[Array],
        totals: list[Array],
        again: Array,
        alive: Array,
        ended: dict[int, tuple[str, int, int, str]],
    ) -> Array:
        """Asks the judge where it may have something to say; which rollouts go on."""
        plan = self._plan
        new = [each[:, WINDOW_S + 1 :] for each in errors], [each[:, WINDOW_S + 1 :] for each in totals]
        may_fail = numpy.zeros(new[0][0].shape, bool)
        may_pass = numpy.ones(new[0][0].shape, bool)
        tails = [_tails(each) for each in times]
        for gate in plan.gates:
            worse, within = self._capital(gate, tails, *new)
            may_fail |= worse >= self._fail
            may_pass &= within >= self._pass
        seconds = start + 1 + numpy.arange(_CHUNK_S)
        may_pass &= seconds >= plan.interval_s
        last = [each[:, WINDOW_S + 1 :] - each[:, 1:-WINDOW_S] for each in errors]
        asked = [each[:, WINDOW_S + 1 :] - each[:, 1:-WINDOW_S] for each in totals]
        # Of the guardrails the burst of errors alone: nothing here is five times slower.
        burst = guards(plan.gates)[0]
        may_burst = self._capital(burst, tails, last, asked)[0] >= self._window
        fails, passes = self._still(tails, *new, may_fail, may_pass)
        left = numpy.ones(len(alive), bool)
        candidates = fails | passes | may_burst
        for place in numpy.flatnonzero(candidates.any(1)):
            for look in numpy.flatnonzero(candidates[place]):
                requests = new[1][0][place, look]
                if requests < again[place]:
                    continue
                evidence = self._evidence(times, new[0], new[1], place, look)
                recent = self._evidence(None, last, asked, place, look)
                is_over = bool(passes[place, look])
                may = (fails[place, look], is_over, may_burst[place, look])
                how, why = self._asked(evidence, recent, *map(bool, may))
                if how:
                    ended[alive[place]] = (how, int(seconds[look]), int(requests), why)
                    left[place] = False
                    break
                if not (self._is_equal and fails[place, look]):
                    again[place] = requests * 1.01
        return left

    def _still(
        self, tails: list[Array], errors: list[Array], totals: list[Array], may_fail: Array, may_pass: Array
    ) -> tuple[Array, Array]:
        """Which of those looks are left when the stable revision may have other values than the observed one."""
        places, looks = numpy.nonzero(may_fail | may_pass)
        if not len(places):
            return may_fail, may_pass
        chosen = [[each[places, looks][:, None] for each in kept] for kept in (tails, errors, totals)]
        fails = numpy.zeros((len(places), 1), bool)
        passes = numpy.ones((len(places), 1), bool)
        for gate in self._plan.gates:
            found = [self._capital(gate, *chosen, shift) for shift in _SHIFTS]
            fails |= numpy.minimum.reduce([worse for worse, _ in found]) >= self._fail
            passes &= numpy.minimum.reduce([within for _, within in found]) >= self._pass
        still = numpy.zeros_like(may_fail), numpy.zeros_like(may_pass)
        still[0][places, looks] = fails[:, 0]
        still[1][places, looks] = passes[:, 0]
        return still[0] & may_fail, still[1] & may_pass

    def _asked(
        self, evidence: Evidence, recent: Evidence, may_fail: bool, may_pass: bool, may_burst: bool
    ) -> tuple[str, str]:
        plan = self._plan
        # The cheap part of the judge first: nothing is described that is not decided.
        alpha, pass_alpha = (
            plan.confidence.fail_alpha(len(plan.gates), len(plan.steps)),
            plan.confidence.false_promotion,
        )
        found = [compare(gate, evidence) for gate in plan.gates]
        is_decided = (
            (may_fail and any(each.is_worse(alpha) >= 0 for each in found))
            or (may_pass and all(each.is_within(pass_alpha) >= 0 for each in reversed(found)))
            or (
                may_burst
                and compare(guards(plan.gates)[0], recent).is_worse(plan.confidence.window_alpha) >= 0
            )
        )
        if not is_decided:
            return "", ""
        verdict = judge(plan.gates, evidence, recent, steps=len(plan.steps), confidence=plan.confidence)
        if verdict.outcome is Outcome.FAIL:
            return ROLLED_BACK, verdict.reason
        return (PROMOTED, "") if verdict.outcome is Outcome.PASS and may_pass else ("", "")

    def _evidence(
        self, times: list[Array] | None, errors: list[Array], totals: list[Array], place: int, look: int
    ) -> Evidence:
        sides = []
        for side in (0, 1):
            counts = () if times is None else tuple(int(each) for each in times[side][place, look])
            histogram = Histogram()
            if counts:
                spread = tuple(float(each) for each in self._spread[side][place, look])
                histogram = Histogram(self._bounds, counts, int(self._readings[side][place, look]), spread)
            sides.append(Sample(int(totals[side][place, look]), int(errors[side][place, look]), histogram))
        return Evidence(*sides)

    def _capital(
        self, gate: Gate, tails: list[Array], errors: list[Array], totals: list[Array], shift: float = 0.0
    ) -> tuple[Array, Array]:
        """Against "within the margin" and "beyond it", with the stable revision's value as observed, or off it by
        `shift` standard errors towards the hypothesis."""
        if gate.metric == ERRORS:
            share = errors[1] / numpy.maximum(totals[1], 1)
            off = shift * numpy.sqrt(numpy.maximum(share, 1e-6) / numpy.maximum(totals[1], 1))
            return tuple(
                _hedged(_mixed(of_stable, errors[1], totals[1], x), STABLE_KEPT)
                + _hedged(_mixed(of_canary, errors[0], totals[0], x + gate.limit), CANARY_KEPT)
                for of_stable, of_canary, x in (
                    (DOWN, UP, numpy.minimum(share + off, 0.9 - gate.limit)),
                    (UP, DOWN, numpy.clip(share - off, 1e-9, 0.9 - gate.limit)),
                )
            )  # type: ignore[return-value]
        totals = [each[..., 0] for each in tails]
        share = 1 - gate.quantile
        off = shift * numpy.sqrt(gate.quantile * share / numpy.maximum(totals[1], 1))
        found: list[Array] = []
        for of_stable, of_canary, beyond in ((DOWN, UP, share - off), (UP, DOWN, share + off)):
            # Without a shift both hypotheses look at the same place.
            if shift or not found:
                rest, seconds = self._quantile(numpy.clip(beyond, 0.0, 0.999), tails[1])
                bound = numpy.maximum(gate.limit * seconds, gate.bound(0.0) + seconds)
                over = self._over(bound, tails[0])
            stable = _hedged(_mixed(of_stable, rest, totals[1], share), STABLE_KEPT)
            found.append(stable + _hedged(_mixed(of_canary, over, totals[0], share), CANARY_KEPT))
        return found[0], found[1]

    def _quantile(self, beyond: Array, tails: Array) -> tuple[Array, Array]:
        """How many requests a share is, and the latency that so many are above."""
        rest = tails[..., 0] * beyond
        number = numpy.clip((tails > rest[..., None]).sum(2) - 1, 0, len(self._places) - 2)
        before, after = (numpy.take_along_axis(tails, (number + n)[..., None], 2)[..., 0] for n in (0, 1))
        way = numpy.where(before > after, (before - rest) / numpy.maximum(before - after, 1e-9), 0.0)
        return rest, self._places[number] + way * (self._places[number + 1] - self._places[number])

    def _over(self, bound: Array, tails: Array) -> Array:
        number = numpy.clip(
            numpy.searchsorted(self._places, bound, side="right") - 1, 0, len(self._places) - 2
        )
        start, end = self._places[number], self._places[number + 1]
        way = numpy.clip((bound - start) / (end - start), 0.0, 1.0)
        before, after = (numpy.take_along_axis(tails, (number + n)[..., None], 2)[..., 0] for n in (0, 1))
        return before + way * (after - before)


def _tails(times: Array) -> Array:
    """How many are above 0, each bound, and twice the last one."""
    total = times.sum(2, keepdims=True)
    return numpy.concatenate([total, total - numpy.cumsum(times, 2)], 2)


def _carried(before: Array, drawn: Array) -> Array:
    """The last seconds of what was, then what has come, cumulated."""
    kept = before[:, -(WINDOW_S + 1) :]
    return numpy.concatenate([kept, kept[:, -1:] + numpy.cumsum(drawn, 1)], 1)


def _mixed(bets: Sequence[tuple[float, float]], count: Array, total: Array, share: Array) -> Array:
    logs = numpy.stack([count * log - total * numpy.log1p(share * more) for log, more in bets])
    top = logs.max(0)
    return top + numpy.log(numpy.exp(logs - top).mean(0))


def _hedged(capital: Array, kept: float) -> Array:
    return numpy.logaddexp(capital + math.log(1 - kept), math.log(kept))


def _buckets(canary: Version, stable: Version) -> tuple[tuple[float, ...], list[tuple[Array, Array]]]:
    """The machine's bounds in seconds as far as they matter, and for either version how likely each is, and how likely
    in a stall."""
    bounds = [us / 1e6 for us in BOUNDS_US]
    versions = [(canary, canary.stalled()), (stable, stable.stalled())]
    within = [[[_cdf(each, bound) for bound in bounds] for each in pair] for pair in versions]
    used = [pair[int(v.stall_every_s > 0)] for pair, (v, _) in zip(within, versions, strict=True)]
    kept = [i for i in range(len(bounds)) if within[1][0][i] > 0.2 and min(w[i] for w in used) < 1 - 1e-6]
    chances = [
        tuple(numpy.maximum(numpy.diff([0.0, *(each[i] for i in kept), 1.0]), 0.0) for each in pair)
        for pair in within
    ]
    return tuple(bounds[i] for i in kept), chances


def _cdf(version: Version, seconds: float) -> float:
    z = math.log(seconds / version.median_s) / version.sigma
    if z > 0:
        z99 = 2.3263478740408408
        z /= 1 + math.log(version.p99_factor) / (version.sigma * z99)
    return 0.5 * math.erfc(-z / math.sqrt(2))
