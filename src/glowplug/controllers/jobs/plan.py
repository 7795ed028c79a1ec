"""What a Job does next: a pure decision over the Job, its pods and the time.

As kubernetes pkg/controller/job does it: pods that ended are counted once, whatever becomes of them later; a Job that
cannot succeed any more first ends its pods and then says so; after a failure the next pod waits 10 s, 20 s, ... up to
10 minutes, counted from the last failure. A deadline does not run while the machine is down.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from glowplug.spec.jobs import DEFAULT_BACKOFF_LIMIT, ON_FAILURE

from ..metadata import Object, at, copied, is_deleting, name_of, seconds, timestamp, uid_of
from . import pods as pod_states

COMPLETE, FAILED, SUSPENDED = "Complete", "Failed", "Suspended"
# What is decided already, while pods have yet to end.
SUCCESS_CRITERIA_MET, FAILURE_TARGET = "SuccessCriteriaMet", "FailureTarget"

BACKOFF_BASE_S = 10.0
BACKOFF_MAX_S = 600.0
_UNCOUNTED = "uncountedTerminatedPods"


@dataclass(frozen=True)
class Note:
    """An Event to record on the Job."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class JobPlan:
    """The step to take: pods to make and to end, the status that follows, and when to look again.

    `is_expired`: the Job ended long enough ago to go.
    """

    status: Object
    create: int = 0
    delete: tuple[str, ...] = ()
    due: float | None = None
    notes: tuple[Note, ...] = ()
    is_expired: bool = False


@dataclass(frozen=True)
class _Outcome:
    """How a Job ends."""

    target: str
    condition: str
    reason: str
    message: str


_DONE = _Outcome(
    SUCCESS_CRITERIA_MET, COMPLETE, "CompletionsReached", "Reached expected number of succeeded pods"
)
_TOO_OFTEN = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
_TOO_LONG = ("DeadlineExceeded", "Job was active longer than specified deadline")


def take_in(status: Object, pods: Iterable[Object]) -> tuple[Object, tuple[str, ...]]:
    """The status with the pods that have ended since, not yet counted, and the names of those to let go.

    Whoever writes it lets the pods go next, and writes `counted` then: after a crash at any point each of them is
    counted once.
    """
    status = copied(status)
    noted = {key: list(at(status, _UNCOUNTED, key) or ()) for key in ("succeeded", "failed")}
    released = []
    for pod in sorted(pods, key=name_of):
        if not pod_states.is_tracked(pod) or pod_states.is_active(pod):
            continue
        released.append(name_of(pod))
        if uid_of(pod) not in (*noted["succeeded"], *noted["failed"]):
            noted["succeeded" if pod_states.has_succeeded(pod) else "failed"].append(uid_of(pod))
    status.pop(_UNCOUNTED, None)
    if any(noted.values()):
        status[_UNCOUNTED] = {key: uids for key, uids in noted.items() if uids}
    return status, tuple(released)


def counted(status: Object) -> Object:
    """The status with the pods counted that `take_in` noted."""
    status = copied(status)
    for key, uids in (status.pop(_UNCOUNTED, None) or {}).items():
        status[key] = (status.get(key) or 0) + len(uids)
    return status


def decide(job: Object, pods: list[Object], running_since: float, now: float) -> JobPlan:
    """The next step of a Job all of whose ended pods are counted; the machine runs `running_since`."""
    status = copied(job.get("status") or {})
    ended = next((each for each in (COMPLETE, FAILED) if is_true(status, each)), "")
    if ended:
        return _rest(job, status, ended, now)
    notes = _set_suspended(job, status, now)
    live = [pod for pod in pods if pod_states.is_active(pod)]
    ending = sum(map(pod_states.is_terminating, pods))
    outcome = _outcome(job, status, live, running_since, now)
    if outcome is not None:
        return _end(status, outcome, live, ending, notes, now)
    if _is_suspended(job):
        _set_counts(status, [], ending)
        return JobPlan(status, delete=tuple(name_of(pod) for pod in live), notes=notes)
    wanted = _wanted(job, status, len(live))
    surplus = sorted(live, key=_worth)[: max(0, len(live) - wanted)]
    create = max(0, wanted - len(live))
    due = _next_try(pods, now) if create else None
    if due is not None and due > now:
        create = 0
    else:
        due = None
    deadline = _deadline(job, status, running_since)
    _set_counts(status, [pod for pod in live if pod not in surplus], ending, create)
    return JobPlan(
        status, create, tuple(map(name_of, surplus)), min(filter(None, (due, deadline)), default=None), notes
    )


def is_true(status: Object, type: str) -> bool:
    """Whether a condition of a Job's status is there and holds."""
    return any(
        each.get("type") == type and each.get("status") == "True" for each in status.get("conditions") or ()
    )


def _outcome(
    job: Object, status: Object, live: list[Object], running_since: float, now: float
) -> _Outcome | None:
    for each in status.get("conditions") or ():
        if each.get("type") == FAILURE_TARGET and each.get("status") == "True":
            return _Outcome(FAILURE_TARGET, FAILED, each.get("reason") or "", each.get("message") or "")
    if is_true(status, SUCCESS_CRITERIA_MET):
        return _DONE
    if _is_past_limit(job, status, live):
        return _Outcome(FAILURE_TARGET, FAILED, *_TOO_OFTEN)
    deadline = _deadline(job, status, running_since)
    if deadline is not None and now >= deadline:
        return _Outcome(FAILURE_TARGET, FAILED, *_TOO_LONG)
    completions = at(job, "spec", "completions")
    succeeded = status.get("succeeded") or 0
    is_done = (succeeded > 0 and not live) if completions is None else succeeded >= completions
    return _DONE if is_done and not _is_suspended(job) else None


