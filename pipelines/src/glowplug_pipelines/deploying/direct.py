"""The version written into the InferenceService itself: one merge patch, made only if nobody wrote in between.

The patch carries the resourceVersion of the object whose `storageUri` was compared, so that an edit by a person
between the two is a conflict and never lost. KServe writes its status all the time, which is a conflict too: then the
object is read and compared again. (A JSON patch with a `test` would say the same of the value, but 422 for every
reason that it can fail for, so that nobody could tell an edit from a mistake.)

The write says which run it comes from; KServe hands the annotation on to the revision. Where `glowplug.dev/rollout-*`
asks for a rollout, its controller takes it from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glowplug.errors import Conflict, Forbidden, NotFound
from glowplug.operators.api import Api, Object
from glowplug.spec import names

from .deployment import Awaits, Deployed, Deployment
from .errors import DeployError, EditedMeanwhile
from .settings import DeploySettings

RUN = "glowplug.dev/retraining-run"
VERSION = "glowplug.dev/model-version"
_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/{}"
_REVISIONS = "/apis/serving.knative.dev/v1/namespaces/{}/revisions/{}"
_RACES = 20
_PAUSE_S = 0.1
_LOOK_S = 0.5
_FIELD = "storageUri"
_PERCENT = "canaryTrafficPercent"


@dataclass(frozen=True)
class Origin:
    """The version and the storageUri that a revision's annotations name; empty where they do not."""

    version: str
    storage_uri: str


def path_of(settings: DeploySettings) -> str:
    """Where the InferenceService is."""
    return _SERVICES.format(settings.namespace, settings.inference_service)


def place_of(isvc: Mapping[str, Any], component: str) -> tuple[str, ...]:
    """The path of the component's `storageUri`: of `model`, or of the older forms named after a framework.

    Raises DeployError where there is not one.
    """
    found = (isvc.get("spec") or {}).get(component) or {}
    places: list[tuple[str, ...]] = [
        ("spec", component, name, _FIELD)
        for name, each in sorted(found.items())
        if isinstance(each, dict) and isinstance(each.get(_FIELD), str)
    ]
    if isinstance(found.get(_FIELD), str):
        places.append(("spec", component, _FIELD))
    if len(places) != 1:
        metadata = isvc.get("metadata") or {}
        raise DeployError(
            f"InferenceService {metadata.get('namespace')}/{metadata.get('name')} has {len(places)} places of"
            f" spec.{component}…{_FIELD}, expected one",
            hint="the first version is deployed by hand: write a storageUri into the InferenceService",
        )
    return places[0]


def storage_uri_of(isvc: Mapping[str, Any], component: str) -> str:
    """What the component serves. Raises DeployError."""
    value: Any = isvc
    for key in place_of(isvc, component):
        value = value[key]
    return str(value)


async def patch(api: Api, settings: DeploySettings, deployment: Deployment) -> Deployed:
    """Writes the version. Raises EditedMeanwhile, DeployError, and what the API raises."""
    shown = f"InferenceService {settings.namespace}/{settings.inference_service}"
    for _ in range(_RACES):
        try:
            isvc = await api.get(path_of(settings))
        except NotFound as error:
            raise DeployError(
                f"{shown} is not there", hint="create it with the champion first; versions replace it"
            ) from error
        place = place_of(isvc, settings.component)
        found = storage_uri_of(isvc, settings.component)
        value = deployment.version.storage_uri
        if found == value:
            return Deployed(await awaits(api, settings, isvc), shown, is_new=False)
        if deployment.previous is not None and found != deployment.previous:
            raise EditedMeanwhile(
                f"{shown} {'.'.join(place)} is {found}, expected {deployment.previous}",
                hint="somebody has changed it since the run began; start another run to replace that version",
            )
        try:
            version = deployment.version
            change = _change(isvc, place, version.storage_uri, deployment.run_id, version.version)
            await api.merge(path_of(settings), change)
        except Conflict:
            await asyncio.sleep(_PAUSE_S)
            continue
        return Deployed(_will_await(isvc, settings.component), shown, is_new=True)
    raise DeployError(f"{shown}: others wrote in between {_RACES} times", hint="try again")


async def put_back(api: Api, settings: DeploySettings, deployment: Deployment) -> str:
    """What was served before, written again where nobody has changed it since; what came of that, for people.

    Raises DeployError, and what the API raises.
    """
    for _ in range(_RACES):
        isvc = await api.get(path_of(settings))
        found, previous = storage_uri_of(isvc, settings.component), deployment.previous
        if previous in (None, found) or found != deployment.version.storage_uri:
            return f"{found} was left as it is"
        place = place_of(isvc, settings.component)
        try:
            await api.merge(path_of(settings), _change(isvc, place, str(previous), None, None))
        except Conflict:
            await asyncio.sleep(_PAUSE_S)
            continue
        return f"{previous} was put back"
    raise DeployError(
        f"InferenceService {settings.inference_service}: others wrote in between {_RACES} times"
    )


