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
from .scaling import Phase, Scale, Standing


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
    autoscaler = _ensure_autoscaler(world, revision, is_reachable)
    bounds = world.autoscaler.bounds(annotations_of(revision))
    phase = scaling.phase_of(revision, autoscaler, world.config.progress_deadline_s, world.started_at, now)
    ready = sum(map(is_ready, pods))
    scale = scaling.first_scale(bounds, phase, is_reachable)
    if scale is None:
        scale = world.autoscaler.scale(_standing(revision, autoscaler, ready), now)
    else:
        world.autoscaler.forget(f"{namespace}/{name}")
    trouble = find_trouble(pods) or Trouble("", describe_unready(pods), False)
    found = scaling.autoscaler_conditions(scale, phase, bounds.minimum, ready, is_reachable)
    pods = _scale(world, revision, pods, scale, now)
    status = _autoscaler_status(autoscaler, name, scale, ready, found, now)
    autoscaler = world.update_status(kinds.POD_AUTOSCALER, autoscaler, status)
    phase = scaling.phase_of(revision, autoscaler, world.config.progress_deadline_s, world.started_at, now)
    status = revision_status(revision, status, phase, scale, ready, trouble, now)
    became_ready = not conditions.is_true(revision) and conditions.is_true({"status": status})
    world.update_status(kinds.REVISION, revision, status)
    if became_ready:
        message = "Revision becomes ready upon all resources being ready"
        world.record(revision, "Normal", "RevisionReady", message)
    world.book.set_backend(f"{namespace}/{name}", make_backend(revision, pods, scale.is_held))
    _look_again(world, revision, phase, is_reachable, now)
    if scale.again_at is not None:
        world.queue.add_at(Key(kinds.REVISION, namespace, name), scale.again_at)


def _standing(revision: Object, autoscaler: Object, ready: int) -> Standing:
    active = conditions.find(autoscaler, scaling.ACTIVE)
    return Standing(
        revision=f"{namespace_of(revision)}/{name_of(revision)}",
        # The live ones: a floor that is put on the Revision holds without a new one.
        annotations=annotations_of(autoscaler),
        container_concurrency=at(revision, "spec", "containerConcurrency") or 0,
        ready=ready,
        desired=at(autoscaler, "status", "desiredScale") or 0,
        active=active.status if active is not None else "",
        active_since=seconds(conditions.since(autoscaler, scaling.ACTIVE)) or 0.0,
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


def _ensure_autoscaler(world: World, revision: Object, is_reachable: bool) -> Object:
    wanted = make_autoscaler(revision, "Reachable" if is_reachable else "Unreachable")
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


def _autoscaler_status(
    autoscaler: Object, name: str, scale: Scale, ready: int, found: list[conditions.Condition], now: float
) -> Object:
    status: Object = dict(autoscaler.get("status") or {})
    status["observedGeneration"] = generation_of(autoscaler)
    status["conditions"] = conditions.settle(status.get("conditions"), found, scaling.DEPENDENTS, now)
    status["desiredScale"] = scale.desired
    status["actualScale"] = ready
    status["serviceName"] = name
    status["metricsServiceName"] = f"{name}-private"
    return status


def _look_again(world: World, revision: Object, phase: Phase, is_reachable: bool, now: float) -> None:
    key = Key(kinds.REVISION, namespace_of(revision), name_of(revision))
    if phase.deadline is not None and not phase.has_failed:
        world.queue.add_at(key, phase.deadline)
    if routing_state(revision) == RESERVE and is_reachable:
        retired_at = _retired_at(world, revision)
        world.queue.add_at(key, retired_at if now < retired_at else now + world.config.retire_poll_s)
