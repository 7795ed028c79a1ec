"""Who follows whom as champion: the registry's aliases moved, noted in the model's state, told.

Most often a rollout's end says so, or the new revision that is Ready. Where a version is merged by a person and no
rollout is asked for, nobody does: then whoever answers the model's next event looks whether it serves by now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from glowplug.errors import GlowplugError, NotFound
from glowplug.operators.api import Api
from glowplug.registry import aliases
from glowplug_pipelines.deploying import direct
from glowplug_pipelines.deploying.deployment import Awaits, Deployment
from glowplug_pipelines.deploying.settings import DeploySettings
from glowplug_pipelines.settings import Settings

from .announcer import Announcer
from .keeper import Keeper
from .state import Challenger, Stage, State

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Succession:
    """Of one model. `clock` is in seconds since the epoch."""

    settings: Settings
    deploying: DeploySettings
    api: Api
    keeper: Keeper
    announcer: Announcer
    clock: Callable[[], float]

    async def note(self, deployment: Deployment) -> None:
        """A version that was deployed and is to be decided on."""
        version = deployment.version
        challenger = Challenger(
            deployment.run_id, version.version, version.storage_uri, Stage.DEPLOYED, self.clock()
        )
        await self.keeper.change(lambda state: (_with_challenger(state, challenger), None))

    async def decide(self, version: str, reason: str, *, is_promoted: bool) -> str:
        """The champion moved, or the challenger rejected; again is the same. Returns what is told.

        Raises StorageError where the registry is away, and what the API raises.
        """
        registry, model, now = self.settings.registry, self.settings.model, self.clock()
        if is_promoted:
            await asyncio.to_thread(aliases.promote, registry, model, version)
        else:
            await asyncio.to_thread(aliases.reject, registry, model, version, reason)
        stage = Stage.PROMOTED if is_promoted else Stage.REJECTED

        def noted(state: State) -> tuple[State, None]:
            known = state.challenger
            if known is None or known.version != version:
                return state, None
            return replace(state, challenger=replace(known, stage=stage, at=now, reason=reason)), None

        await self.keeper.change(noted)
        told = f"{model} version {version} is {'champion' if is_promoted else 'rejected'}: {reason}"
        name = "ChampionMoved" if is_promoted else "ChallengerRejected"
        await self.announcer.record(f"{model}-{version}", name, told, now, is_warning=not is_promoted)
        return told

    async def catch_up(self) -> None:
        """The last challenger made champion where it serves by now, and no rollout is to say so.

        What goes wrong is logged: the next event looks again.
        """
        try:
            challenger = (await self.keeper.read()).challenger
            if challenger is None or challenger.stage is not Stage.DEPLOYED:
                return
            isvc = await self.api.get(direct.path_of(self.deploying))
            if await direct.awaits(self.api, self.deploying, isvc) is not Awaits.READY:
                return
            if direct.storage_uri_of(isvc, self.deploying.component) != challenger.storage_uri:
                return
            if not await direct.trouble_of(self.api, self.deploying, isvc):
                await self.decide(challenger.version, "it serves", is_promoted=True)
        except NotFound:
            return  # it may be served somewhere else
        except (GlowplugError, OSError, TimeoutError) as error:
            _log.warning("whether the last challenger serves cannot be known: %s", error)


def _with_challenger(state: State, challenger: Challenger) -> State:
    known = state.challenger
    # Deployed by an attempt before this one: what was decided meanwhile stays.
    if known is not None and (known.run, known.version) == (challenger.run, challenger.version):
        return state
    return replace(state, challenger=challenger)