async def wait_ready(api: Api, settings: DeploySettings, deployment: Deployment) -> str:
    """Why the version does not serve after `ready_s`, and what was put back; empty as soon as it does serve."""
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.ready_s
    while True:
        isvc = await api.get(path_of(settings))
        if storage_uri_of(isvc, settings.component) != deployment.version.storage_uri:
            return "another version has been written in its place"
        trouble = await trouble_of(api, settings, isvc)
        if not trouble:
            return ""
        if loop.time() >= end:
            done = await put_back(api, settings, deployment)
            return f"not ready after {settings.ready_s:g} s: {trouble}; {done}"
        await asyncio.sleep(_LOOK_S)


async def trouble_of(api: Api, settings: DeploySettings, isvc: Object) -> str:
    """Why what is written into the InferenceService does not serve; empty where it does."""
    return _unready(isvc, settings.component) or await _behind(api, isvc, settings)


async def awaits(api: Api, settings: DeploySettings, isvc: Object) -> Awaits:
    """Who says whether the version that is written into it becomes champion: its rollout, where there is one.

    The first that serves has nothing to be compared with and gets none. Raises what the API raises.
    """
    if _will_await(isvc, settings.component) is Awaits.READY:
        return Awaits.READY
    if _PERCENT in isvc["spec"][settings.component]:
        return Awaits.ROLLOUT
    origin = await origin_of(api, settings.namespace, _revisions(isvc, settings.component)[1])
    written = isvc["metadata"]["annotations"].get(VERSION)
    return Awaits.READY if origin is not None and origin.version == written else Awaits.ROLLOUT


def _will_await(isvc: Object, component: str) -> Awaits:
    """The same of a version that is yet to be written."""
    has_steps = names.ROLLOUT_STEPS in (isvc["metadata"].get("annotations") or {})
    has_served = bool(_revisions(isvc, component)[1])
    return Awaits.ROLLOUT if has_steps and has_served else Awaits.READY


async def origin_of(api: Api, namespace: str, revision: str) -> Origin | None:
    """What a revision was made of; None where it is gone or may not be seen. Raises what else the API raises."""
    if not revision:
        return None
    try:
        found = await api.get(_REVISIONS.format(namespace, revision))
    except (NotFound, Forbidden):
        return None
    annotations = (found.get("metadata") or {}).get("annotations") or {}
    return Origin(annotations.get(VERSION, ""), annotations.get(names.STORAGE_SOURCE_URI, ""))


async def _behind(api: Api, isvc: Object, settings: DeploySettings) -> str:
    """Whether what is ready was made of an older write: KServe's observedGeneration is that of its Knative Service.

    A commit writes no annotation of ours, so what the revision fetched its model from counts too.
    """
    revision = _revisions(isvc, settings.component)[1]
    origin = await origin_of(api, settings.namespace, revision)
    written = (isvc["metadata"].get("annotations") or {}).get(VERSION, "")
    if origin is None:
        return ""
    if origin.version != written:
        return f"{revision} serves, which is of version {origin.version or 'none of ours'}"
    if origin.storage_uri and origin.storage_uri != storage_uri_of(isvc, settings.component):
        return f"{revision} serves, which is of {origin.storage_uri}"
    return ""


def _change(
    isvc: Object, place: tuple[str, ...], storage_uri: str, run: str | None, version: str | None
) -> Object:
    """A merge patch; None takes an annotation away."""
    change: Any = storage_uri
    for key in reversed(place):
        change = {key: change}
    annotations = {RUN: run, VERSION: version}
    metadata = {"resourceVersion": isvc["metadata"]["resourceVersion"], "annotations": annotations}
    return {"metadata": metadata, **change}


def _unready(isvc: Object, component: str) -> str:
    """Empty where the latest revision of the component serves."""
    conditions = {each["type"]: each for each in (isvc.get("status") or {}).get("conditions") or ()}
    ready = conditions.get("Ready") or {}
    if ready.get("status") != "True":
        return str(ready.get("message") or ready.get("reason") or "it is not Ready")
    created, is_ready = _revisions(isvc, component)
    return "" if created == is_ready else f"{created} is not ready, {is_ready or 'none'} serves"


def _revisions(isvc: Object, component: str) -> tuple[str, str]:
    """(latest created, latest ready)."""
    found = ((isvc.get("status") or {}).get("components") or {}).get(component) or {}
    return str(found.get("latestCreatedRevision", "")), str(found.get("latestReadyRevision", ""))
