"""A demand under several policies, in virtual time: reactive scaling, fixed floors, the warm floor.

The warm floor decides here as the controller does: on the mean demand of each interval, with the start time that it
learns from the pods, and nothing else known in advance. It begins without any history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .decision import Demand as Measured
from .decision import State, decide
from .settings import Settings
from .simulated import SimulatedRevision, Workload
from .starts import Start
from .traces import Demand

INTERVAL_S = 5
# Some whole day's start, in seconds since the epoch.
_EPOCH = 1_700_006_400

Floor = Callable[[int, SimulatedRevision], int]


@dataclass(frozen=True)
class Outcome:
    """What a policy came to; `replicas` has the number of pods in each second, `late` the late requests."""

    policy: str
    requests: float
    late_requests: float
    replica_s: float
    replicas: tuple[int, ...]
    late: tuple[float, ...]
    floors: tuple[int, ...]

    @property
    def miss_share(self) -> float:
        """The part of the requests that were late."""
        return self.late_requests / self.requests if self.requests else 0.0


def reactive(demand: Demand, workload: Workload) -> Outcome:
    """Knative's autoscaler alone."""
    return _run("reactive", demand, workload, lambda now, revision: 0)


def fixed(demand: Demand, workload: Workload, replicas: int) -> Outcome:
    """Knative's autoscaler with a min-scale that stays."""
    return _run(f"min {replicas}", demand, workload, lambda now, revision: replicas)


def warm_floor(demand: Demand, workload: Workload, settings: Settings) -> Outcome:
    """Knative's autoscaler, and the controller that moves its min-scale."""
    policy = _WarmFloor(workload, replace(settings, season_s=demand.season_s))
    return _run("warm floor", demand, workload, policy)


def compare(demand: Demand, workload: Workload, settings: Settings) -> list[Outcome]:
    """Reactive, the warm floor, and two fixed floors: one at the warm floor's cost, one for the highest demand."""
    warm = warm_floor(demand, workload, settings)
    same_cost = max(math.ceil(warm.replica_s / len(demand.work)), 1)
    # Of a minute's mean, not of a second's.
    highest = max(sum(demand.work[i : i + 60]) / 60 for i in range(0, len(demand.work), 60))
    peak = max(math.ceil(highest / workload.parameters.target), 1)
    floors = sorted({1, same_cost, peak})
    return [reactive(demand, workload), warm, *(fixed(demand, workload, count) for count in floors)]


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """The outcomes as lines of text, ratios to the first."""
    base = outcomes[0]
    lines = [f"{'policy':<12}{'late':>12}{'of all':>9}{'ratio':>8}{'replica-s':>12}{'ratio':>8}{'most':>6}"]
    lines += [
        f"{each.policy:<12}{each.late_requests:>12.0f}{each.miss_share:>9.3%}"
        f"{ratio(each.late_requests, base.late_requests):>8}{each.replica_s:>12.0f}"
        f"{ratio(each.replica_s, base.replica_s):>8}{max(each.replicas):>6}"
        for each in outcomes
    ]
    return lines


def ratio(value: float, base: float) -> str:
    """`value` / `base` as text."""
    return f"{value / base:.3g}" if base else "-"


class _WarmFloor:
    """Calls the decision every interval with what the controller would see."""

    def __init__(self, workload: Workload, settings: Settings) -> None:
        self._workload, self._settings = workload, settings
        self._state, self._floor = State(), 0
        self._sum, self._requests, self._seconds = 0.0, 0.0, 0
        self._pods = 0

    def __call__(self, now_s: int, revision: SimulatedRevision) -> int:
        self._sum += revision.concurrency
        self._requests += revision.arrived
        self._seconds += 1
        if revision.ready > self._pods:
            start = Start(now_s, self._workload.start_s)
            self._state = replace(self._state, starts=self._state.starts.with_starts([start]))
        self._pods = revision.ready
        if now_s % INTERVAL_S == 0:
            self._state, decision = decide(
                self._settings,
                self._state,
                Measured(self._sum / self._seconds, self._requests / self._seconds),
                self._workload.parameters.target,
                INTERVAL_S,
                now_s,
            )
            self._floor = decision.floor
            self._sum, self._requests, self._seconds = 0.0, 0.0, 0
        return self._floor


def _run(policy: str, demand: Demand, workload: Workload, floor_of: Floor) -> Outcome:
    # With the initial scale's one pod, without which no revision takes requests.
    revision = SimulatedRevision(workload, _EPOCH, ready=1)
    replicas: list[int] = []
    late: list[float] = []
    floors: list[int] = []
    floor = 0
    for second, work in enumerate(demand.work):
        now_s = _EPOCH + second
        revision.step(now_s, work, floor)
        floor = floor_of(now_s, revision)
        replicas.append(revision.replicas)
        late.append(revision.late_now / workload.service_s)
        floors.append(floor)
    costs = revision.costs
    return Outcome(
        policy, costs.requests, costs.late, costs.replica_s, tuple(replicas), tuple(late), tuple(floors)
    )
