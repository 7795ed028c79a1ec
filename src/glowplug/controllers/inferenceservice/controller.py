"""InferenceService → Knative Services, its status, and its address in the route table.

The predictor comes first, then the transformer, as in KServe. A spec that cannot be served leaves what runs untouched
and is reported in the status; a Knative Service that is refused is reported as ReconcileFailed.
"""

from __future__ import annotations

from collections.abc import Sequence

from glowplug.errors import Invalid, Problem
from glowplug.spec import inferenceservice, kinds, knativeservice
from glowplug.spec.autoscaling_validation import NOT_BY_CLUSTER

from .. import addresses, conditions
from ..keys import BY_OWNER, BY_REVISION
from ..metadata import (
    Object,
    annotations_of,
    at,
    copied,
    is_controlled_by,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
)
from ..world import World
from .annotations import DISABLE_AUTO_UPDATE, MANAGED, is_stopped
from .component import PREDICTOR, TRANSFORMER, Component, make_knative_service
from .modelstatus import model_status, rejected
from .predictor import build_predictor, predictor_name
from .removal import hold, reconcile_deleted, take_down
from .runtimes import Rejection
from .status import (
    RECONCILE_FAILED,
    Observed,
    choose_entrance,
    inference_service_status,
    is_up_to_date,
    stopped_status,
)
from .transformer import build_transformer, transformer_name


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Brings one InferenceService's Knative Services and status up to date."""
    isvc = world.get(kinds.INFERENCE_SERVICE, namespace, name)
    if isvc is None or is_deleting(isvc):
        world.book.set_alias(namespace, name, None)
        if isvc is not None:
            reconcile_deleted(world, isvc)
        return
    isvc = hold(world, isvc)
    wanted = inferenceservice.default(isvc)
    has_transformer = at(wanted, "spec", "transformer") is not None
    if is_stopped(isvc):
        _stop(world, isvc, has_transformer, now)
        return
    if annotations_of(isvc).get(DISABLE_AUTO_UPDATE) == "true" and conditions.is_true(isvc):
        entrance = transformer_name(wanted) if has_transformer else predictor_name(wanted)
        world.book.set_alias(namespace, name, entrance)
        return
    components = [_reconcile_component(world, isvc, wanted, PREDICTOR)]
    if has_transformer:
        components.append(_reconcile_component(world, isvc, wanted, TRANSFORMER))
    url = addresses.url(world.config, namespace, name)
    status = inference_service_status(isvc, components, url, now)
    stale = _stale_services(world, isvc, components)
    serving = [name_of(service) for service in stale if at(service, "status", "traffic")]
    entrance = choose_entrance(isvc, status, components, serving)
    world.book.set_alias(namespace, name, entrance)
    if all(is_up_to_date(observed.service) for observed in components):
        _delete_replaced(world, isvc, stale, entrance)
    status["modelStatus"] = _model_status(world, isvc, status, components[0], now)
    world.update_status(kinds.INFERENCE_SERVICE, isvc, status)
    _record(world, isvc, status, components)


def _stop(world: World, isvc: Object, has_transformer: bool, now: float) -> None:
    types = [PREDICTOR, TRANSFORMER] if has_transformer else [PREDICTOR]
    take_down(world, isvc)
    world.book.set_alias(namespace_of(isvc), name_of(isvc), None)
    status = stopped_status(isvc, types, now)
    world.update_status(kinds.INFERENCE_SERVICE, isvc, status)
    _record(world, isvc, status, [])


def _stale_services(world: World, isvc: Object, components: list[Observed]) -> list[Object]:
    wanted = {observed.name for observed in components}
    owned = world.owned(kinds.KNATIVE_SERVICE, BY_OWNER, isvc)
    return [service for service in owned if name_of(service) not in wanted and not is_deleting(service)]


def _delete_replaced(world: World, isvc: Object, stale: list[Object], entrance: str) -> None:
    # Requests still come in by the old way until the router has confirmed the new one.
    if stale and world.book.is_alias_confirmed(namespace_of(isvc), name_of(isvc), entrance):
        for service in stale:
            world.delete(kinds.KNATIVE_SERVICE, service)


