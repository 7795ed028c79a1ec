"""The loop: every few seconds it measures, decides, and writes what changed.

For each InferenceService that asks: read its live revisions and their pods, decide for each component, write the floor
on the revisions. For each that asks no more: put back what its user had. Before a revision is touched, the ConfigMap
says what stood there, so that whoever starts after a crash takes over what it finds.

It acts only while it holds the lease. Who sees the InferenceServices is kopf, in `operator`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from glowplug.errors import ApiError, ConfigError, GlowplugError, NotFound
from glowplug.operators import events
from glowplug.operators.api import Api, Object
from glowplug.operators.leadership import Leadership
from glowplug.spec import names
from glowplug.spec.autoscaling import CONCURRENCY, RPS

from . import memory, revisions, settings
from .decision import Decision, State, Unmeasured, decide
from .decision import Demand as Measured
from .demand import DemandSource, NoDemand, Readings
from .ledger import Ledger, in_words
from .memory import Memory
from .revisions import Live
from .settings import Settings
from .starts import start_of

_log = logging.getLogger(__name__)
LABEL = "glowplug.dev/warm-floor"
NAME = "glowplug-warm-floor"
_REVISIONS = "/apis/serving.knative.dev/v1/namespaces/{}/revisions"
_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/{}"
_SAVE_EVERY_S = 60.0
_LEAST_PAUSE_S = 1.0

Key = tuple[str, str]


@dataclass(frozen=True)
class ControllerConfig:
    """Times are seconds. `identity` is this controller's, unlike any other's. `namespaces` empty: all."""

    identity: str
    interval_s: float = 5.0
    lease_namespace: str = "default"
    lease_duration_s: int = 15
    namespaces: tuple[str, ...] = ()


class Service:
    """What is known of one InferenceService that asks, or asked, for a floor."""

    def __init__(self, isvc: Object) -> None:
        self.isvc = isvc
        self.settings: Settings | None = None
        self.memory: Memory | None = None
        self.ledgers: dict[str, Ledger] = {}
        self.decisions: dict[str, Decision] = {}
        self.warned = ""
        self.warned_of_silence = ""
        self.saved_at = 0.0
        self.is_unmeasured = False

    @property
    def key(self) -> Key:
        return self.isvc["metadata"]["namespace"], self.isvc["metadata"]["name"]


class Controller:
    """`clock` gives seconds since the epoch."""

    def __init__(
        self, api: Api, source: DemandSource, config: ControllerConfig, clock: Callable[[], float]
    ) -> None:
        self._api, self._source, self._config, self._clock = api, source, config, clock
        self._trouble = ""
        self._services: dict[Key, Service] = {}
        self._leadership = Leadership(
            api, NAME, config.lease_namespace, config.identity, config.lease_duration_s
        )
        self._news = asyncio.Event()

    def saw(self, isvc: Object, *, is_gone: bool) -> None:
        """An InferenceService as it is now, or as it was last."""
        key = isvc["metadata"]["namespace"], isvc["metadata"]["name"]
        if is_gone:
            self._services.pop(key, None)
        elif key in self._services:
            known, self._services[key].isvc = self._services[key].isvc, isvc
            if _annotations(known) != _annotations(isvc):
                self._news.set()
        elif settings.ENABLED in _annotations(isvc):
            self._services[key] = Service(isvc)
            self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            started = self._clock()
            try:
                await self.step(started)
                self._trouble = ""
            except (GlowplugError, OSError, TimeoutError) as error:
                # Once, not every few seconds.
                if self._trouble != str(error):
                    _log.warning("everything stays as it is: %s", error)
                self._trouble = str(error)
            except Exception:
                _log.exception("the warm floor's loop goes on after an error of its own")
            # Not more often than the demand is measured anew.
            await asyncio.sleep(_LEAST_PAUSE_S)
            left_s = self._config.interval_s - (self._clock() - started)
            try:
                await asyncio.wait_for(self._news.wait(), max(left_s, 0.01))
            except (asyncio.TimeoutError, TimeoutError):
                continue
            self._news.clear()

    async def step(self, now: float) -> None:
        """Measures, decides and writes once, if it is this controller's to do. Raises what the API raises."""
        was_ours = self._leadership.is_held
        if not await self._leadership.holds(now):
            return
        if not was_ours:
            _log.info("this controller acts from now on")
            # What another one has learned and done meanwhile is in the ConfigMaps.
            for service in self._services.values():
                service.memory = None
        await self._tick(now)

    async def close(self) -> None:
        """Put everything back as its user had it, keep what was learned, give the lease away."""
        if not self._leadership.is_held:
            return
        for service in tuple(self._services.values()):
            try:
                if service.memory is not None:
                    await self._let_go(service)
                    await self._save(service, self._clock())
            except (GlowplugError, OSError) as error:
                _log.error("%s/%s keeps its floor: %s", *service.key, error)
        await self._leadership.release()

    async def _tick(self, now: float) -> None:
        try:
            readings = await self._source.read(now)
        except (GlowplugError, OSError, TimeoutError) as error:
            readings = NoDemand(f"the demand cannot be read: {error}")
        for service in tuple(self._services.values()):
            try:
                await self._look_after(service, readings, now)
            except (GlowplugError, OSError, TimeoutError) as error:
                _log.warning("%s/%s stays as it is: %s", *service.key, error)
        await self._sweep()

    async def _look_after(self, service: Service, readings: Readings | NoDemand, now: float) -> None:
        try:
            asked = settings.parse(_annotations(service.isvc))
        except ConfigError as error:
            if service.warned != error.message:
                service.warned = error.message
                await self._tell(service.isvc, "WarmFloorInvalid", error.message, is_warning=True)
            asked = service.settings
            if asked is None:
                return
        else:
            service.warned = ""
        if service.memory is None:
            service.memory = await self._remembered(service)
        if asked is None:
            await self._dismiss(service)
            return
        service.settings = asked
        await self._decide(service, asked, readings, now)

    async def _decide(
        self, service: Service, asked: Settings, readings: Readings | NoDemand, now: float
    ) -> None:
        assert service.memory is not None, "read before"
        space, name = service.key
        selector = f"{names.INFERENCE_SERVICE_LABEL}={name}"
        found = await self._api.get(_REVISIONS.format(space), labelSelector=selector)
        pods = (await self._api.get(f"/api/v1/namespaces/{space}/pods", labelSelector=selector))["items"]
        current = revisions.live(service.isvc, found["items"])
        await self._warn_of_silence(service, readings)
        for component in sorted({each.component for each in current}):
            own = [each for each in current if each.component == component]
            of_component = [pod for pod in pods if _component(pod) == component]
            decision = self._decision(service, asked, own, of_component, readings, now)
            for revision in own:
                floor = math.ceil(decision.floor * revision.share - 1e-9)
                await self._set(service, revision, floor, decision.reason, now)
        by_name = {each["metadata"]["name"]: each for each in found["items"]}
        for revision_name in set(service.memory.grips) - {each.name for each in current}:
            await self._restore(service, revision_name, by_name.get(revision_name))
        if now >= service.saved_at + _SAVE_EVERY_S:
            await self._save(service, now)

    def _decision(
        self,
        service: Service,
        asked: Settings,
        own: list[Live],
        pods: list[Object],
        readings: Readings | NoDemand,
        now: float,
    ) -> Decision:
        """For one component, whose live revisions are `own`."""
        assert service.memory is not None, "read before"
        component, space = own[0].component, service.key[0]
        state = service.memory.states.get(component) or State()
        starts = [start for start in map(start_of, pods) if start is not None]
        state = replace(state, starts=state.starts.with_starts(starts))
        main = max(own, key=lambda each: each.share)
        demand: Measured | Unmeasured
        if isinstance(readings, Readings):
            metric = main.scaling.metric
            mean = sum(readings.of(f"{space}/{each.name}", metric) for each in own)
            requests = sum(readings.of(f"{space}/{each.name}", RPS) for each in own)
            demand = Measured(mean, requests if metric == CONCURRENCY and requests else None)
            grip = service.memory.grips.get(main.name)
            own_scale = grip.own if grip else main.annotations.get(names.MIN_SCALE)
            ready = sum(map(_is_ready, pods))
            ledger = service.ledgers.setdefault(component, Ledger())
            ledger.took(mean, ready, main, own_scale, state.starts.mean_s, now)
        else:
            demand = Unmeasured(readings.why)
        state, decision = decide(asked, state, demand, main.parameters.target, self._config.interval_s, now)
        service.memory = service.memory.with_state(component, state)
        service.decisions[component] = decision
        return decision

    async def _set(self, service: Service, revision: Live, floor: int, reason: str, now: float) -> None:
        assert service.memory is not None, "read before"
        present = revision.annotations.get(names.MIN_SCALE)
        grip = revisions.gripped(service.memory.grips.get(revision.name), revision.annotations)
        value = revisions.wanted(grip, revision, floor)
        if value == present:
            return
        # First what will be known of it, then the deed: a crash in between leaves a value that is known for ours.
        service.memory = service.memory.with_grip(revision.name, replace(grip, written=(present, value)))
        await self._save(service, now)
        await self._write(service, revision.name, value)
        message = f"min-scale of {revision.name} {_shown(present)} → {_shown(value)}: {reason}"
        is_more = int(value or 0) > int(present or 0)
        what = "WarmFloorRaised" if is_more else "WarmFloorLowered"
        await self._tell(service.isvc, what, message, is_warning=False)

    async def _write(self, service: Service, revision: str, value: str | None) -> None:
        path = f"{_REVISIONS.format(service.key[0])}/{revision}"
        await self._api.merge(path, revisions.patch(value))

    async def _warn_of_silence(self, service: Service, readings: Readings | NoDemand) -> None:
        """Once, when the demand has become unknown."""
        was, service.is_unmeasured = service.is_unmeasured, isinstance(readings, NoDemand)
        if isinstance(readings, Readings):
            service.warned_of_silence = ""
        elif was and service.warned_of_silence != readings.why:
            # Not at the first time: every source needs an interval to begin with.
            service.warned_of_silence = readings.why
            message = f"the floor is held, only the schedule moves it: {readings.why}"
            await self._tell(service.isvc, "WarmFloorNoDemand", message, is_warning=True)

    async def _restore(self, service: Service, revision: str, found: Object | None) -> None:
        """What its user had, where what stands there is ours; the grip is gone then."""
        assert service.memory is not None, "read before"
        grip = service.memory.grips[revision]
        if found is not None:
            present = (found["metadata"].get("annotations") or {}).get(names.MIN_SCALE)
            if present in grip.written and present != grip.own:
                await self._write(service, revision, grip.own)
                _log.info("%s/%s: min-scale of %s is %s again", *service.key, revision, _shown(grip.own))
        service.memory = service.memory.without_grip(revision)

    async def _let_go(self, service: Service) -> None:
        """All revisions as their user had them."""
        assert service.memory is not None, "read before"
        for revision in tuple(service.memory.grips):
            try:
                found = await self._api.get(f"{_REVISIONS.format(service.key[0])}/{revision}")
            except NotFound:
                found = None
            await self._restore(service, revision, found)

    async def _dismiss(self, service: Service) -> None:
        """It asks no more."""
        await self._let_go(service)
        await self._api.delete(self._config_map(service.key))
        self._services.pop(service.key, None)
        await self._tell(
            service.isvc, "WarmFloorOff", "the warm floor is off, min-scale is its own", is_warning=False
        )

    async def _tell(self, isvc: Object, reason: str, message: str, *, is_warning: bool) -> None:
        """Records an event; the log has it anyway, so one that cannot be recorded is no reason to stop."""
        _log.log(logging.WARNING if is_warning else logging.INFO, "%s: %s", isvc["metadata"]["name"], message)
        event = events.event(isvc, NAME, reason, message, is_warning=is_warning, now=self._clock())
        try:
            await self._api.create(f"/api/v1/namespaces/{isvc['metadata']['namespace']}/events", event)
        except (ApiError, OSError) as error:
            _log.warning("the event cannot be recorded: %s", error)

    async def _sweep(self) -> None:
        """Services that asked while nobody ran, and stopped asking before anybody did."""
        spaces = [f"/namespaces/{space}" for space in self._config.namespaces] or [""]
        lists = [
            await self._api.get(f"/api/v1{space}/configmaps", labelSelector=f"{LABEL}=state")
            for space in spaces
        ]
        for config_map in (each for found in lists for each in found["items"]):
            metadata = config_map["metadata"]
            key = metadata["namespace"], metadata["name"].removesuffix("-warm-floor")
            if key in self._services:
                continue
            try:
                isvc = await self._api.get(_SERVICES.format(*key))
            except NotFound:
                continue  # its ConfigMap goes the same way
            self._services[key] = Service(isvc)

    async def _remembered(self, service: Service) -> Memory:
        name = f"{service.key[1]}-warm-floor"
        try:
            found = await self._api.get(self._config_map(service.key))
        except NotFound:
            return Memory()
        return memory.load(found.get("data") or {}, name)

    async def _save(self, service: Service, now: float) -> None:
        assert service.memory is not None, "read before"
        data = {**memory.dump(service.memory), memory.REPORT: json.dumps(self._report(service), indent=1)}
        space, name = service.key
        path = self._config_map(service.key)
        try:
            await self._api.merge(path, {"data": data})
        except NotFound:
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": f"{name}-warm-floor",
                    "namespace": space,
                    "labels": {LABEL: "state"},
                    "ownerReferences": [_owner(service.isvc)],
                },
                "data": data,
            }
            await self._api.create(path.rpartition("/")[0], body)
        service.saved_at = now

    def _report(self, service: Service) -> Mapping[str, object]:
        assert service.memory is not None, "read before"
        components = {}
        for component, decision in service.decisions.items():
            starts = service.memory.states[component].starts
            ledger = service.ledgers.get(component)
            account = ledger.account().as_object() if ledger else None
            components[component] = {
                "floor": decision.floor,
                "reason": decision.reason,
                "startSeconds": starts.mean_s,
                "starts": starts.count,
                **({"account": account, "inWords": in_words(account)} if account else {}),
            }
        return {"controller": self._config.identity, "components": components}

    @staticmethod
    def _config_map(key: Key) -> str:
        return f"/api/v1/namespaces/{key[0]}/configmaps/{key[1]}-warm-floor"


def _owner(isvc: Object) -> Object:
    metadata = isvc["metadata"]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def _annotations(isvc: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = isvc["metadata"].get("annotations") or {}
    return found


def _component(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get(names.COMPONENT_LABEL, ""))


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _shown(min_scale: str | None) -> str:
    return "none" if min_scale is None else min_scale
