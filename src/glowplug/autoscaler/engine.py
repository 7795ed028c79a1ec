"""The autoscaler of all revisions: takes in measurements, decides every two seconds, and tells who is concerned.

It owns what was measured and decided. How many pods follow from a decision (bounds, the last pod's grace) is
`scaler`'s, asked by `look` whenever the revision's owner reconciles it. Times come from the caller, in nanoseconds
since the epoch.

A revision that has no pods and wants none is asleep: it is neither measured nor decided on until somebody waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from glowplug.spec import autoscaling
from glowplug.spec.autoscaling import RevisionScaling
from glowplug.spec.autoscaling_config import DEFAULTS, AutoscalerConfig
from glowplug.spec.load import Report

from . import decider, scaler, status
from .collector import Collector
from .decider import UNKNOWN_SCALE, Decision, State
from .parameters import Parameters, bounds_of, parameters_of, windows_of
from .record import Recorded
from .scaler import Standing, Want

# Half an hour of decisions, for `glowplug autoscaler record`.
_KEPT_DECISIONS = 900
# By how much a load that was taken in ahead must have grown to be decided on once more.
_NEWS = 1.5


@dataclass(frozen=True)
class Facts:
    """What the owner of a revision knows of it; `active_since_ns` is when its Active condition last changed."""

    annotations: Mapping[str, str]
    container_concurrency: int
    ready: int
    is_reachable: bool
    is_initialized: bool
    active: str
    active_since_ns: int


@dataclass(frozen=True)
class Verdict:
    """`want` and whether requests go through the activator."""

    want: Want
    needs_activator: bool


@dataclass
class _Revision:
    facts: Facts
    scaling: RevisionScaling
    parameters: Parameters
    collector: Collector
    state: State
    desired: int = UNKNOWN_SCALE
    excess: int = 0
    # Concurrency that was taken in ahead of its second's report.
    ahead: float = 0.0
    proxied_since_ns: int | None = None
    decisions: deque[Recorded] = field(default_factory=lambda: deque(maxlen=_KEPT_DECISIONS))
    reason: str = ""

    @property
    def is_asleep(self) -> bool:
        return self.desired == 0 and self.facts.ready == 0


class Autoscaler:
    """`on_news` is told the revision (`namespace/name`) when a decision concerns its owner."""

    def __init__(self, on_news: Callable[[str], None], config: AutoscalerConfig = DEFAULTS) -> None:
        self.config = config
        self._on_news = on_news
        self._revisions: dict[str, _Revision] = {}

    def look(self, name: str, facts: Facts, now_ns: int) -> Verdict:
        """What follows for a revision from what was decided last and from how it stands now."""
        revision = self._known(name, facts, now_ns)
        excess = revision.excess
        if revision.desired == UNKNOWN_SCALE:
            excess = decider.initial_excess_burst_capacity(revision.parameters)
        standing = Standing(
            active=facts.active,
            active_for_ns=now_ns - facts.active_since_ns,
            is_initialized=facts.is_initialized,
            is_reachable=facts.is_reachable,
            proxied_for_ns=None if revision.proxied_since_ns is None else now_ns - revision.proxied_since_ns,
            # The ingress asks the activator by itself as soon as no pod is left.
            is_activator_probed=True,
        )
        want = scaler.scale(revision.desired, standing, revision.scaling, self.config)
        floor = bounds_of(revision.scaling, facts.is_reachable, self.config).minimum
        if want.scale == UNKNOWN_SCALE and not standing.is_activating and facts.ready < floor:
            # Sooner than Knative, which waits for the first measurement: a floor needs none.
            want = Want(floor, True, f"nothing is measured yet: min-scale {floor}")
        needs_activator = facts.ready == 0 or status.needs_activator(want.scale, excess)
        if not needs_activator:
            revision.proxied_since_ns = None
        elif revision.proxied_since_ns is None:
            revision.proxied_since_ns = now_ns
        if want.is_applied and revision.reason:
            want = replace(want, reason=f"{revision.reason}; {want.reason}")
        return Verdict(want, needs_activator)

    def forget(self, name: str) -> None:
        """A revision that is gone, or is not scaled on load any more."""
        self._revisions.pop(name, None)

    def awake(self) -> list[str]:
        """The revisions that have to be measured now."""
        return [name for name, revision in self._revisions.items() if not revision.is_asleep]

    def record(self, reports: Mapping[str, Report], now_ns: int) -> None:
        """The last second's measurements by revision; one that is awake and not among them had no requests."""
        for name, revision in self._revisions.items():
            report = reports.get(name)
            if report is None:
                if revision.is_asleep:
                    continue
                report = Report(0.0, 0.0)
            concurrency = max(report.concurrency - revision.ahead, 0.0)
            revision.ahead = 0.0
            revision.collector.record(now_ns, replace(report, concurrency=concurrency))

    def tick(self, now_ns: int) -> None:
        """Decides on every revision that is awake."""
        for name, revision in tuple(self._revisions.items()):
            if not revision.is_asleep:
                self._decide(name, revision, now_ns)

    def poke(self, name: str, now_ns: int, load: float = 1.0) -> bool:
        """Somebody waits for a pod of this revision, which has `load` requests in progress. If it wants no pods, or the
        load is past what makes it panic, that is decided on at once. Whether it was."""
        revision = self._revisions.get(name)
        if revision is None or load < _NEWS * revision.ahead:
            return False
        is_counted = revision.parameters.metric == autoscaling.CONCURRENCY
        room = revision.facts.ready * revision.parameters.total
        if revision.desired > 0 and not (is_counted and load > revision.parameters.panic_threshold * room):
            return False
        # What this second's report will say again.
        revision.collector.record(now_ns, Report(load - revision.ahead, 0.0 if revision.ahead else 1.0))
        revision.ahead = load
        self._decide(name, revision, now_ns)
        return True

    def recorded(self, name: str) -> tuple[Recorded, ...]:
        """What the last decisions on a revision were made on, the oldest first."""
        revision = self._revisions.get(name)
        return () if revision is None else tuple(revision.decisions)

    def _known(self, name: str, facts: Facts, now_ns: int) -> _Revision:
        known = self._revisions.get(name)
        scaling = autoscaling.scaling_of(facts.annotations) if known is None else known.scaling
        if known is not None and known.facts.annotations != facts.annotations:
            scaling = autoscaling.scaling_of(facts.annotations)
        parameters = parameters_of(scaling, facts.container_concurrency, facts.is_reachable, self.config)
        if known is None:
            collector = Collector(windows_of(scaling, self.config))
            state = decider.start(parameters, facts.ready, now_ns)
            known = self._revisions[name] = _Revision(facts, scaling, parameters, collector, state)
            return known
        if known.parameters != parameters or known.scaling != scaling:
            known.collector.resize(windows_of(scaling, self.config), now_ns)
            if known.parameters.scale_down_delay_ns != parameters.scale_down_delay_ns:
                fresh = decider.start(parameters, facts.ready, now_ns)
                known.state = replace(known.state, delay=fresh.delay)
        known.facts, known.scaling, known.parameters = facts, scaling, parameters
        return known

    def _decide(self, name: str, revision: _Revision, now_ns: int) -> None:
        ready = revision.facts.ready
        observation = revision.collector.observe(revision.parameters.metric, ready, now_ns)
        revision.decisions.append(Recorded(revision.parameters, revision.state, observation, ready, now_ns))
        revision.state, decision = decider.decide(revision.parameters, revision.state, observation, now_ns)
        revision.reason = decision.reason
        if not isinstance(decision, Decision):
            return
        before = revision.desired, revision.excess
        revision.desired, revision.excess = decision.desired, decision.excess_burst_capacity
        if decider.is_news(before, decision):
            self._on_news(name)
