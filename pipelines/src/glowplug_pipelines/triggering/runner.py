"""Answers one event: waits its turn, has the steps made, deploys, tells; and goes on with what waited meanwhile.

A process that dies anywhere is followed by another with the same run id, which goes on behind the last thing that is
done; each thing done twice is done once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from glowplug.errors import GlowplugError, NotFound
from glowplug.operators.api import Api
from glowplug.registry.models import resolve
from glowplug_pipelines.deploying import direct
from glowplug_pipelines.deploying.conclusion import concerned
from glowplug_pipelines.deploying.deploying import deploy
from glowplug_pipelines.deploying.deployment import Awaits, Deployment
from glowplug_pipelines.deploying.errors import DeployError
from glowplug_pipelines.deploying.forge import GitHub
from glowplug_pipelines.deploying.settings import DeploySettings
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.workload import Progress

from . import admission
from .admission import Admitted, LeaseLost, Skipped, Waiting
from .announcer import Announcer
from .heart import Heart, in_thread
from .keeper import Keeper
from .result import Ending, Result, Steps, Surroundings
from .rules import Rules
from .state import Outcome, Running, Seen, State
from .succession import Succession
from .trigger import RolloutEnded, Trigger

_log = logging.getLogger(__name__)


class Runner:
    """Answers one event, and what waits behind it."""

    def __init__(
        self,
        settings: Settings,
        rules: Rules,
        deploying: DeploySettings,
        around: Surroundings,
        api: Api,
        announcer: Announcer,
    ) -> None:
        self._settings, self._rules, self._deploying = settings, rules, deploying
        self._around, self._api, self._announcer = around, api, announcer
        self._keeper = Keeper(api, rules)
        self._succession = Succession(settings, deploying, api, self._keeper, announcer, around.clock)
        self._running: Running | None = None

    async def answer(self, asked: Trigger, steps: Steps, progress: Progress) -> Result:
        """A run for `asked`, or why there is none; and the runs for what waited meanwhile."""
        await self._succession.catch_up()
        decision = await self._admitted(asked)
        await self._tell_news()
        if isinstance(decision, Skipped):
            await self._announcer.skipped(asked, decision.reason, self._around.clock())
            return Result(Ending.SKIPPED, decision.reason)
        if isinstance(decision, Waiting):
            return Result(Ending.WAITING, decision.reason)
        first: Result | None = None
        admitted: Admitted | None = decision
        while admitted is not None:
            result, admitted = await self._run(admitted, steps, progress)
            first = first or result
        assert first is not None
        return first

    async def give_back(self) -> Result:
        """The run left to the next process."""
        running = self._running
        if running is None:
            return Result(Ending.FAILED, "stopped before it began")
        run, holder = running.run, running.holder
        await self._keeper.change(lambda state: (admission.give_back(state, run, holder), None))
        return Result(Ending.FAILED, "stopped by SIGTERM; the next process goes on", run)

    async def conclude(self, ended: RolloutEnded) -> Result:
        """The champion moved, or the challenger rejected. Raises StorageError where the registry is away."""
        rules = self._rules
        if (ended.namespace, ended.inference_service) != (rules.namespace, rules.inference_service):
            return Result(Ending.IGNORED, f"it is about {ended.namespace}/{ended.inference_service}")
        challenger = (await self._keeper.read()).challenger
        whose = await concerned(self._api, self._deploying, ended, challenger)
        if not whose.version:
            return Result(Ending.IGNORED, whose.reason)
        known = await asyncio.to_thread(resolve, self._settings.registry, rules.model, whose.version)
        if known.storage_uri != whose.storage_uri:
            return Result(
                Ending.IGNORED, f"{whose.storage_uri} is not version {whose.version}: written by hand"
            )
        told = await self._succession.decide(whose.version, ended.reason, is_promoted=ended.is_promoted)
        return Result(Ending.PROMOTED if ended.is_promoted else Ending.REJECTED, told)

    async def _admitted(self, asked: Trigger) -> admission.Decision:
        """The decision, when it is one: while another process may be dead this looks again."""
        seen = Seen()
        while True:
            now = self._around.clock()

            def decide(state: State, now: float = now) -> tuple[State, admission.Decision]:
                nonlocal seen
                seen = seen.again(state.running, now)
                return admission.admit(self._rules, state, asked, now, self._around.holder, seen)

            decision = await self._keeper.change(decide)
            if not isinstance(decision, Waiting) or decision.ask_again_s is None:
                return decision
            _log.info("%s: waiting: %s", self._rules.model, decision.reason)
            await asyncio.sleep(decision.ask_again_s)

    async def _run(
        self, admitted: Admitted, steps: Steps, progress: Progress
    ) -> tuple[Result, Admitted | None]:
        running = self._running = admitted.running
        heart = Heart(self._keeper, running, self._rules.lease_s, self._around.clock)
        facts: dict[str, Any] = {}
        try:
            await self._announcer.started(running, admitted.reason, self._around.clock())
            outcome, reason = await self._ended(heart, self._work(running, heart, facts, steps, progress))
            return await self._finish(running, outcome, reason, facts)
        except LeaseLost as error:
            _log.warning("%s", error.message)
            self._running = None
            return Result(Ending.FAILED, error.message, running.run), None

    async def _ended(self, heart: Heart, work: Awaitable[tuple[Outcome, str]]) -> tuple[Outcome, str]:
        try:
            return await heart.during(work)
        except LeaseLost:
            raise
        except (GlowplugError, OSError, TimeoutError) as error:
            return Outcome.FAILED, _told(error)
        except Exception as error:
            _log.exception("a run ends with an error of its own")
            return Outcome.FAILED, f"{type(error).__name__}: {error}"

    async def _finish(
        self, running: Running, outcome: Outcome, reason: str, facts: dict[str, Any]
    ) -> tuple[Result, Admitted | None]:
        after: Admitted | None = await self._keeper.change(
            lambda state: admission.finish(
                self._rules,
                state,
                running.run,
                running.holder,
                outcome,
                reason,
                facts,
                self._around.clock(),
            )
        )
        self._running = after.running if after else None
        await self._tell_news()
        return Result(Ending(outcome.value), reason, running.run), after

    async def _work(
        self, running: Running, heart: Heart, facts: dict[str, Any], steps: Steps, progress: Progress
    ) -> tuple[Outcome, str]:
        """How the run ends. Puts into `facts` what is known of it as soon as it is known."""
        running = await self._with_before(running)

        def watched(what: str, done: int, total: int) -> None:
            if heart.is_stopped.is_set():
                raise LeaseLost(f"{running.run} is not ours any more")
            progress(what, done, total)

        made = await in_thread(lambda: steps(self._settings, running, watched), f"steps of {running.run}")
        facts |= {**made.facts, "verdict": made.verdict}
        if made.version is not None:
            facts |= {"version": made.version.version, "storage_uri": made.version.storage_uri}
            await self._announcer.registered(running, made.reason, facts, self._around.clock())
        if not made.is_better or made.version is None:
            return Outcome.KEPT, made.reason
        await heart.beat()  # nobody else may be about to deploy
        deployment = Deployment(running.run, made.version, made.card, running.before)
        return Outcome.DEPLOYED, await self._deploy(deployment)

    async def _with_before(self, running: Running) -> Running:
        """With the storageUri that the run found when it first began. Raises DeployError where there can be none."""
        if running.before is not None:
            return running
        try:
            isvc = await self._api.get(direct.path_of(self._deploying))
        except NotFound as error:
            if self._deploying.mode == "gitops":
                return running  # it may be served somewhere else
            raise DeployError(
                f"InferenceService {self._deploying.namespace}/{self._deploying.inference_service} is not there",
                hint="create it with the champion first; versions replace it",
            ) from error
        before = direct.storage_uri_of(isvc, self._deploying.component)
        run, holder = running.run, running.holder
        await self._keeper.change(lambda state: (admission.observe(state, run, holder, before), None))
        return replace(running, before=before)

    async def _deploy(self, deployment: Deployment) -> str:
        async with AsyncExitStack() as stack:
            forge = None
            if self._deploying.mode == "gitops" and self._deploying.pull_request is not None:
                forge = await stack.enter_async_context(
                    GitHub(self._deploying.pull_request, self._around.token)
                )
            deployed = await deploy(self._deploying, deployment, self._api, self._around.token, forge)
        await self._succession.note(deployment)
        version = deployment.version
        told = f"version {version.version} is in {deployed.place}"
        if deployed.awaits is not Awaits.READY:
            return f"{told}, waiting for its {deployed.awaits.value}"
        trouble = await direct.wait_ready(self._api, self._deploying, deployment)
        await self._succession.decide(version.version, trouble or "it is ready", is_promoted=not trouble)
        if trouble:
            raise DeployError(f"{told}, and {trouble}")
        return f"{told}, and ready"

    async def _tell_news(self) -> None:
        """Every end of a run that is still to be told."""
        news = (await self._keeper.read()).news
        for each in news:
            await self._announcer.ended(each, self._around.clock())
        told = {each.id for each in news}
        if told:
            await self._keeper.change(
                lambda state: (
                    replace(state, news=tuple(each for each in state.news if each.id not in told)),
                    None,
                )
            )


def _told(error: BaseException) -> str:
    message = getattr(error, "message", "") or f"{type(error).__name__}: {error}"
    hint = getattr(error, "hint", "")
    return f"{message} ({hint})" if hint else message
