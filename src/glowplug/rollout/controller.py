"""The loop: each second, for each rollout that goes on, it reads, decides, writes, and tells.

The state of a rollout is in the InferenceService's annotation, in the same write as the weight, and each write is made
only if nobody wrote in between: a controller that is cut off anywhere leaves something that the next one goes on from.
An InferenceService without a rollout that goes on costs nothing but a look at what the watch says of it.

It acts only while it holds the lease. Who sees the InferenceServices is kopf, in `operators.operator`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from glowplug.errors import ConfigError, Conflict, GlowplugError, NotFound
from glowplug.operators.api import Api, Object
from glowplug.operators.leadership import Leadership
from glowplug.spec import names

from . import conditions, membership, plan, record, settings
from .announcer import NAME, Announcer
from .assessment import Assessment, Source
from .observation import Observation, annotations_of, observe
from .plan import Ruling
from .revisions import Revisions
from .settings import Action, Settings
from .state import Phase, State
from .sums import sum_of

_log = logging.getLogger(__name__)
_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/{}"
_KNATIVE_SERVICES = "/apis/serving.knative.dev/v1/namespaces/{}/services"
_LEAST_PAUSE_S = 0.2
_RENEWALS = 3  # of the lease, before it runs out

Key = tuple[str, str]


@dataclass(frozen=True)
class ControllerConfig:
    """Times are seconds. `identity` is this controller's, unlike any other's.

    Evidence is saved every `save_every_s`: so much of it is lost with a controller that dies, and each save makes
    KServe look at the service. What cannot be measured for `blind_after_s` is told.
    """

    identity: str
    interval_s: float = 1.0
    save_every_s: float = 10.0
    blind_after_s: float = 45.0
    lease_namespace: str = "default"
    lease_duration_s: int = 15


class Rollout:
    """What this process knows of one InferenceService. `text` is the annotation that `state` was read from or written
    to; `saved` the state as it was then."""

    def __init__(self) -> None:
        self.state = State()
        self.saved = State()
        self.text: str | None = None
        self.saved_at = 0.0
        self.shown_at = 0.0
        self.settings: Settings | None = None
        self.warned = ""
        self.assessment: Assessment | None = None


class Controller:
    """`new_source` makes something to read the canary's answers from, which measures these metrics at least; `metrics`
    are all that can be measured. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        api: Api,
        new_source: Callable[[frozenset[str]], Source],
        metrics: frozenset[str],
        announcer: Announcer,
        config: ControllerConfig,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._new_source, self._announcer = api, new_source, announcer
        self._config, self._clock = config, clock
        self._metrics = metrics
        self._rollouts: dict[Key, Rollout] = {}
        self._leadership = Leadership(
            api, NAME, config.lease_namespace, config.identity, config.lease_duration_s
        )
        self._renew_at = 0.0
        self._news = asyncio.Event()

    def saw(self, isvc: Object, *, is_gone: bool) -> None:
        """An InferenceService as it is now, or as it was last."""
        key = isvc["metadata"]["namespace"], isvc["metadata"]["name"]
        if is_gone:
            self._rollouts.pop(key, None)
        elif wants_attention(isvc, self._metrics):
            self._rollouts.setdefault(key, Rollout())
            self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        trouble = ""
        while True:
            if not self._rollouts:
                # Also while there is nothing to do it is to be seen that somebody is there.
                await self._wait(self._config.lease_duration_s / _RENEWALS)
            self._news.clear()
            try:
                await self.step(self._clock())
                trouble = ""
            except (GlowplugError, OSError, TimeoutError) as error:
                if trouble != str(error):  # once, not every second
                    _log.warning("all weights stay as they are: %s", error)
                trouble = str(error)
            except Exception:
                _log.exception("the loop of the rollouts goes on after an error of its own")
            await asyncio.sleep(_LEAST_PAUSE_S)
            if self._rollouts:
                await self._wait(max(0.0, self._config.interval_s - _LEAST_PAUSE_S))

    async def step(self, now: float) -> None:
        """Everything once, if it is this controller's to do. Raises what the API raises of the lease."""
        if not await self._leads(now):
            return
        # Side by side: a source that does not answer must not keep another service's canary in traffic.
        await asyncio.gather(*(self._attend(key, rollout, now) for key, rollout in self._rollouts.items()))

    async def close(self) -> None:
        """Keep what was measured, give the lease away."""
        if not self._leadership.is_held:
            return
        for key, rollout in self._rollouts.items():
            if rollout.state == rollout.saved:
                continue
            try:
                isvc = await self._api.get(_SERVICES.format(*key))
                if annotations_of(isvc).get(names.ROLLOUT_STATE) == rollout.text:
                    await self._write(isvc, rollout, rollout.state, {}, None, self._clock())
            except (GlowplugError, OSError, TimeoutError) as error:
                _log.warning("%s/%s: what was measured last is lost: %s", *key, error)
        await self._leadership.release()

    async def _wait(self, most_s: float) -> None:
        """For an InferenceService that wants attention."""
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._news.wait(), most_s)

    async def _attend(self, key: Key, rollout: Rollout, now: float) -> None:
        try:
            await self._look_after(key, rollout, now)
        except NotFound:
            self._rollouts.pop(key, None)
        except Conflict:
            _log.debug("%s/%s: somebody wrote in between", *key)
        except (GlowplugError, OSError, TimeoutError) as error:
            _log.warning("%s/%s stays as it is: %s", *key, error)
        except Exception:
            _log.exception("%s/%s stays as it is after an error of our own", *key)

    async def _leads(self, now: float) -> bool:
        renew_every_s = self._config.lease_duration_s / _RENEWALS
        # A clock that was set back must not keep the lease from being renewed.
        if self._leadership.is_held and self._renew_at - renew_every_s <= now < self._renew_at:
            return True
        was_ours = self._leadership.is_held
        if not await self._leadership.holds(now):
            return False
        self._renew_at = now + renew_every_s
        if not was_ours:
            _log.info("this controller acts from now on")
            for rollout in self._rollouts.values():
                rollout.text = None  # what another one has decided meanwhile is in the annotations
        return True

    async def _look_after(self, key: Key, rollout: Rollout, now: float) -> None:
        isvc = await self._api.get(_SERVICES.format(*key))
        annotations = annotations_of(isvc)
        if names.ROLLOUT_STEPS not in annotations:
            await self._dismiss(key, isvc)
            return
        self._recall(rollout, annotations.get(names.ROLLOUT_STATE))
        asked = await self._settings(isvc, rollout, now)
        if asked is None:
            if not rollout.state.is_active:
                self._rollouts.pop(key, None)
            return
        seen = await _seen(self._api, isvc, rollout.state)
        if lost := membership.lost(rollout.state, seen):
            await self._restore(isvc, lost, now)
            return
        action, refusal = _action(annotations)
        if refusal:
            await self._announcer.warn(isvc, "RolloutActionRefused", refusal, now)
        ruling = await self._ruling(key, rollout, asked, now)
        decided = plan.decide(asked, rollout.state, seen, ruling, action, now)
        isvc = await self._commit(isvc, rollout, decided, seen, now)
        rollout.state = await self._announcer.tell(isvc, rollout.state, now)
        is_shown = await self._show(isvc, rollout, conditions.conditions_of(rollout.state), now)
        is_settled = not (rollout.state.is_active or rollout.state.news) and rollout.state == rollout.saved
        if is_settled and is_shown:
            self._rollouts.pop(key, None)

    def _recall(self, rollout: Rollout, text: str | None) -> None:
        """The state as it is written, unless it is our own: that may know more by now."""
        if text is not None and text == rollout.text:
            return
        rollout.text = text
        rollout.state = rollout.saved = record.load(text) or State()
        rollout.assessment = None

    async def _settings(self, isvc: Object, rollout: Rollout, now: float) -> Settings | None:
        """What is asked; what was asked before where it cannot be understood."""
        try:
            asked = settings.parse(annotations_of(isvc), self._metrics)
        except ConfigError as error:
            if rollout.warned != error.message and not conditions.tells_of(isvc, error.message):
                await self._announcer.warn(isvc, "RolloutInvalid", error.message, now)
            rollout.warned = error.message
            if not rollout.state.is_active or rollout.settings is None:
                await self._show(isvc, rollout, conditions.invalid(error.message), now)
            return rollout.settings
        rollout.warned, rollout.settings = "", asked
        return asked

    async def _ruling(self, key: Key, rollout: Rollout, asked: Settings, now: float) -> Ruling | None:
        """Reads what there is to read, adds it to the evidence, and asks the judge."""
        state = rollout.state
        if state.phase is not Phase.PROGRESSING:
            return None
        if rollout.assessment is None:
            rollout.assessment = Assessment(key[0], self._new_source, self._config.blind_after_s)
        readings = await rollout.assessment.read(state.members, asked.gates, now)
        evidence = dict(state.evidence)
        for name, reading in readings.items():
            evidence[name] = sum_of([evidence[name], reading]) if name in evidence else reading
        rollout.state = replace(state, evidence=evidence)
        return rollout.assessment.rule(asked, state.members, evidence, now)

    async def _commit(
        self, isvc: Object, rollout: Rollout, decided: State, seen: Observation, now: float
    ) -> Object:
        """Writes what was decided if it has to be written; until then it is not what this controller goes on from."""
        percents = membership.percents(decided, seen) if decided.is_active or rollout.state.is_active else {}
        action = annotations_of(isvc).get(names.ROLLOUT_ACTION)
        is_due = now >= rollout.saved_at + self._config.save_every_s and decided != rollout.saved
        if percents or action is not None or is_due or _gist(decided) != _gist(rollout.saved):
            isvc = await self._write(isvc, rollout, decided, percents, action, now)
        if decided.weight != rollout.state.weight and rollout.assessment is not None:
            rollout.assessment.forget_recent()
        if decided.members != rollout.state.members:
            rollout.assessment = None
        rollout.state = decided
        return isvc

    async def _write(
        self,
        isvc: Object,
        rollout: Rollout,
        state: State,
        percents: dict[str, int | None],
        action: str | None,
        now: float,
    ) -> Object:
        text = record.dump(state)
        annotations: dict[str, str | None] = {names.ROLLOUT_STATE: text}
        if action is not None:
            annotations[names.ROLLOUT_ACTION] = None
        body: Object = {"metadata": {**_version(isvc), "annotations": annotations}}
        if percents:
            body["spec"] = {name: {"canaryTrafficPercent": percent} for name, percent in percents.items()}
        written = await self._api.merge(_path(isvc), body)
        rollout.text, rollout.saved, rollout.saved_at = text, state, now
        return written

    async def _restore(self, isvc: Object, lost: dict[str, str], now: float) -> None:
        """Tells KServe again which revisions are the stable ones: it keeps them in the status and nowhere else."""
        components = {name: {"latestRolledoutRevision": revision} for name, revision in lost.items()}
        body = {"metadata": _version(isvc), "status": {"components": components}}
        await self._api.merge(f"{_path(isvc)}/status", body)
        revisions = ", ".join(lost.values())
        message = f"KServe took another revision for the last good one; it is {revisions} again"
        await self._announcer.warn(isvc, "RolloutStableRestored", message, now)

    async def _show(self, isvc: Object, rollout: Rollout, wanted: list[dict[str, str]], now: float) -> bool:
        """Writes the conditions; whether they are as they should be. The numbers in them may be some seconds old."""
        present = (isvc.get("status") or {}).get("conditions") or []
        ours = [each for each in present if each.get("type") in conditions.TYPES]
        if _said(ours, "message") == _said(wanted, "message"):
            return True
        is_same = _said(ours) == _said(wanted)
        if is_same and rollout.state.is_active and now < rollout.shown_at + self._config.save_every_s:
            return False
        body = {"metadata": _version(isvc), "status": {"conditions": conditions.merged(present, wanted, now)}}
        await self._api.merge(f"{_path(isvc)}/status", body)
        rollout.shown_at = now
        return True

    async def _dismiss(self, key: Key, isvc: Object) -> None:
        """It asks no more: the weight stays, since only its user can know what it should be."""
        annotations = annotations_of(isvc)
        ours = {key: None for key in (names.ROLLOUT_STATE, names.ROLLOUT_ACTION) if key in annotations}
        if ours:
            isvc = await self._api.merge(_path(isvc), {"metadata": {**_version(isvc), "annotations": ours}})
            await self._tell_what_stays(isvc)
        await self._show(isvc, Rollout(), [], self._clock())
        self._rollouts.pop(key, None)

    async def _tell_what_stays(self, isvc: Object) -> None:
        components = observe(isvc).components.items()
        percents = [f"{name} at {each.percent}" for name, each in components if each.percent is not None]
        if percents:
            message = f"no rollouts are asked for any more; canaryTrafficPercent stays: {', '.join(percents)}"
            await self._announcer.warn(isvc, "RolloutLeft", message, self._clock())


