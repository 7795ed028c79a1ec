"""The judge: is the canary within every margin, beyond one, or can that not be said yet? A pure decision.

`judge` may be asked as often as one likes: of all rollouts of a version that is within its margins, at most
`Confidence.false_rollback` fail, over all looks, gates, steps and guardrails together (the budget is split among
them). A version beyond a margin passes a step with a chance of at most `Confidence.false_promotion`; it has to pass
each step anew, and all gates, so that needs no splitting. `sequential` has the method and what it takes for granted.

Guardrails look at the last seconds instead of the whole step, so that ten good minutes don't outweigh a burst of
errors; each such window has its own small part of the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from glowplug.rollout.evidence import Evidence, NoEvidence
from glowplug.rollout.gates import ERRORS, LATENCY, Form, Gate
from glowplug.rollout.judge_gates import Comparison, coarse_bucket, compare
from glowplug.rollout.verdict import GateResult, Outcome, Verdict

# What no gate would let pass, where the gates say nothing about it: one request in twenty fails, or half of them take
# more than three times as long, and 50 ms longer. Five times slower is found in some 90 requests, ten times in 30.
_BURST = Gate("errors<=+5%", ERRORS, Form.MARGIN, 0.05)
_CLIFF = Gate("p50<=3x", LATENCY, Form.RATIO, 3.0, 0.5, least_margin_s=0.05)
# How many windows of a rollout may be looked at: one a second, for almost three hours.
_WINDOWS = 10_000
_GUARDS = 2
_LOOK_AHEAD = 4.0


@dataclass(frozen=True)
class Confidence:
    """The chances of a wrong verdict; `guards` is the part of `false_rollback` that the guardrails have."""

    false_rollback: float = 0.01
    false_promotion: float = 0.05
    guards: float = 0.1

    def fail_alpha(self, gates: int, steps: int) -> float:
        """For one gate in one step."""
        return self.false_rollback * (1 - self.guards) / (gates * steps)

    @property
    def window_alpha(self) -> float:
        """For one guardrail in one window."""
        return self.false_rollback * self.guards / (_GUARDS * _WINDOWS)


def judge(
    gates: Sequence[Gate],
    evidence: Evidence | NoEvidence,
    recent: Evidence | NoEvidence,
    *,
    steps: int,
    confidence: Confidence = Confidence(),
) -> Verdict:
    """What is to be said of the canary now.

    `evidence` is of the present step, `recent` of its last ten to twenty seconds, `steps` the number of steps that
    are judged.
    """
    urgent = _urgent(gates, recent, confidence) if isinstance(recent, Evidence) else None
    if urgent is not None:
        return Verdict(Outcome.FAIL, urgent.reason, (urgent,), is_urgent=True)
    if isinstance(evidence, NoEvidence):
        return Verdict(Outcome.INCONCLUSIVE, f"nothing is measured: {evidence.why}")
    fail_alpha = confidence.fail_alpha(len(gates), max(steps, 1))
    results = tuple(_result(gate, evidence, fail_alpha, confidence.false_promotion) for gate in gates)
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        found = [result.reason for result in results if result.outcome is outcome]
        if found:
            return Verdict(outcome, "; ".join(found), results)
    return Verdict(Outcome.PASS, "; ".join(result.reason for result in results), results)


def guards(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """What the last seconds are held to: never to more than the gates ask for."""
    burst, cliff = _BURST, _CLIFF
    for gate in gates:
        if gate.metric == ERRORS:
            limit = gate.limit if gate.form is Form.MARGIN else max(gate.limit, _BURST.limit)
            burst = replace(burst, limit=limit, text=f"errors<=+{limit * 100:g}%")
        elif gate.metric == LATENCY and gate.quantile == _CLIFF.quantile and gate.form is Form.RATIO:
            limit = max(gate.limit, _CLIFF.limit)
            cliff = replace(cliff, limit=limit, text=f"p50<={limit:g}x")
    return burst, cliff


def _urgent(gates: Sequence[Gate], recent: Evidence, confidence: Confidence) -> GateResult | None:
    """The guardrail that the last seconds break, if there is one."""
    for gate in guards(gates):
        comparison = compare(gate, recent)
        values = comparison.observed()
        if values is None or values[0] <= gate.bound(values[1]):
            continue
        if comparison.is_worse(confidence.window_alpha) >= 0:
            result = _described(gate, comparison, values, confidence.window_alpha, confidence.false_promotion)
            reason = f"in the last seconds {_sentence(gate, result)}, {_seen(result)}"
            return replace(result, outcome=Outcome.FAIL, reason=reason)
    return None


def _result(gate: Gate, evidence: Evidence, fail_alpha: float, pass_alpha: float) -> GateResult:
    comparison = compare(gate, evidence)
    minimum = comparison.minimum(pass_alpha)
    values = comparison.observed()
    if values is None:
        side = "stable revision" if comparison.requests else "canary"
        what = "labels" if gate.metric == "loss" else "requests"
        reason = f"{gate.text}: no {what} of the {side} yet; it takes {minimum:,} of the canary's at best"
        return GateResult(
            gate.text, Outcome.INCONCLUSIVE, reason, requests=comparison.requests, minimum=minimum
        )
    result = _described(gate, comparison, values, fail_alpha, pass_alpha)
    is_over = values[0] > gate.bound(values[1])
    decided = (comparison.is_worse if is_over else comparison.is_within)(
        fail_alpha if is_over else pass_alpha
    )
    if decided >= 0:
        outcome = Outcome.FAIL if is_over else Outcome.PASS
        coarse = coarse_bucket(gate, evidence, values[1], gate.bound(values[1]))
        return replace(
            result, outcome=outcome, reason=f"{_sentence(gate, result)}, {_seen(result)}{_blur(gate, coarse)}"
        )
    needed = _needed(comparison, is_over, fail_alpha if is_over else pass_alpha, decided, minimum)
    wanting = _wanting(result, needed, is_over=is_over)
    return replace(result, needed=needed, reason=f"{_sentence(gate, result)}: {wanting}")


def _described(
    gate: Gate, comparison: Comparison, values: tuple[float, float], fail_alpha: float, pass_alpha: float
) -> GateResult:
    low, high = comparison.bounds(pass_alpha / 2)
    return GateResult(
        gate.text,
        Outcome.INCONCLUSIVE,
        "",
        observed=values[0],
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        compared=None if gate.form is Form.CEILING else values[1],
        limit=gate.bound(values[1]),
        requests=comparison.requests,
        minimum=comparison.minimum(pass_alpha),
    )


def _needed(comparison: Comparison, is_over: bool, alpha: float, decided: float, minimum: int) -> int | None:
    """How many of the canary's requests it takes if all goes on as it does: capital grows in proportion to them."""
    capital = comparison.is_worse if is_over else comparison.is_within
    ahead = (
        _LOOK_AHEAD
        if comparison.requests * _LOOK_AHEAD > minimum
        else minimum * _LOOK_AHEAD / comparison.requests
    )
    later = capital(alpha, ahead)
    if later <= decided or not math.isfinite(later):
        return None
    # `later` is cut off where it is enough: then the answer lies between, else beyond.
    if later >= 0:
        low, high = 1.0, ahead
        for _ in range(4):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if capital(alpha, middle) >= 0 else (middle, high)
        return max(math.ceil(comparison.requests * high), 0 if is_over else minimum)
    factor = ahead + -later * (ahead - 1) / (later - decided)
    return math.ceil(comparison.requests * factor)


