"""Conditions as Knative's "living" condition set keeps them, decided anew each time.

A kind has one happy condition (`Ready`) that follows its dependents: False as soon as one is False, else Unknown
while one is Unknown or absent, else True. All others carry `severity: Info`. A condition keeps its
lastTransitionTime for as long as nothing else in it changes (knative.dev/pkg/apis/condition_set.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .metadata import Object, at, timestamp

READY = "Ready"


@dataclass(frozen=True)
class Condition:
    """One statement about an object; `status` is `True`, `False` or `Unknown`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""

    def renamed(self, type: str) -> Condition:
        """The same statement under another name, as a parent repeats its child's."""
        return Condition(type, self.status, self.reason, self.message)


def true(type: str, reason: str = "", message: str = "") -> Condition:
    return Condition(type, "True", reason, message)


def false(type: str, reason: str, message: str = "") -> Condition:
    return Condition(type, "False", reason, message)


def unknown(type: str, reason: str = "", message: str = "") -> Condition:
    return Condition(type, "Unknown", reason, message)


def find(obj: Object | None, type: str) -> Condition | None:
    """The condition of that type in `obj.status`, or None."""
    for entry in at(obj, "status", "conditions") or ():
        if entry.get("type") == type:
            return Condition(
                type,
                str(entry.get("status", "Unknown")),
                entry.get("reason") or "",
                entry.get("message") or "",
            )
    return None


def since(obj: Object | None, type: str) -> str:
    """When the condition last changed, as it is written; empty if it is not there."""
    for entry in at(obj, "status", "conditions") or ():
        if entry.get("type") == type:
            return str(entry.get("lastTransitionTime") or "")
    return ""


def is_true(obj: Object | None, type: str = READY) -> bool:
    condition = find(obj, type)
    return condition is not None and condition.status == "True"


def is_false(obj: Object | None, type: str = READY) -> bool:
    condition = find(obj, type)
    return condition is not None and condition.status == "False"


def settle(
    previous: Iterable[Object] | None,
    wanted: Iterable[Condition],
    dependents: Sequence[str],
    now: float,
    happy: str = READY,
) -> list[Object]:
    """The list for `status.conditions`: `wanted`, the happy one, sorted by type.

    `previous` is the list as it stands, for the times. A dependent that is not in `wanted` counts, and is written,
    as Unknown. Among several unhappy dependents the one that changed last gives the reason.
    """
    before = {entry["type"]: entry for entry in previous or ()}
    given = {condition.type: condition for condition in wanted if condition.type != happy}
    for type in dependents:
        given.setdefault(type, unknown(type))
    written = {
        type: _written(condition, before.get(type), type in dependents, now)
        for type, condition in given.items()
    }
    overall = _overall([written[type] for type in dependents], happy)
    written[happy] = _written(overall, before.get(happy), True, now)
    return [written[type] for type in sorted(written)]


def alone(previous: Iterable[Object] | None, condition: Condition, now: float) -> list[Object]:
    """The list for `status.conditions` of a kind that has only that one condition."""
    before = {entry["type"]: entry for entry in previous or ()}
    return [_written(condition, before.get(condition.type), True, now)]


def _overall(dependents: list[Object], happy: str) -> Condition:
    latest_first = sorted(dependents, key=lambda entry: str(entry["lastTransitionTime"]), reverse=True)
    for status in ("False", "Unknown"):
        for entry in latest_first:
            if entry["status"] == status:
                return Condition(happy, status, entry.get("reason", ""), entry.get("message", ""))
    return true(happy)


def _written(condition: Condition, before: Object | None, is_terminal: bool, now: float) -> Object:
    entry: Object = {"type": condition.type, "status": condition.status}
    if not is_terminal:
        entry["severity"] = "Info"
    if condition.reason:
        entry["reason"] = condition.reason
    if condition.message:
        entry["message"] = condition.message
    unchanged = before is not None and {k: v for k, v in before.items() if k != "lastTransitionTime"} == entry
    kept = before.get("lastTransitionTime") if before is not None and unchanged else None
    entry["lastTransitionTime"] = kept or timestamp(now)
    return entry
