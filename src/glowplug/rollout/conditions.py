"""What an InferenceService's status says of its rollout: two conditions beside KServe's own, which leaves them alone.

`RolloutProgressing` is True while a rollout goes on, and says in its reason how far it is, or how the last one ended.
`RolloutHealthy` is the judge's verdict on the present step: True, False, or Unknown, with its numbers. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from .state import Phase, State
from .verdict import Outcome

PROGRESSING = "RolloutProgressing"
HEALTHY = "RolloutHealthy"
TYPES = (PROGRESSING, HEALTHY)
INVALID = "Invalid"

_STATUS = {Outcome.PASS: "True", Outcome.FAIL: "False", Outcome.INCONCLUSIVE: "Unknown"}
_MAX_MESSAGE = 1024


def conditions_of(state: State) -> list[dict[str, str]]:
    """The conditions that a state stands for, without their times."""
    if state.phase is Phase.IDLE:
        return []
    found = [_condition(PROGRESSING, "True" if state.is_active else "False", _reason(state), describe(state))]
    if state.verdict is not None:
        outcome = state.verdict.outcome
        found.append(_condition(HEALTHY, _STATUS[outcome], outcome.value.capitalize(), state.verdict.reason))
    return found


def invalid(message: str) -> list[dict[str, str]]:
    """Where the annotations cannot be understood."""
    return [_condition(PROGRESSING, "Unknown", INVALID, message)]


def is_invalid(isvc: Mapping[str, Any]) -> bool:
    """Whether the status says that the annotations cannot be understood."""
    return any(each.get("reason") == INVALID for each in _ours(isvc))


def is_untold(isvc: Mapping[str, Any], state: State) -> bool:
    """Whether the status lacks something that it should say of this state."""
    present = {(each.get("type"), each.get("status")) for each in _ours(isvc)}
    return any((each["type"], each["status"]) not in present for each in conditions_of(state))


def tells_of(isvc: Mapping[str, Any], message: str) -> bool:
    """Whether the status says so already."""
    return any(each.get("message") == invalid(message)[0]["message"] for each in _ours(isvc))


def merged(
    present: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, str]], now: float
) -> list[dict[str, Any]]:
    """All conditions of the status with ours as they should be; one that stays as it is keeps its time."""
    others = [dict(each) for each in present if each.get("type") not in TYPES]
    before = {each.get("type"): each for each in present}
    moment = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    for condition in wanted:
        old = before.get(condition["type"]) or {}
        is_same = old.get("status") == condition["status"] and old.get("reason") == condition["reason"]
        since = old.get("lastTransitionTime") if is_same else None
        others.append({**condition, "severity": "Info", "lastTransitionTime": since or moment})
    return sorted(others, key=lambda each: str(each.get("type")))


def describe(state: State) -> str:
    """A rollout in one sentence."""
    canary = ", ".join(member.canary or "a new revision" for member in state.members.values())
    stable = ", ".join(member.stable for member in state.members.values())
    if state.phase is Phase.STARTING:
        text = f"{canary} is not ready, {stable} has all requests"
    elif state.phase is Phase.PROMOTED:
        text = f"{canary} has all requests"
    elif state.phase is Phase.ROLLED_BACK:
        text = f"{stable} has all requests"
    else:
        text = f"{canary} is to have {state.weight} %, {stable} the rest"
    return f"{text}; {state.hold}" if state.hold else text


def _ours(isvc: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    present = (isvc.get("status") or {}).get("conditions") or ()
    return [each for each in present if each.get("type") in TYPES]


def _reason(state: State) -> str:
    if state.is_active and state.is_paused:
        return "Paused"
    if state.phase is Phase.PROGRESSING and state.hold:
        return "Held"
    return state.phase.value


def _condition(type: str, status: str, reason: str, message: str) -> dict[str, str]:
    if len(message) > _MAX_MESSAGE:
        message = f"{message[: _MAX_MESSAGE - 1]}…"
    return {"type": type, "status": status, "reason": reason, "message": message}