def _wanting(result: GateResult, needed: int | None, *, is_over: bool) -> str:
    seen = _seen(result)
    if not is_over and result.requests < result.minimum:
        looks = f", about {_rounded(needed):,} as it looks" if needed and needed > result.minimum else ""
        return f"{seen} never suffice, it takes {result.minimum:,} at best{looks}"
    if needed is None:
        return f"{seen} don't decide it, and more hardly will, so close to the limit"
    return f"{seen} don't decide it, about {_rounded(needed):,} will"


def _seen(result: GateResult) -> str:
    return f"{result.requests:,} request{'' if result.requests == 1 else 's'}"


def _sentence(gate: Gate, result: GateResult) -> str:
    """`errors 1.20 % against 0.10 %, at most 0.60 % allowed (errors<=+0.5%)`."""
    name = gate.text.partition("<=")[0]
    against = "" if result.compared is None else f" against {_value(gate, result.compared)}"
    observed, limit = _value(gate, result.observed or 0.0), _value(gate, result.limit or 0.0)
    return f"{name} {observed}{against}, at most {limit} allowed ({gate.text})"


def _blur(gate: Gate, bucket: tuple[float, float] | None) -> str:
    if bucket is None:
        return ""
    return f", as far as can be seen between {_value(gate, bucket[0])} and {_value(gate, bucket[1])}"


def _value(gate: Gate, value: float) -> str:
    if gate.metric == ERRORS:
        return f"{value * 100:.2f} %"
    if gate.metric == LATENCY:
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    return f"{value:.4g}"


def _rounded(number: int) -> int:
    """Two digits: it is an estimate."""
    magnitude = int(10 ** max(len(str(number)) - 2, 0))
    return math.ceil(number / magnitude) * magnitude
