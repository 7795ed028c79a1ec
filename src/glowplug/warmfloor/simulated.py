"""A revision in virtual time: Knative's real decider and scaler, pods that take time to start, requests that queue.

It answers what a demand would have cost under a floor: replica-seconds, and requests that were late. It steps by whole
seconds. In each, `work` request-seconds of requests arrive; ready pods together do `total` request-seconds a second
each; what is over that waits, first come first served. A request is late if it could not begin in the second that it
came in. What the autoscaler measures is what is worked on and what waits, as Knative's proxies and activator count it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from glowplug.autoscaler.engine import Autoscaler, Facts
from glowplug.autoscaler.parameters import SECOND_NS, TICK_S, Parameters, parameters_of
from glowplug.spec import names
from glowplug.spec.autoscaling import scaling_of
from glowplug.spec.load import Report

_NAME = "simulated/revision"


@dataclass(frozen=True)
class Workload:
    """`service_s` is what one request takes a pod, `start_s` what a pod takes to become ready."""

    service_s: float = 0.1
    start_s: float = 30.0
    container_concurrency: int = 10
    annotations: tuple[tuple[str, str], ...] = ((names.MAX_SCALE, "20"),)

    @property
    def parameters(self) -> Parameters:
        """`target` is the load that the autoscaler keeps a pod at, `total` what it can take."""
        return parameters_of(scaling_of(dict(self.annotations)), self.container_concurrency, True)


class Queue:
    """Requests that wait for pods of `total` request-seconds a second each, first come first served."""

    def __init__(self, total: float, service_s: float) -> None:
        self._total, self._service_s = total, service_s
        self.waiting = 0.0

    def second(self, work: float, ready: int) -> tuple[float, float]:
        """What of `work` was late, in request-seconds, and the mean concurrency, of what waits too."""
        before = self.waiting
        done = min(before + work, ready * self._total)
        self.waiting = before + work - done
        # A request that waits is there for the whole second, whatever it will take.
        return work - min(max(done - before, 0.0), work), done + self.waiting / self._service_s


@dataclass
class Costs:
    """Sums since the start: seconds that replicas existed (starting ones too), and requests, those that were late."""

    replica_s: float = 0.0
    requests: float = 0.0
    late: float = 0.0


class SimulatedRevision:
    """One revision from `now_s` on, whole seconds since the epoch, with `ready` pods."""

    def __init__(self, workload: Workload, now_s: int, ready: int = 0) -> None:
        self.workload = workload
        self.costs = Costs()
        self.ready = ready
        self.late_now = 0.0
        self.arrived = 0.0
        self.concurrency = 0.0
        self._starting: list[float] = []
        self._queue = Queue(workload.parameters.total, workload.service_s)
        self._engine = Autoscaler(lambda name: None)
        self._active, self._active_since = "True" if ready else "False", now_s
        self._notes: Mapping[str, str] = {}
        self._floor = -1
        self._scale(now_s, 0)

    @property
    def replicas(self) -> int:
        """Pods that exist, ready or not."""
        return self.ready + len(self._starting)

    def step(self, now_s: int, work: float, floor: int) -> None:
        """The second that begins at `now_s`: `work` request-seconds arrive, min-scale is `floor`."""
        self._begun(now_s)
        now_ns = now_s * SECOND_NS
        self.late_now, self.concurrency = self._queue.second(work, self.ready)
        self.arrived = work / self.workload.service_s
        self.costs.requests += self.arrived
        self.costs.late += self.late_now / self.workload.service_s
        self.costs.replica_s += self.replicas
        if self.ready == 0 and self._queue.waiting > 0:
            self._engine.poke(_NAME, now_ns)
        self._engine.record({_NAME: Report(self.concurrency, self.arrived)}, now_ns)
        if now_s % TICK_S == 0:
            self._engine.tick(now_ns)
        self._scale(now_s, floor)

    def _begun(self, now_s: int) -> None:
        ready = [at for at in self._starting if at <= now_s]
        self.ready += len(ready)
        self._starting = self._starting[len(ready) :]

    def _scale(self, now_s: int, floor: int) -> None:
        if floor != self._floor:
            self._floor = floor
            self._notes = {**dict(self.workload.annotations), names.MIN_SCALE: str(floor)}
        facts = Facts(
            annotations=self._notes,
            container_concurrency=self.workload.container_concurrency,
            ready=self.ready,
            is_reachable=True,
            is_initialized=True,
            active=self._active,
            active_since_ns=self._active_since * SECOND_NS,
        )
        want = self._engine.look(_NAME, facts, now_s * SECOND_NS).want
        scale = max(want.scale, 0) if want.scale >= 0 else self.replicas
        active = "False" if scale == 0 else "True" if self.ready >= max(floor, 1) else "Unknown"
        if active != self._active:
            self._active, self._active_since = active, now_s
        if want.is_applied and want.scale >= 0:
            self._set(want.scale, now_s)

    def _set(self, scale: int, now_s: int) -> None:
        missing = scale - self.replicas
        if missing > 0:
            self._starting += [now_s + self.workload.start_s] * missing
        elif missing < 0:
            # The newest first: those that are not ready yet are no loss.
            kept = max(len(self._starting) + missing, 0)
            self.ready = min(self.ready, scale)
            self._starting = self._starting[:kept]