def _is_past_limit(job: Object, status: Object, live: list[Object]) -> bool:
    written = at(job, "spec", "backoffLimit")
    limit = DEFAULT_BACKOFF_LIMIT if written is None else written
    if (status.get("failed") or 0) > limit:
        return True
    if at(job, "spec", "template", "spec", "restartPolicy") != ON_FAILURE:
        return False
    # Containers are started again in their pod: those starts are the failures.
    count = sum(map(pod_states.restarts, live))
    return bool(count > 0 if limit == 0 else count >= limit)


def _deadline(job: Object, status: Object, running_since: float) -> float | None:
    most = at(job, "spec", "activeDeadlineSeconds")
    began = seconds(status.get("startTime"))
    if most is None or began is None or _is_suspended(job):
        return None
    return max(began, running_since) + float(most)


def _wanted(job: Object, status: Object, active: int) -> int:
    parallelism = at(job, "spec", "parallelism")
    most = 1 if parallelism is None else int(parallelism)
    completions = at(job, "spec", "completions")
    succeeded = status.get("succeeded") or 0
    if completions is None:
        # A queue of work: once one has succeeded the others finish what they have.
        return min(active, most) if succeeded else most
    return min(most, max(0, int(completions) - int(succeeded)))


def _next_try(pods: list[Object], now: float) -> float | None:
    """When a pod may follow those that failed since one last succeeded; None where none has failed."""
    successes = [pod_states.ended_at(pod, now) for pod in pods if pod_states.has_succeeded(pod)]
    last_success = max(successes, default=0.0)
    # One that was taken away did not fail by itself.
    failed = [pod for pod in pods if pod_states.has_failed(pod) and not is_deleting(pod)]
    failures = [ended for pod in failed if (ended := pod_states.ended_at(pod, now)) > last_success]
    if not failures:
        return None
    # Past any maximum, and the power stays finite.
    doublings = min(len(failures) - 1, 30)
    return max(failures) + min(BACKOFF_BASE_S * 2.0**doublings, BACKOFF_MAX_S)


def _end(
    status: Object,
    outcome: _Outcome,
    live: list[Object],
    ending: int,
    notes: tuple[Note, ...],
    now: float,
) -> JobPlan:
    set_condition(status, outcome.target, "True", outcome.reason, outcome.message, now)
    _set_counts(status, [], ending + len(live))
    names = tuple(name_of(pod) for pod in live)
    if live or ending:
        return JobPlan(status, delete=names, notes=notes)
    set_condition(status, outcome.condition, "True", outcome.reason, outcome.message, now)
    if outcome.condition == COMPLETE:
        status["completionTime"] = timestamp(now)
        note = Note("Normal", "Completed", "Job completed")
    else:
        note = Note("Warning", outcome.reason, outcome.message)
    return JobPlan(status, notes=(*notes, note))


def _rest(job: Object, status: Object, ended: str, now: float) -> JobPlan:
    """Of a Job that is over: it may have to go some time later."""
    keep_s = at(job, "spec", "ttlSecondsAfterFinished")
    if keep_s is None:
        return JobPlan(status)
    since = next(
        (each.get("lastTransitionTime") for each in status["conditions"] if each["type"] == ended), None
    )
    due = (seconds(since) or now) + float(keep_s)
    return JobPlan(status, is_expired=True) if now >= due else JobPlan(status, due=due)


def _is_suspended(job: Object) -> bool:
    return bool(at(job, "spec", "suspend"))


def _set_suspended(job: Object, status: Object, now: float) -> tuple[Note, ...]:
    """The condition, and startTime, which begins anew when a Job is resumed."""
    if _is_suspended(job):
        status.pop("startTime", None)
        if is_true(status, SUSPENDED):
            return ()
        set_condition(status, SUSPENDED, "True", "JobSuspended", "Job suspended", now)
        return (Note("Normal", "Suspended", "Job suspended"),)
    status.setdefault("startTime", timestamp(now))
    if not is_true(status, SUSPENDED):
        return ()
    set_condition(status, SUSPENDED, "False", "JobResumed", "Job resumed", now)
    return (Note("Normal", "Resumed", "Job resumed"),)


def _set_counts(status: Object, live: list[Object], ending: int, created: int = 0) -> None:
    active = len(live) + created
    if active:
        status["active"] = active
    else:
        status.pop("active", None)
    status["ready"] = sum(map(pod_states.is_ready, live))
    status["terminating"] = ending


def set_condition(status: Object, type: str, value: str, reason: str, message: str, now: float) -> None:
    """One condition of a Job, in place; its time stays while its status does."""
    conditions = [copied(each) for each in status.get("conditions") or ()]
    known = next((each for each in conditions if each.get("type") == type), None)
    if known is None:
        known = {"type": type}
        conditions.append(known)
    is_same = known.get("status") == value
    moment = timestamp(now)
    known.update(status=value, reason=reason, message=message)
    if not is_same:
        known.update(lastProbeTime=moment, lastTransitionTime=moment)
    status["conditions"] = conditions


def _worth(pod: Object) -> tuple[bool, float, str]:
    # What goes first comes first: the unready, then the newest.
    created = seconds(at(pod, "metadata", "creationTimestamp")) or 0.0
    return (pod_states.is_ready(pod), -created, name_of(pod))
