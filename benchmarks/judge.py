"""How often the judge is wrong: simulated rollouts of equal versions, of more errors, and of a slower tail.

A wrong rollback is an equal version that was rolled back; a wrong promotion is a worse one that reached 100 %. What is
neither within the time is undecided, which is an answer, too: so few requests cannot tell.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import statistics

from benchmarks.judge_simulation import (
    PROMOTED,
    ROLLED_BACK,
    UNDECIDED,
    Ended,
    Plan,
    Version,
    simulate,
)
from benchmarks.results import Result, Table
from glowplug.rollout.gates import DEFAULT_GATES, parse_gates

COMMAND = "make bench-judge"
ROLLOUTS = 1000
RATES = (1, 50, 500)
STABLE = Version()
STALLING = Version(stall_every_s=20)
EFFECTS = {
    "equal": STABLE,
    "equal, both stall": STALLING,
    "errors +1 %": Version(errors=STABLE.errors + 0.01),
    "p99 +20 %": Version(p99_factor=1.2),
}
COLUMNS = (
    "canary", "requests/s", "rolled back %", "promoted %", "undecided %", "decided after, median min",
    "canary requests, median",
)  # fmt: skip
_METRICS = {"errors +1 %": "errors_plus_1_percent", "p99 +20 %": "p99_plus_20_percent"}
_SEED = 20


def run(rollouts: int = ROLLOUTS) -> list[Result | Table]:
    """All effects at all rates."""
    cases = [(effect, rps) for rps in RATES for effect in EFFECTS]
    # Stalls make the judge think; fewer do.
    counts = [rollouts * 3 // 10 if EFFECTS[effect] is STALLING else rollouts for effect, _ in cases]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        ended = dict(zip(cases, pool.map(_case, cases, counts), strict=True))
    results: list[Result | Table] = [
        _share(f"judge.false_rollback.percent{metric}", effect, rps, ended[effect, rps], ROLLED_BACK, "< 1")
        for effect, metric in (("equal", ""), ("equal, both stall", ".stalls"))
        for rps in RATES
    ]
    results += [
        _share(f"judge.false_promotion.percent.{metric}", effect, rps, ended[effect, rps], PROMOTED, "< 5")
        for effect, metric in _METRICS.items()
        for rps in RATES
    ]
    rows = [_row(effect, rps, ended[effect, rps]) for effect in EFFECTS for rps in RATES]
    return [*results, _table(rows, rollouts)]


def _case(case: tuple[str, int], rollouts: int) -> list[Ended]:
    effect, rps = case
    plan = Plan(parse_gates(DEFAULT_GATES))
    stable = STALLING if EFFECTS[effect] is STALLING else STABLE
    return simulate(EFFECTS[effect], stable, rps, plan, rollouts, _SEED + rps)


def _share(metric: str, effect: str, rps: int, ended: list[Ended], wrong: str, goal: str) -> Result:
    """With its 95 % interval (Wilson) as the spread."""
    n = len(ended)
    count = sum(each.how == wrong for each in ended)
    z = 1.959964
    middle = (count + z * z / 2) / (n + z * z)
    radius = z / (n + z * z) * (count * (n - count) / n + z * z / 4) ** 0.5
    low, high = 100 * max(middle - radius, 0.0), 100 * min(middle + radius, 1.0)
    undecided = 100 * sum(each.how == UNDECIDED for each in ended) / n
    note = f"{effect}, {n} simulated rollouts; the spread is the 95 % interval; {undecided:.3g} % undecided"
    return Result(f"{metric}.{rps}rps", 100 * count / n, "%", low, high, n, COMMAND, goal, note)


def _row(effect: str, rps: int, ended: list[Ended]) -> list[str | int | float | None]:
    shares = [
        100 * sum(each.how == how for each in ended) / len(ended)
        for how in (ROLLED_BACK, PROMOTED, UNDECIDED)
    ]
    decided = [each for each in ended if each.how != UNDECIDED]
    if not decided:
        return [effect, rps, *shares, None, None]
    after_min = statistics.median(each.after_s for each in decided) / 60
    return [effect, rps, *shares, after_min, statistics.median(each.canary_requests for each in decided)]


def _table(rows: list[list[str | int | float | None]], rollouts: int) -> Table:
    plan = Plan(parse_gates(DEFAULT_GATES))
    steps = ", ".join(f"{step} %" for step in plan.steps)
    hours = plan.interval_s * plan.patience / 3600
    return Table(
        name="judge.decisions",
        title="The judge on simulated rollouts",
        columns=COLUMNS,
        rows=rows,
        notes=(
            f"{rollouts} rollouts for each row, three tenths of that where both stall; gates {DEFAULT_GATES}; steps"
            f" {steps} of {plan.interval_s // 60} minutes each, a look each second; a step without a verdict after"
            f" {hours:g} h counts as undecided.",
            f"The stable version fails {STABLE.errors * 100:g} % of its requests; its latencies are lognormal with a"
            f" median of {STABLE.median_s * 1000:g} ms and sigma {STABLE.sigma:g}. Requests come by Poisson,"
            " independent of each other.",
            f"equal, both stall: each side, in one second of {STALLING.stall_every_s:g} at random, takes"
            f" {STALLING.stall_factor:g} times as long for all that it has.",
            "errors +1 %: one more request in a hundred fails. p99 +20 %: the same median, the tail stretched.",
            "Undecided is an answer: at one request a second a tenth of them is 90 in a quarter of an hour, and to know"
            " half a percent of errors takes 830 at best. The weight stays where it is, and the rollout says so.",
        ),
        plots=("plots/judge.png",),
    )