def wants_attention(isvc: Object, metrics: frozenset[str]) -> bool:
    """Whether there is anything to do about an InferenceService, as far as it tells by itself."""
    annotations = annotations_of(isvc)
    text = annotations.get(names.ROLLOUT_STATE)
    if names.ROLLOUT_STEPS not in annotations:
        return text is not None
    try:
        settings.parse(annotations, metrics)
    except ConfigError:
        return True
    state = record.load(text) or State()
    is_unsettled = state.is_active or bool(state.news) or names.ROLLOUT_ACTION in annotations
    is_untold = conditions.is_invalid(isvc) or conditions.is_untold(isvc, state)
    seen = observe(isvc)
    is_overruled = state.phase is Phase.ROLLED_BACK and membership.has_rolled_out(state, seen)
    return is_unsettled or is_untold or is_overruled or bool(membership.unforeseen(state, seen))


async def _seen(api: Api, isvc: Object, state: State) -> Observation:
    """The InferenceService with what must be looked up beside it, as far as its rollout needs that now."""
    space = isvc["metadata"]["namespace"]
    selector = f"{names.INFERENCE_SERVICE_LABEL}={isvc['metadata']['name']}"
    pods: list[Object] = []
    services: list[Object] = []
    canaries = [member.canary for member in state.members.values() if member.canary]
    is_before = state.phase in (Phase.STARTING, Phase.ROLLING_BACK)
    if is_before and len(canaries) < len(state.members):
        path = _KNATIVE_SERVICES.format(space)
        services = (await api.get(path, labelSelector=selector))["items"]
    elif state.phase in (Phase.STARTING, Phase.PROGRESSING):
        path = f"/api/v1/namespaces/{space}/pods"
        pods = (await api.get(path, labelSelector=selector))["items"]
    seen = observe(isvc, pods, canaries, services)
    return await Revisions(api).compared(space, seen, membership.questions(state, seen))


def _action(annotations: Any) -> tuple[Action | None, str]:
    """The action that is asked for, or what is wrong with it."""
    try:
        return settings.parse_action(annotations), ""
    except ConfigError as error:
        return None, error.message


def _gist(state: State) -> State:
    """What of a state must not wait to be written."""
    verdict = state.verdict and replace(state.verdict, reason="", gates=())
    return replace(state, evidence={}, verdict=verdict, hold="held" if state.hold else "")


def _said(found: list[dict[str, Any]], *more: str) -> set[tuple[str, ...]]:
    return {tuple(str(each.get(key, "")) for key in ("type", "status", "reason", *more)) for each in found}


def _path(isvc: Object) -> str:
    return _SERVICES.format(isvc["metadata"]["namespace"], isvc["metadata"]["name"])


def _version(isvc: Object) -> Object:
    return {"resourceVersion": isvc["metadata"]["resourceVersion"]}
