"""What a rollout's end means for the registry: the champion moves, or the challenger is marked as rejected.

Which version it was is written on the canary's revision, as it was on the InferenceService whose write made it. Where
the revision is gone, or does not say, the InferenceService's present version counts if it is the challenger.
"""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.errors import NotFound
from glowplug.operators.api import Api
from glowplug_pipelines.triggering.state import Challenger
from glowplug_pipelines.triggering.trigger import RolloutEnded

from . import direct
from .errors import DeployError
from .settings import DeploySettings


@dataclass(frozen=True)
class Concerned:
    """The version that a rollout was of, empty with the reason where none of ours was.

    `storage_uri` is what was rolled out. A version whose files are elsewhere is not what it was: somebody has written
    another storageUri, and left our annotation beside it.
    """

    version: str
    storage_uri: str
    reason: str = ""


async def concerned(
    api: Api, settings: DeploySettings, ended: RolloutEnded, challenger: Challenger | None
) -> Concerned:
    """Whose rollout ended. Raises what the API raises."""
    revision = ended.canary.get(settings.component, "")
    origin = await direct.origin_of(api, settings.namespace, revision)
    if origin is not None and origin.version and origin.storage_uri:
        return Concerned(origin.version, origin.storage_uri)
    if challenger is None:
        return Concerned("", "", "no version was deployed by a run")
    try:
        isvc = await api.get(direct.path_of(settings))
        found = direct.storage_uri_of(isvc, settings.component)
    except (NotFound, DeployError) as error:
        return Concerned("", "", error.message)
    if found == challenger.storage_uri and challenger.at <= ended.at:
        return Concerned(challenger.version, found)
    return Concerned("", "", f"{revision or 'the canary'} is of no run: {found} was written by somebody else")
