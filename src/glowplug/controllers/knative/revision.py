"""Revision → pods and PodAutoscaler, its status, and the backend that it is to the router.

The pods are made here and run by the supervisor. A revision keeps its pods for as long as any table that the router
may still run leads to it, and a moment longer.
"""

from __future__ import annotations

from glowplug.spec import kinds

from .. import conditions
from ..keys import BY_REVISION, Key
from ..metadata import (
    Object,
    annotations_of,
    at,
    copied,
    generation_of,
    is_controlled_by,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    seconds,
)
from ..world import World
from . import scaling
from .backends import make_backend
from .labels import RESERVE, ROUTING_STATE_MODIFIED, routing_state
from .pods import Trouble, describe_unready, find_trouble, is_ready, make_pod, plan_pods
from .resources import make_autoscaler
from .revision_status import revision_status
from .scaling import Phase, Said, Scale, Standing


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Brings one Revision's pods, PodAutoscaler, status and backend up to date."""
    revision = world.get(kinds.REVISION, namespace, name)
    if revision is None or is_deleting(revision):
        world.book.set_backend(f"{namespace}/{name}", None)
        world.autoscaler.forget(f"{namespace}/{name}")
        return
    pods = world.owned(kinds.POD, BY_REVISION, revision)
    is_reachable = _is_reachable(world, revision, now)
    if not is_reachable:
        world.book.release(f"{namespace}/{name}")
    ready = sum(map(is_ready, pods))
    trouble = find_trouble(pods) or Trouble("", describe_unready(pods), False)
    is_broken = trouble.is_failure and not ready
    autoscaler = _ensure_autoscaler(world, revision, scaling.reachability(revision, is_reachable, is_broken))
    bounds = world.autoscaler.bounds(annotations_of(revision))
    phase = scaling.phase_of(revision, autoscaler, world.config.progress_deadline_s, world.started_at, now)
    scale = scaling.first_scale(bounds, phase, is_reachable)
    standing = _standing(revision, autoscaler, phase, ready, is_reachable)
    if scale is None:
        scale = world.autoscaler.scale(standing, now)
    else:
        world.autoscaler.forget(f"{namespace}/{name}")
    pods = _scale(world, revision, pods, scale, now)
    status = _autoscaler_status(autoscaler, phase, scale, world.autoscaler.says(standing, scale.desired), now)
    _tell_measured(world, autoscaler, scale)
    autoscaler = world.update_status(kinds.POD_AUTOSCALER, autoscaler, status)
    phase = scaling.phase_of(revision, autoscaler, world.config.progress_deadline_s, world.started_at, now)
    status = revision_status(revision, status, phase, ready, trouble, now)
    became_ready = not conditions.is_true(revision) and conditions.is_true({"status": status})
    world.update_status(kinds.REVISION, revision, status)
    if became_ready:
        message = "Revision becomes ready upon all resources being ready"
        world.record(revision, "Normal", "RevisionReady", message)
    backend = make_backend(revision, pods, scale.is_held, world.config.copy_key_of)
    world.book.set_backend(f"{namespace}/{name}", backend)
    _look_again(world, revision, phase, is_reachable, now)
    if scale.again_at is not None:
        world.queue.add_at(Key(kinds.REVISION, namespace, name), scale.again_at)


def _standing(revision: Object, autoscaler: Object, phase: Phase, ready: int, is_reachable: bool) -> Standing:
    active = conditions.find(autoscaler, scaling.ACTIVE)
    return Standing(
        revision=f"{namespace_of(revision)}/{name_of(revision)}",
        # The live ones: a floor that is put on the Revision holds without a new one.
        annotations=annotations_of(autoscaler),
        container_concurrency=at(revision, "spec", "containerConcurrency") or 0,
        ready=ready,
        desired=at(autoscaler, "status", "desiredScale"),
        active=scaling.activity(active, phase, is_reachable),
        active_since=seconds(conditions.since(autoscaler, scaling.ACTIVE)) or 0.0,
        is_initialized=phase.is_initialized,
        is_reachable=is_reachable,
    )


