"""What the floor costs and what it saves: replica-seconds and late requests, beside reactive scaling's.

The other side is simulated: Knative's decider on the same demand, with the start time that was learned. Late requests
are simulated on both sides, from the same demand and, on ours, the replicas that were really ready: nobody measured
those that did not happen. Sums begin when the controller starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glowplug.spec import names
from glowplug.spec.autoscaling import RPS

from .revisions import Live
from .simulated import Costs, Queue, SimulatedRevision, Workload

_SERVICE_S = 0.1
_MAX_PAUSE_S = 60


@dataclass(frozen=True)
class Account:
    """`seconds` that were looked at. Shares are parts of the demand that had to wait for more than a second."""

    seconds: int
    replica_s: float
    late_share: float
    reactive_replica_s: float
    reactive_late_share: float

    def as_object(self) -> dict[str, Any]:
        """For the report."""
        return {
            "seconds": self.seconds,
            "replicaSeconds": round(self.replica_s, 1),
            "lateShare": round(self.late_share, 6),
            "reactiveReplicaSeconds": round(self.reactive_replica_s, 1),
            "reactiveLateShare": round(self.reactive_late_share, 6),
        }


class Ledger:
    """One component's account."""

    def __init__(self) -> None:
        self._shadow: SimulatedRevision | None = None
        self._queue = Queue(1.0, 1.0)
        self._ours, self._theirs = Costs(), Costs()
        self._seconds = 0
        self._until = 0

    def took(
        self, demand: float, ready: int, revision: Live, own: str | None, start_s: float, now: float
    ) -> None:
        """Until `now` since the last call there was a mean `demand` and `ready` pods of `revision`.

        `own` is the min-scale that its user gave it.
        """
        workload = _workload(revision, own, start_s)
        second = int(now)
        if self._shadow is None or self._is_other(workload):
            self._close()
            self._shadow = SimulatedRevision(workload, second, ready)
            self._queue = Queue(workload.parameters.total, workload.service_s)
            self._until = second
            return
        for moment in range(max(self._until, second - _MAX_PAUSE_S) + 1, second + 1):
            self._shadow.step(moment, demand, int(own or 0))
            late, _ = self._queue.second(demand, ready)
            self._ours.requests += demand
            self._ours.late += late
            self._ours.replica_s += ready
            self._seconds += 1
        self._until = second

    def account(self) -> Account:
        """The sums so far."""
        theirs = Costs(self._theirs.replica_s, self._theirs.requests, self._theirs.late)
        if self._shadow is not None:
            _add(theirs, self._shadow)
        return Account(
            self._seconds, self._ours.replica_s, _share(self._ours), theirs.replica_s, _share(theirs)
        )

    def _is_other(self, workload: Workload) -> bool:
        assert self._shadow is not None, "asked by `took` only"
        known = self._shadow.workload
        # A start time that is a little better known is no other workload; it holds for the pods to come.
        self._shadow.workload = workload
        return known.parameters != workload.parameters

    def _close(self) -> None:
        if self._shadow is not None:
            _add(self._theirs, self._shadow)
            self._shadow = None


def _workload(revision: Live, own: str | None, start_s: float) -> Workload:
    notes = {key: value for key, value in revision.annotations.items() if key.startswith("autoscaling.")}
    notes.pop(names.MIN_SCALE, None)
    if own is not None:
        notes[names.MIN_SCALE] = own
    # Where the metric is requests a second, a unit of demand is one of those.
    service_s = 1.0 if revision.scaling.metric == RPS else _SERVICE_S
    return Workload(service_s, start_s, revision.container_concurrency, tuple(sorted(notes.items())))


def _add(costs: Costs, revision: SimulatedRevision) -> None:
    # The shadow counts requests, we count demand.
    costs.replica_s += revision.costs.replica_s
    costs.requests += revision.costs.requests * revision.workload.service_s
    costs.late += revision.costs.late * revision.workload.service_s


def _share(costs: Costs) -> float:
    return costs.late / costs.requests if costs.requests else 0.0


def in_words(account: Mapping[str, Any]) -> str:
    """An account, as `as_object` has it, in a sentence."""
    ours, theirs = float(account["replicaSeconds"]), float(account["reactiveReplicaSeconds"])
    ratio = f" ({ours / theirs:.2f} times)" if theirs else ""
    return (
        f"{ours:.0f} replica-seconds where reactive scaling would have taken {theirs:.0f}{ratio};"
        f" late {float(account['lateShare']):.3%} of the demand, reactive {float(account['reactiveLateShare']):.3%}"
    )
