"""A version deployed as the settings say: into the InferenceService, or as a commit and a pull request."""

from __future__ import annotations

import asyncio

from glowplug.operators.api import Api

from . import direct, manifest
from .deployment import Awaits, Deployed, Deployment
from .errors import DeployError
from .forge import Forge
from .repository import commit_file
from .settings import DeploySettings, GitSettings


async def deploy(
    settings: DeploySettings, deployment: Deployment, api: Api, token: str = "", forge: Forge | None = None
) -> Deployed:
    """The version deployed; asked again it is there, and `is_new` says so.

    `forge` is where a pull request is to be opened, None where none is. Raises DeployError and its kinds, ApiError,
    OSError.
    """
    if settings.mode == "direct":
        return await direct.patch(api, settings, deployment)
    assert settings.git is not None, "the settings see to it"
    return await _commit(settings, settings.git, deployment, token, forge)


async def _commit(
    settings: DeploySettings, git: GitSettings, deployment: Deployment, token: str, forge: Forge | None
) -> Deployed:
    target = manifest.Target(settings.inference_service, settings.namespace, settings.component)
    version = deployment.version
    branch = git.branch_of(version.name, version.version)

    def edit(text: str) -> str:
        return manifest.edit(text, target, deployment.previous, version.storage_uri, git.path)

    message = f"{deployment.title}\n\n{deployment.text()}"
    committed = await asyncio.to_thread(commit_file, git, token, branch, edit, message)
    place = f"{git.repository} {committed.branch} at {committed.commit[:12]}"
    if forge is None or committed.branch == git.base:
        return Deployed(Awaits.MERGE, place, committed.is_new)
    asked = await forge.pull_request(branch, git.base, deployment.title, deployment.text())
    if asked.state == "closed":
        raise DeployError(
            f"{asked.url} was closed: somebody does not want {version.name} version {version.version}",
            hint="reopen it, or delete its branch to be asked again",
        )
    return Deployed(Awaits.MERGE, f"{place}, {asked.url}", committed.is_new, asked.url)
