"""The end of an InferenceService that has a transformer: the predictor goes last.

What a transformer still works on needs the predictor. The garbage collector would end both at once, so KServe's
finalizer holds the InferenceService until the pods of its transformer are gone.
"""

from __future__ import annotations

from glowplug.spec import kinds

from ..keys import BY_COMPONENT, BY_OWNER
from ..metadata import Object, at, copied, name_of, namespace_of
from ..world import World
from .component import TRANSFORMER
from .transformer import transformer_name

FINALIZER = "inferenceservice.finalizers"


def hold(world: World, isvc: Object) -> Object:
    """The InferenceService, held by the finalizer if it has a transformer. Raises Conflict, NotFound."""
    held_by = at(isvc, "metadata", "finalizers") or []
    if at(isvc, "spec", "transformer") is None or FINALIZER in held_by:
        return isvc
    return _with_finalizers(world, isvc, [*held_by, FINALIZER])


def take_down(world: World, isvc: Object) -> bool:
    """Deletes the transformer, and once its pods are gone the rest; whether it came to that."""
    services = world.owned(kinds.KNATIVE_SERVICE, BY_OWNER, isvc)
    for service in services:
        if name_of(service) == transformer_name(isvc):
            world.delete(kinds.KNATIVE_SERVICE, service)
    if world.related(kinds.POD, BY_COMPONENT, namespace_of(isvc), f"{name_of(isvc)}/{TRANSFORMER}"):
        return False
    for service in services:
        world.delete(kinds.KNATIVE_SERVICE, service)
    return True


def reconcile_deleted(world: World, isvc: Object) -> None:
    """Lets go of an InferenceService that is being deleted, once nothing needs its predictor. Raises Conflict."""
    held_by = at(isvc, "metadata", "finalizers") or []
    if FINALIZER in held_by and take_down(world, isvc):
        _with_finalizers(world, isvc, [one for one in held_by if one != FINALIZER])


def _with_finalizers(world: World, isvc: Object, finalizers: list[str]) -> Object:
    changed = copied(isvc)
    changed["metadata"]["finalizers"] = finalizers
    return world.update(kinds.INFERENCE_SERVICE, changed)
