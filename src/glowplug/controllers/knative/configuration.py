"""Configuration → Revisions, numbered by generation, and the names of the latest created and the latest ready one.

As knative.dev/serving pkg/reconciler/configuration and pkg/reconciler/gc do it. A generation has one revision: it is
looked up by its name, so that a controller that died after it had made it finds it again.
"""

from __future__ import annotations

from glowplug.spec import kinds, names
from glowplug.spec.revisions import default_spec

from .. import conditions
from ..conditions import Condition
from ..keys import BY_CONFIGURATION
from ..metadata import (
    Object,
    at,
    generation_of,
    is_controlled_by,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    observed_generation_of,
)
from ..world import World
from .collection import surplus_revisions
from .resources import make_revision, revision_name


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Makes the revision of the current generation, updates the status, collects old revisions."""
    configuration = world.get(kinds.CONFIGURATION, namespace, name)
    if configuration is None or is_deleting(configuration):
        return
    latest = world.get(kinds.REVISION, namespace, revision_name(configuration))
    if is_name_taken(latest, configuration):
        taken = f'revisions.serving.knative.dev "{revision_name(configuration)}" already exists'
        message = f"Revision creation failed with message: {taken}."
        status = dict(configuration.get("status") or {})
        _write(
            world, configuration, status, conditions.false(conditions.READY, "RevisionFailed", message), now
        )
        return
    if latest is None:
        latest = world.create(kinds.REVISION, make_revision(configuration, now))
        world.record(configuration, "Normal", "Created", f'Created Revision "{name_of(latest)}"')
    _update_status(world, configuration, latest, now)
    _collect(world, configuration)


def is_name_taken(revision: Object | None, configuration: Object) -> bool:
    """Whether `revision`, which has the name that this generation wants, is not this generation's."""
    if revision is None:
        return False
    if not is_controlled_by(revision, configuration):
        return True
    if labels_of(revision).get(names.CONFIGURATION_GENERATION_LABEL) == str(generation_of(configuration)):
        return False
    # A name that is kept while only metadata changed still means the same revision.
    wanted = default_spec(at(configuration, "spec", "template", "spec") or {})
    return bool(revision.get("spec") != wanted)


def config_generation(revision: Object) -> int:
    """The generation of the Configuration that a revision was made from; 0 if it does not say."""
    try:
        return int(labels_of(revision).get(names.CONFIGURATION_GENERATION_LABEL, "0"))
    except ValueError:
        return 0


def latest_ready(revisions: list[Object], latest: Object, known: str | None) -> str | None:
    """The newest ready revision that is not older than the known latest ready one; that one if none is."""
    by_name = {name_of(revision): revision for revision in [*revisions, latest]}
    floor = config_generation(by_name[known]) if known in by_name else 0
    candidates = [
        revision
        for revision in by_name.values()
        if config_generation(revision) >= floor or revision is by_name[name_of(latest)]
    ]
    candidates.sort(key=lambda r: (name_of(r) == name_of(latest), config_generation(r)), reverse=True)
    for revision in candidates:
        if conditions.is_true(revision) and observed_generation_of(revision) == generation_of(revision):
            return name_of(revision)
    return known


def ready_condition(configuration: Object, latest: Object, latest_ready_name: str | None) -> Condition:
    """The Configuration's Ready: about the latest created revision only."""
    condition = conditions.find(latest, conditions.READY)
    if condition is not None and condition.status == "False":
        message = f'Revision "{name_of(latest)}" failed with message: {condition.message}.'
        return conditions.false(conditions.READY, "RevisionFailed", message)
    if latest_ready_name != name_of(latest):
        return conditions.unknown(conditions.READY)
    if condition is not None and condition.status == "True":
        return conditions.true(conditions.READY)
    return conditions.find(configuration, conditions.READY) or conditions.unknown(conditions.READY)


def _update_status(world: World, configuration: Object, latest: Object, now: float) -> None:
    status = dict(configuration.get("status") or {})
    known = status.get("latestReadyRevisionName")
    revisions = world.owned(kinds.REVISION, BY_CONFIGURATION, configuration)
    ready = latest_ready(revisions, latest, known)
    condition = ready_condition(configuration, latest, ready)
    status["latestCreatedRevisionName"] = name_of(latest)
    if ready:
        status["latestReadyRevisionName"] = ready
    before = conditions.find(configuration, conditions.READY)
    _write(world, configuration, status, condition, now)
    if condition.status == "False" and condition != before:
        which = "ready" if ready == name_of(latest) else "created"
        reason = f"Latest{which.capitalize()}Failed"
        world.record(
            configuration, "Warning", reason, f'Latest {which} revision "{name_of(latest)}" has failed'
        )
    if ready and not known:
        world.record(configuration, "Normal", "ConfigurationReady", "Configuration becomes ready")
    if ready != known:
        world.record(
            configuration, "Normal", "LatestReadyUpdate", f'LatestReadyRevisionName updated to "{ready}"'
        )


def _write(world: World, configuration: Object, status: Object, condition: Condition, now: float) -> None:
    status["observedGeneration"] = generation_of(configuration)
    status["conditions"] = conditions.alone(status.get("conditions"), condition, now)
    world.update_status(kinds.CONFIGURATION, configuration, status)


def _collect(world: World, configuration: Object) -> None:
    live = world.get(kinds.CONFIGURATION, namespace_of(configuration), name_of(configuration))
    if live is None:
        return
    revisions = world.owned(kinds.REVISION, BY_CONFIGURATION, live)
    for revision in surplus_revisions(revisions, live, world.config.kept_revisions):
        world.delete(kinds.REVISION, revision)
