"""A registered challenger put to work as a step of its own, where no event asked for the run (Argo, a person)."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glowplug.errors import ConfigError, NotFound
from glowplug.operators.api import Api
from glowplug_pipelines.deploying import direct
from glowplug_pipelines.deploying.deploying import deploy
from glowplug_pipelines.deploying.deployment import Awaits, Deployed, Deployment
from glowplug_pipelines.deploying.errors import DeployError
from glowplug_pipelines.deploying.forge import GitHub
from glowplug_pipelines.deploying.settings import DeploySettings, deploy_settings_of
from glowplug_pipelines.run import Outcome, Run, write_atomically
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.steps import DEPLOY, GATE
from glowplug_pipelines.steps.gating import card_of
from glowplug_pipelines.steps.registering import version_of
from glowplug_pipelines.triggering.announcer import Announcer
from glowplug_pipelines.triggering.keeper import Keeper
from glowplug_pipelines.triggering.rules import Rules, rules_of
from glowplug_pipelines.triggering.succession import Succession

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

_TIMEOUT_S = 15.0
_BEFORE = "before-deploy.json"


def put_to_work(
    run: Run, settings: Settings, registered: Outcome, connection: SingleConfig, token: str
) -> Outcome:
    """Where no rollout decides, the version becomes champion once it is ready; where it never is, it is rejected,
    and what was served before is put back.

    Raises `ConfigError` for a run without a version, `DeployError`, `ApiError`, OSError.
    """
    version = version_of(registered, run.request.model)
    if version is None:
        raise ConfigError(
            f"run {run.request.id} registered no version", hint="its challenger did not pass the gate"
        )
    rules = rules_of(settings)
    target = deploy_settings_of(settings, rules.inference_service)
    deployment = Deployment(run.request.id, version, card_of(run.need(GATE)))
    work = _Work(run, settings, rules, target, connection, token)

    def make(folder: Path) -> dict[str, Any]:
        deployed = asyncio.run(work.deploy(deployment))
        return {"place": deployed.place, "awaits": deployed.awaits.value, "url": deployed.url}

    return run.step(DEPLOY, {"register": registered.digest}, make)


@dataclass(frozen=True)
class _Work:
    run: Run
    settings: Settings
    rules: Rules
    target: DeploySettings
    connection: SingleConfig
    token: str

    async def deploy(self, deployment: Deployment) -> Deployed:
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(Api(self.connection, _TIMEOUT_S))
            announcer = await stack.enter_async_context(Announcer(api, self.rules, ""))
            forge = None
            if self.target.mode == "gitops" and self.target.pull_request is not None:
                forge = await stack.enter_async_context(GitHub(self.target.pull_request, self.token))
            # Asked for by name, it replaces whatever is there; that is known only for being put back.
            before = await self._before(api, deployment)
            deployed = await deploy(self.target, deployment, api, self.token, forge)
            keeper = Keeper(api, self.rules)
            succession = Succession(self.settings, self.target, api, keeper, announcer, time.time)
            await succession.note(deployment)
            if deployed.awaits is not Awaits.READY:
                return deployed
            trouble = await direct.wait_ready(api, self.target, replace(deployment, previous=before))
            number = deployment.version.version
            await succession.decide(number, trouble or "it is ready", is_promoted=not trouble)
            if trouble:
                raise DeployError(f"{deployed.place}: {trouble}")
            return deployed

    async def _before(self, api: Api, deployment: Deployment) -> str | None:
        """The storageUri that the version replaces, also for the process that follows a killed one."""
        if self.target.mode != "direct":
            return None
        note = self.run.folder / _BEFORE
        try:
            isvc = await api.get(direct.path_of(self.target))
            found = direct.storage_uri_of(isvc, self.target.component)
        except (NotFound, DeployError):
            return None  # `deploy` says so
        if found != deployment.version.storage_uri:
            write_atomically(note, {"storage_uri": found})
        return str(json.loads(note.read_text())["storage_uri"]) if note.exists() else None