def _reconcile_component(world: World, isvc: Object, wanted: Object, type: str) -> Observed:
    name = predictor_name(wanted) if type == PREDICTOR else transformer_name(wanted)
    service = world.get(kinds.KNATIVE_SERVICE, namespace_of(isvc), name)
    if service is not None and not is_controlled_by(service, isvc):
        message = f'there is an existing Knative Service "{name}" that this InferenceService does not own'
        return Observed(type, name, None, Rejection(RECONCILE_FAILED, message))
    component = _build(world, wanted, type)
    if isinstance(component, Rejection):
        return Observed(type, name, service, component)
    rolled_out = (
        at(isvc, "status", "components", type, "latestRolledoutRevision") if service is not None else None
    )
    try:
        service = _ensure(world, service, make_knative_service(isvc, component, rolled_out))
    except Invalid as error:
        rejection = Rejection(RECONCILE_FAILED, f"fails to reconcile {type}: {error.message}")
        return Observed(type, name, service, rejection, component.runtime)
    return Observed(type, name, service, None, component.runtime)


def _build(world: World, wanted: Object, type: str) -> Component | Rejection:
    # Whoever wrote it past the API server's admission has not been told yet.
    # What a cluster's settings may lift was looked at there.
    problems = [p for p in inferenceservice.validate(wanted) if NOT_BY_CLUSTER not in p.field]
    if problems:
        return Rejection("InvalidPredictorSpec", _joined(problems))
    if type == TRANSFORMER:
        return build_transformer(wanted)
    if at(wanted, "spec", "predictor", "model") is None:
        return build_predictor(wanted, [], [])
    namespaced = world.list(kinds.SERVING_RUNTIME, namespace_of(wanted))
    return build_predictor(wanted, namespaced, world.list(kinds.CLUSTER_SERVING_RUNTIME))


def _ensure(world: World, existing: Object | None, wanted: Object) -> Object:
    if existing is None:
        _check(wanted, None)
        return world.create(kinds.KNATIVE_SERVICE, wanted)
    managed = {key: annotations_of(wanted).get(key) for key in MANAGED}
    is_same = (
        existing.get("spec") == wanted["spec"]
        and labels_of(existing) == labels_of(wanted)
        and managed == {key: annotations_of(existing).get(key) for key in MANAGED}
    )
    if is_same:
        return existing
    changed = copied(existing)
    annotations = {k: v for k, v in annotations_of(existing).items() if k not in MANAGED}
    changed["spec"] = wanted["spec"]
    changed["metadata"]["labels"] = labels_of(wanted)
    changed["metadata"]["annotations"] = {**annotations, **annotations_of(wanted)}
    _check(changed, existing)
    return world.update(kinds.KNATIVE_SERVICE, changed)


def _check(service: Object, old: Object | None) -> None:
    # KServe accepts what Knative then refuses; in a cluster it is Knative's webhook that says so.
    problems = [p for p in knativeservice.validate_service(service, old) if NOT_BY_CLUSTER not in p.field]
    if problems:
        raise Invalid(f"validation failed: {_joined(problems)}", causes=problems)


def _joined(problems: Sequence[Problem]) -> str:
    return "; ".join(f"{problem.field}: {problem.message}" for problem in problems)


def _model_status(world: World, isvc: Object, status: Object, predictor: Observed, now: float) -> Object:
    before = at(isvc, "status", "modelStatus")
    if predictor.rejection is not None:
        return rejected(before, predictor.rejection, now)
    component = status["components"][PREDICTOR]
    latest = component.get("latestCreatedRevision")
    pods = world.related(kinds.POD, BY_REVISION, namespace_of(isvc), latest) if latest else []
    is_latest = bool(latest) and latest == component.get("latestReadyRevision")
    is_ready = conditions.is_true({"status": status})
    return model_status(before, pods, predictor.service, is_ready, is_latest)


def _record(world: World, isvc: Object, status: Object, components: list[Observed]) -> None:
    was_ready, now_ready = conditions.is_true(isvc), conditions.is_true({"status": status})
    if now_ready and not was_ready:
        message = f"InferenceService [{name_of(isvc)}] is Ready"
        world.record(isvc, "Normal", "InferenceServiceReady", message)
    elif was_ready and conditions.is_false({"status": status}):
        failed = ", ".join(entry["type"] for entry in status["conditions"] if entry["status"] == "False")
        message = f"InferenceService [{name_of(isvc)}] is no longer Ready because of: {failed}"
        world.record(isvc, "Warning", "InferenceServiceNotReady", message)
    if status != isvc.get("status"):
        for observed in components:
            if observed.rejection is not None:
                world.record(
                    isvc,
                    "Warning",
                    "InternalError",
                    f"fails to reconcile component: {observed.rejection.message}",
                )