def _is_reachable(world: World, revision: Object, now: float) -> bool:
    if routing_state(revision) != RESERVE:
        return True
    name = f"{namespace_of(revision)}/{name_of(revision)}"
    if world.book.is_routed(name) or now < _retired_at(world, revision):
        return True
    # Who waits for it came before the routes changed. One that fails would keep them for nothing.
    return world.book.is_left(name) and world.is_waited_for(name) and not conditions.is_false(revision)


def _retired_at(world: World, revision: Object) -> float:
    left = seconds(annotations_of(revision).get(ROUTING_STATE_MODIFIED)) or 0.0
    return left + world.config.retire_delay_s


def _ensure_autoscaler(world: World, revision: Object, reachability: str) -> Object:
    wanted = make_autoscaler(revision, reachability)
    existing = world.get(kinds.POD_AUTOSCALER, namespace_of(revision), name_of(revision))
    if existing is not None and not is_controlled_by(existing, revision):
        # Left by a revision of the same name; the garbage collector has not come by yet.
        world.delete(kinds.POD_AUTOSCALER, existing)
        existing = world.get(kinds.POD_AUTOSCALER, namespace_of(revision), name_of(revision))
    if existing is None:
        return world.create(kinds.POD_AUTOSCALER, wanted)
    if existing["spec"] == wanted["spec"] and annotations_of(existing) == annotations_of(wanted):
        return existing
    changed = copied(existing)
    changed["spec"] = wanted["spec"]
    changed["metadata"]["annotations"] = annotations_of(wanted)
    changed["metadata"]["labels"] = labels_of(wanted)
    return world.update(kinds.POD_AUTOSCALER, changed)


def _scale(world: World, revision: Object, pods: list[Object], scale: Scale, now: float) -> list[Object]:
    wanted = sum(not is_deleting(pod) for pod in pods) if scale.pods is None else scale.pods
    plan = plan_pods(pods, wanted, now, world.config.failed_pod_backoff_s)
    for _ in range(plan.create):
        pod = world.create(kinds.POD, make_pod(revision, world.token(), now))
        world.record(revision, "Normal", "SuccessfulCreate", f"Created pod: {name_of(pod)} ({scale.reason})")
    for pod in pods:
        if name_of(pod) in plan.delete:
            world.delete(kinds.POD, pod)
            world.record(
                revision, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)} ({scale.reason})"
            )
    if plan.due is not None:
        world.queue.add_at(Key(kinds.REVISION, namespace_of(revision), name_of(revision)), plan.due)
    return [pod for pod in pods if name_of(pod) not in plan.delete]


def _autoscaler_status(autoscaler: Object, phase: Phase, scale: Scale, said: Said, now: float) -> Object:
    written = conditions.find(autoscaler, scaling.ACTIVE)
    found = scaling.autoscaler_conditions(said, written, phase, said.actual, scale.unmeasured)
    status: Object = dict(autoscaler.get("status") or {})
    status["observedGeneration"] = generation_of(autoscaler)
    status["conditions"] = conditions.settle(status.get("conditions"), found, scaling.DEPENDENTS, now)
    status["desiredScale"] = said.desired
    status["actualScale"] = said.actual
    status["serviceName"] = name_of(autoscaler)
    status["metricsServiceName"] = f"{name_of(autoscaler)}-private"
    return status


def _tell_measured(world: World, autoscaler: Object, scale: Scale) -> None:
    """An event when measurements begin or cease to be missing; the condition says it for as long as they are."""
    was_missing = conditions.is_false(autoscaler, scaling.SCALING_ACTIVE)
    if scale.unmeasured and not was_missing:
        world.record(autoscaler, "Warning", scaling.UNMEASURED, scale.unmeasured)
    elif was_missing and not scale.unmeasured:
        world.record(autoscaler, "Normal", "ValidMetricFound", "the load is measured again")


def _look_again(world: World, revision: Object, phase: Phase, is_reachable: bool, now: float) -> None:
    key = Key(kinds.REVISION, namespace_of(revision), name_of(revision))
    if phase.deadline is not None and not phase.has_failed:
        world.queue.add_at(key, phase.deadline)
    if routing_state(revision) == RESERVE and is_reachable:
        retired_at = _retired_at(world, revision)
        world.queue.add_at(key, retired_at if now < retired_at else now + world.config.retire_poll_s)
