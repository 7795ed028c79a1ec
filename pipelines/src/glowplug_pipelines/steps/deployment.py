"""A registered challenger put to work as a step of its own, where no event asked for the run (Argo, a person)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glowplug.errors import ConfigError
from glowplug.operators.api import Api
from glowplug.registry import aliases
from glowplug_pipelines.deploying import direct
from glowplug_pipelines.deploying.deploying import deploy
from glowplug_pipelines.deploying.deployment import Awaits, Deployed, Deployment
from glowplug_pipelines.deploying.errors import DeployError
from glowplug_pipelines.deploying.forge import GitHub
from glowplug_pipelines.deploying.settings import DeploySettings, deploy_settings_of
from glowplug_pipelines.run import Outcome, Run
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.steps import DEPLOY, GATE
from glowplug_pipelines.steps.gating import card_of
from glowplug_pipelines.steps.registering import version_of
from glowplug_pipelines.triggering.rules import rules_of

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

_TIMEOUT_S = 15.0


def put_to_work(
    run: Run, settings: Settings, registered: Outcome, connection: SingleConfig, token: str
) -> Outcome:
    """Where no rollout decides, the version becomes champion once it is ready.

    Raises `ConfigError` for a run without a version, `DeployError`, `ApiError`, OSError.
    """
    version = version_of(registered, run.request.model)
    if version is None:
        raise ConfigError(
            f"run {run.request.id} registered no version", hint="its challenger did not pass the gate"
        )
    target = deploy_settings_of(settings, rules_of(settings).inference_service)
    deployment = Deployment(run.request.id, version, card_of(run.need(GATE)))

    def make(folder: Path) -> dict[str, Any]:
        deployed = asyncio.run(_deploy(target, deployment, connection, token))
        if deployed.awaits is Awaits.READY:
            aliases.promote(settings.registry, version.name, version.version)
        return {"place": deployed.place, "awaits": deployed.awaits.value, "url": deployed.url}

    return run.step(DEPLOY, {"register": registered.digest}, make)


async def _deploy(
    target: DeploySettings, deployment: Deployment, connection: SingleConfig, token: str
) -> Deployed:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(connection, _TIMEOUT_S))
        forge = None
        if target.mode == "gitops" and target.pull_request is not None:
            forge = await stack.enter_async_context(GitHub(target.pull_request, token))
        deployed = await deploy(target, deployment, api, token, forge)
        if deployed.awaits is Awaits.READY:
            trouble = await direct.wait_ready(api, target, deployment.version.storage_uri)
            if trouble:
                raise DeployError(f"{deployed.place}: {trouble}")
        return deployed
