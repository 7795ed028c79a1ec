"""The warm floor on three generated demands, in virtual time: late requests and replica-seconds against reactive.

The demands are described in `glowplug.warmfloor.traces`, the queueing in `glowplug.warmfloor.simulated`. Reactive is
Knative's autoscaler as the local machine has it, the one that is compared with the Go package decision by decision.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import Result, Table, summarise
from glowplug.warmfloor import replay, traces
from glowplug.warmfloor.replay import Outcome
from glowplug.warmfloor.settings import Settings
from glowplug.warmfloor.simulated import Workload

COMMAND = "make bench-warmfloor"
WORKLOAD = Workload(service_s=0.1, start_s=30.0, container_concurrency=10)
SETTINGS = Settings(maximum=20)
SEEDS = (7, 11, 23, 42, 101)
_START_TIMES_S = (2.0, 10.0, 60.0, 120.0)
_COLUMNS = (
    "demand",
    "start s",
    "policy",
    "late %",
    "late ratio",
    "replica-s",
    "replica-s ratio",
    "most replicas",
)
_GOALS = {"diurnal": ("≤ 0.2", "≤ 1.3")}


def run() -> list[Result | Table]:
    """Ratios over the seeds, and everything of the first seed side by side."""
    measured: list[Result | Table] = []
    rows: list[Sequence[str | int | float | None]] = []
    for name, generator in traces.GENERATED.items():
        pairs = []
        for seed in SEEDS:
            demand = generator(WORKLOAD.service_s, seed)
            if seed == SEEDS[0]:
                outcomes = replay.compare(demand, WORKLOAD, SETTINGS)
                rows += _rows(name, WORKLOAD.start_s, outcomes)
                pairs.append((outcomes[0], outcomes[1]))
            else:
                pairs.append((replay.reactive(demand, WORKLOAD), _warm(demand, WORKLOAD)))
        measured += _results(name, pairs)
    rows += _other_start_times()
    return [*measured, _table(rows)]


def _warm(demand: traces.Demand, workload: Workload) -> Outcome:
    return replay.warm_floor(demand, workload, SETTINGS)


def _results(name: str, pairs: Sequence[tuple[Outcome, Outcome]]) -> list[Result]:
    goals = _GOALS.get(name, ("", ""))
    reactive = sum(pair[0].late_requests for pair in pairs)
    warm = sum(pair[1].late_requests for pair in pairs)
    requests = sum(pair[0].requests for pair in pairs)
    return [
        summarise(
            f"warmfloor.{name}.slo_misses.ratio_to_reactive",
            [_ratio(ours.late_requests, theirs.late_requests) for theirs, ours in pairs],
            "",
            command=COMMAND,
            goal=goals[0],
            note=f"{len(pairs)} seeds, together {warm:.0f} late requests against {reactive:.0f} of {requests:.0f};"
            " simulated with the real decider, a pod takes 30 s to start",
        ),
        summarise(
            f"warmfloor.{name}.replica_seconds.ratio_to_reactive",
            [_ratio(ours.replica_s, theirs.replica_s) for theirs, ours in pairs],
            "",
            command=COMMAND,
            goal=goals[1],
            note="of the same runs",
        ),
    ]


def _other_start_times() -> list[Sequence[str | int | float | None]]:
    rows: list[Sequence[str | int | float | None]] = []
    demand = traces.diurnal(WORKLOAD.service_s, SEEDS[0])
    for start_s in _START_TIMES_S:
        workload = Workload(WORKLOAD.service_s, start_s, WORKLOAD.container_concurrency)
        rows += _rows("diurnal", start_s, [replay.reactive(demand, workload), _warm(demand, workload)])
    return rows


def _rows(name: str, start_s: float, outcomes: Sequence[Outcome]) -> list[Sequence[str | int | float | None]]:
    base = outcomes[0]
    return [
        (
            name,
            start_s,
            each.policy,
            100 * each.miss_share,
            _ratio(each.late_requests, base.late_requests),
            each.replica_s,
            _ratio(each.replica_s, base.replica_s),
            max(each.replicas),
        )
        for each in outcomes
    ]


def _table(rows: Sequence[Sequence[str | int | float | None]]) -> Table:
    return Table(
        name="warmfloor.policies",
        title="The warm floor against reactive scaling and fixed floors",
        columns=_COLUMNS,
        rows=rows,
        notes=(
            "Simulated second by second with the autoscaler's real decider and scaler, Knative's defaults,"
            " containerConcurrency 10, max-scale 20, requests of 0.1 s, one pod at the beginning.",
            "A request is late if it cannot begin in the second that it comes in. Ratios are to reactive scaling.",
            "diurnal: five days of two hours each, so a morning is twelve times as steep as a real one; days differ by"
            " up to 15 % in height and 36 minutes (of 24 h) in time. The first day is counted, with nothing learned.",
            "bursty: bursts of ten times the base for a minute, at times that nothing tells in advance. No forecast can"
            " help there: the floor gains a little, and a fixed minReplicas for the height of a burst is better.",
            "ramp: 50 to 500 requests a second and back every half hour; the first one is counted, too.",
            "min N: a fixed minReplicas; one at about the warm floor's mean, one for the highest minute.",
        ),
        plots=("plots/warmfloor.png",),
    )


def _ratio(value: float, base: float) -> float:
    return value / base if base else float(value > 0)
