"""Job → pods, and its status. Decisions are in `plan`; here they are carried out, in an order that survives a crash."""

from __future__ import annotations

from glowplug.spec import kinds

from ..keys import BY_JOB, Key
from ..metadata import Object, is_controlled_by, is_deleting, name_of, namespace_of
from ..world import World
from .plan import counted, decide, take_in
from .pods import is_tracked, make_pod, untracked


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Brings one Job's pods and status up to date."""
    job = world.get(kinds.JOB, namespace, name)
    pods = world.related(kinds.POD, BY_JOB, namespace, name)
    if job is None or is_deleting(job):
        # Nobody counts them any more: the garbage collector may have them.
        for pod in pods:
            _release(world, pod)
        return
    for pod in pods:
        if not is_controlled_by(pod, job):
            _release(world, pod)
    job = _count(world, job, [pod for pod in pods if is_controlled_by(pod, job)])
    plan = decide(job, world.owned(kinds.POD, BY_JOB, job), world.started_at, now)
    if plan.is_expired:
        world.delete(kinds.JOB, job)
        return
    # The status first: a deadline or a target that was reached holds, also if this ends here.
    job = world.update_status(kinds.JOB, job, plan.status)
    for pod_name in plan.delete:
        _end(world, job, pod_name)
    for _ in range(plan.create):
        pod = world.create(kinds.POD, make_pod(job, world.token()))
        world.record(job, "Normal", "SuccessfulCreate", f"Created pod: {name_of(pod)}")
    for note in plan.notes:
        world.record(job, note.type, note.reason, note.message)
    if plan.due is not None:
        world.queue.add_at(Key(kinds.JOB, namespace, name), plan.due)


def _count(world: World, job: Object, pods: list[Object]) -> Object:
    status, ended = take_in(job.get("status") or {}, pods)
    job = world.update_status(kinds.JOB, job, status)
    for pod in pods:
        if name_of(pod) in ended:
            _release(world, pod)
    return world.update_status(kinds.JOB, job, counted(status))


def _end(world: World, job: Object, name: str) -> None:
    """Takes a pod away that the Job does not want any more, which is no failure of it."""
    pod = world.get(kinds.POD, namespace_of(job), name)
    if pod is None:
        return
    _release(world, pod)
    world.delete(kinds.POD, pod)
    world.record(job, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")


def _release(world: World, pod: Object) -> None:
    if is_tracked(pod):
        live = world.get(kinds.POD, namespace_of(pod), name_of(pod))
        if live is not None:
            world.update(kinds.POD, untracked(live))
