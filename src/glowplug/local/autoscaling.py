"""Joins who measures, who decides and who acts on it: router, activator, autoscaler, controllers.

Once a second the ingress's counters and the activator's are read, every other second the autoscaler decides, as in
Knative. Where the ingress cannot be read nothing is decided: what was decided stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from glowplug.activator import Activator
from glowplug.autoscaler import record
from glowplug.autoscaler.engine import Autoscaler, Facts
from glowplug.autoscaler.parameters import SECOND_NS, TICK_S, bounds_of, initial_scale
from glowplug.autoscaler.rates import Counters, report_between
from glowplug.autoscaler.record import Recorded
from glowplug.controllers import Objects
from glowplug.controllers.knative.scaling import Bounds, Said, Scale, Standing
from glowplug.errors import ConfigError
from glowplug.local import autoscaler_status
from glowplug.router import Router
from glowplug.spec import autoscaling_config
from glowplug.spec.autoscaling import scaling_of
from glowplug.spec.kinds import CONFIG_MAP
from glowplug.spec.load import Report

_log = logging.getLogger(__name__)
_LONGEST_INTERVAL_S = 2.0


class Wake(Protocol):
    """Reconciles a revision, `namespace/name`."""

    def __call__(self, revision: str) -> None: ...


class Autoscaling:
    """The controllers' autoscaler. `siblings` gives the revisions that a request for one of them needs too."""

    def __init__(
        self,
        router: Router,
        clock: Callable[[], float],
        siblings: Callable[[str], list[str]],
    ) -> None:
        self.engine = Autoscaler(self._news)
        self.activator: Activator | None = None
        self.wake: Wake = lambda revision: None
        self._router = router
        self._clock = clock
        self._siblings = siblings
        self._before: Mapping[str, Counters] = {}
        self._read_at = 0.0
        # Why the ingress could not be read last; empty if it could.
        self._unmeasured = ""
        # By revision, since the machine started: the integral of the requests in progress, and requests.
        self._totals: dict[str, tuple[float, float]] = {}

    def bounds(self, annotations: Mapping[str, str]) -> Bounds:
        """What the controllers ask of a revision that has no pods yet."""
        scaling = scaling_of(annotations)
        minimum = bounds_of(scaling, True, self.engine.config).minimum
        return Bounds(minimum, initial_scale(scaling, self.engine.config))

    def scale(self, standing: Standing, now: float) -> Scale:
        """What the controllers ask of a revision that is scaled on load."""
        facts = Facts(
            annotations=standing.annotations,
            container_concurrency=standing.container_concurrency,
            ready=standing.ready,
            is_reachable=True,
            is_initialized=True,
            active=standing.active,
            active_since_ns=_ns(standing.active_since),
        )
        verdict = self.engine.look(standing.revision, facts, _ns(now))
        want = verdict.want
        return Scale(
            desired=want.scale,
            reason=want.reason,
            pods=want.scale if want.is_applied else None,
            is_held=verdict.needs_activator,
            again_at=None if want.again_ns is None else now + want.again_ns / SECOND_NS,
            unmeasured=self._unmeasured,
        )

    def says(self, standing: Standing, desired: int) -> Said:
        """What the PodAutoscaler says once the revision wants `desired` pods."""
        return autoscaler_status.says(standing, desired, self.engine.config)

    def forget(self, revision: str) -> None:
        """That revision is not scaled on load any more."""
        self.engine.forget(revision)
        self._totals.pop(revision, None)

    def waited_for(self, revision: str) -> None:
        """A request waits: its revision is woken, and with it those that the request will need."""
        assert self.activator is not None, "set before anybody waits"
        now_ns = _ns(self._clock())
        if self.engine.poke(revision, now_ns, float(self.activator.in_progress(revision))):
            for sibling in self._siblings(revision):
                self.engine.poke(sibling, now_ns)

    def trace(self, path: tuple[str, ...]) -> str | None:
        """The last decisions on the revision (namespace, name), as `glowplug autoscaler replay` reads them; None where
        nothing was decided."""
        recorded = self.engine.recorded("/".join(path))
        return "".join(f"{line}\n" for line in record.lines(_Kept(recorded))) if recorded else None

    def metrics(self) -> str:
        """What waits, what was refused, and what each revision was asked, in Prometheus' text format."""
        assert self.activator is not None, "set before it is asked"
        lines = [
            "# HELP glowplug_activator_held Requests that wait for a free pod.",
            "# TYPE glowplug_activator_held gauge",
        ]
        for revision, count in sorted(self.activator.held().items()):
            namespace, _, name = revision.partition("/")
            lines.append(f'glowplug_activator_held{{namespace="{namespace}",revision="{name}"}} {count}')
        lines += [
            "# HELP glowplug_activator_refused_total Requests that no pod was free for in time.",
            "# TYPE glowplug_activator_refused_total counter",
            f"glowplug_activator_refused_total {self.activator.refused}",
            "# HELP glowplug_ingress_measured Whether the last reading of the ingress succeeded.",
            "# TYPE glowplug_ingress_measured gauge",
            f"glowplug_ingress_measured {int(not self._unmeasured)}",
            *self._asked(),
        ]
        return "".join(f"{line}\n" for line in lines)

    def _asked(self) -> Iterator[str]:
        for number, name, words in (
            (0, "glowplug_revision_request_seconds_total", "Time that requests were in progress or waited."),
            (1, "glowplug_revision_requests_total", "Requests."),
        ):
            yield f"# HELP {name} {words}"
            yield f"# TYPE {name} counter"
            for revision, totals in sorted(self._totals.items()):
                namespace, _, label = revision.partition("/")
                yield f'{name}{{namespace="{namespace}",revision="{label}"}} {totals[number]:.6f}'

    async def follow_config(self, objects: Objects, changed: Callable[[], None]) -> None:
        """Keeps to the ConfigMap config-autoscaler of namespace knative-serving, where there is one, until cancelled;
        `changed` is called when every revision has to be looked at again."""
        async for change in objects.watch(CONFIG_MAP):
            meta = change.object["metadata"]
            if (meta.get("namespace"), meta["name"]) != (
                autoscaling_config.NAMESPACE,
                autoscaling_config.CONFIG_MAP,
            ):
                continue
            data = {} if change.type == "DELETED" else change.object.get("data") or {}
            try:
                self.engine.config = autoscaling_config.parse(data)
            except ConfigError as error:
                # Admission refuses these; a store of another version may hold one.
                _log.error("%s; what was set before stays", error.message)
                continue
            changed()

    async def run(self) -> None:
        """Measures and decides until cancelled."""
        second = ticked_at = int(self._clock())
        while True:
            second = max(second + 1, int(self._clock()))
            await asyncio.sleep(max(second - self._clock(), 0.0))
            if not self.engine.awake():
                self._before = {}
                continue
            try:
                reports = await self._measure()
            except (OSError, TimeoutError) as error:
                self._set_unmeasured(f"the ingress cannot be measured, the scale stays as it is: {error!r}")
                continue
            self._set_unmeasured("")
            now_ns = _ns(self._clock())
            self.engine.record(reports, now_ns)
            # A reading may have taken longer than a second.
            if second - ticked_at >= TICK_S:
                ticked_at = second
                self.engine.tick(now_ns)

    async def _measure(self) -> dict[str, Report]:
        """By revision, the load since the last call."""
        assert self.activator is not None, "set before `run`"
        stats = await self._router.stats()
        now = self._clock()
        seconds, self._read_at = now - self._read_at, now
        before, self._before = self._before, {
            name: Counters(s.requests, s.active + s.pending, s.busy_us) for name, s in stats.items()
        }  # fmt: skip
        reports: dict[str, Report] = {}
        held = self.activator.held()
        for name, counters in self._before.items():
            # What the ingress sent to the activator for want of a pod is counted there.
            if name in before and name not in held and seconds > 0:
                reports[name] = report_between(before[name], counters, seconds)
        for name, load in self.activator.loads().items():
            own = reports.get(name, Report(0.0, 0.0))
            reports[name] = replace(
                own, concurrency=own.concurrency + load.concurrency, requests=own.requests + load.requests
            )
        # After a sleep the activator's average is of the time since the first request, not since the last reading.
        known_s = min(seconds, _LONGEST_INTERVAL_S)
        for name, report in reports.items():
            busy_s, requests = self._totals.get(name, (0.0, 0.0))
            self._totals[name] = busy_s + report.concurrency * known_s, requests + report.requests
        return reports

    def _set_unmeasured(self, why: str) -> None:
        """Whoever is scaled on load says so, when it begins and when it is over."""
        if bool(why) == bool(self._unmeasured):
            return
        self._unmeasured = why
        if why:
            _log.warning("%s", why)
        for revision in self.engine.awake():
            self.wake(revision)

    def _news(self, revision: str) -> None:
        self.wake(revision)


class _Kept:
    """Decisions that have been made, as a source of a trace: those with the parameters of the last one."""

    def __init__(self, recorded: tuple[Recorded, ...]) -> None:
        parameters = recorded[-1].parameters
        before = [number for number, one in enumerate(recorded) if one.parameters != parameters]
        self._recorded = recorded[before[-1] + 1 if before else 0 :]

    def decisions(self) -> Iterator[Recorded]:
        return iter(self._recorded)


def _ns(seconds: float) -> int:
    return int(seconds * SECOND_NS)
