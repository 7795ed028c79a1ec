"""Who manages which fields of an object: `metadata.managedFields`, read, written and named in messages.

An entry is known by its manager, its operation and its subresource; entries that came from writes other than apply
also by their API version. Everything here is a value; `apply.py` decides what the entries become.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from glowplug.apiserver.fieldsets import EMPTY, FieldSet, decode, encode, in_order, path_text
from glowplug.errors import Conflict, Problem

APPLY = "Apply"
UPDATE = "Update"

# With more writers than this that don't apply, the oldest share one entry. Kubernetes' own number and name.
_MOST_UPDATERS = 10
_OLDEST_UPDATERS = "ancient-changes"


@dataclass(frozen=True, order=True)
class Manager:
    """The identity of an entry; `api_version` is empty for appliers, who keep theirs across versions."""

    name: str
    operation: str
    api_version: str = ""
    subresource: str = ""

    def text(self) -> str:
        """As conflicts name it: `"kubectl" using v1`."""
        named = f'"{self.name}"'
        if self.subresource:
            named += f' with subresource "{self.subresource}"'
        return f"{named} using {self.api_version}" if self.operation == UPDATE else named


@dataclass(frozen=True)
class Entry:
    """What a manager owns, as of which version of the kind, since when (RFC 3339; None if it was never told)."""

    fields: FieldSet
    api_version: str
    time: str | None = None


Managers = dict[Manager, Entry]


def identity(name: str, operation: str, api_version: str, subresource: str) -> Manager:
    """The identity that a write by `name` has; nameless writers are `unknown`."""
    version = "" if operation == APPLY else api_version
    return Manager(name or "unknown", operation, version, subresource)


def read(entries: object) -> Managers:
    """The managers of a `managedFields` list; ValueError if an entry of it is none."""
    if entries is None:
        return {}
    if not isinstance(entries, list):
        raise ValueError("managedFields must be a list")
    return dict(_read_entry(entry) for entry in entries)


def _read_entry(entry: object) -> tuple[Manager, Entry]:
    if not isinstance(entry, dict):
        raise ValueError("an entry of managedFields must be an object")
    operation, version = entry.get("operation"), entry.get("apiVersion")
    if operation not in (APPLY, UPDATE):
        raise ValueError(f"operation must be `Apply` or `Update`, found {operation!r}")
    if not version or not isinstance(version, str):
        raise ValueError("apiVersion of an entry of managedFields must not be empty")
    if entry.get("fieldsType") != "FieldsV1":
        raise ValueError(f"fieldsType must be FieldsV1, found {entry.get('fieldsType')!r}")
    owner = identity(str(entry.get("manager") or ""), operation, version, str(entry.get("subresource") or ""))
    return owner, Entry(decode(entry.get("fieldsV1") or {}), version, entry.get("time"))


def write(managers: Managers) -> list[dict[str, Any]]:
    """The `managedFields` list: appliers first, each kind by time."""
    ordered = sorted(managers.items(), key=lambda item: (item[0].operation, item[1].time or "", item[0]))
    return [_write_entry(manager, entry) for manager, entry in ordered]


def _write_entry(manager: Manager, entry: Entry) -> dict[str, Any]:
    written: dict[str, Any] = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": entry.api_version,
    }
    if entry.time is not None:
        written["time"] = entry.time
    written["fieldsType"] = "FieldsV1"
    written["fieldsV1"] = encode(entry.fields)
    if manager.subresource:
        written["subresource"] = manager.subresource
    return written


def is_reset(entries: object) -> bool:
    """Whether a writer asks to forget all managers: an empty list, or one empty entry."""
    return entries in ([], [{}])


def timestamp(now: datetime) -> str:
    """`now` as entries carry it: UTC, whole seconds."""
    return now.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def owned_by(managers: Iterable[Entry]) -> FieldSet:
    """The fields that any of them owns."""
    return EMPTY.union(*(entry.fields for entry in managers))


def losing(managers: Managers, lost: Mapping[Manager, FieldSet]) -> Managers:
    """The managers without the fields that they lost; who has none left is forgotten."""
    left = {
        manager: replace(entry, fields=entry.fields - lost[manager]) if manager in lost else entry
        for manager, entry in managers.items()
    }
    return {manager: entry for manager, entry in left.items() if entry.fields}


def conflict_error(conflicts: Mapping[Manager, FieldSet]) -> Conflict:
    """The refusal to take fields that others own, naming each of them and its owner."""
    found = [(manager, path) for manager in sorted(conflicts) for path in in_order(conflicts[manager])]
    causes = [
        Problem(path_text(path), f"conflict with {manager.text()}", "FieldManagerConflict")
        for manager, path in found
    ]
    if len(found) == 1:
        manager, path = found[0]
        text = f"Apply failed with 1 conflict: conflict with {manager.text()}: {path_text(path)}"
        return Conflict(text, causes=causes)
    lines = []
    for manager in sorted(conflicts):
        lines.append(f"conflicts with {manager.text()}:")
        lines += [f"- {path_text(path)}" for path in in_order(conflicts[manager])]
    return Conflict(f"Apply failed with {len(found)} conflicts: " + "\n".join(lines), causes=causes)


def capped(managers: Managers) -> Managers:
    """The managers with the oldest of too many updaters merged into one entry."""
    updaters = [manager for manager in managers if manager.operation == UPDATE]
    excess = len(updaters) - _MOST_UPDATERS
    if excess <= 0:
        return managers
    updaters.sort(key=lambda manager: (managers[manager].time or "", manager))
    merged = updaters[: excess + 1]
    newest = managers[merged[-1]]
    bucket = identity(_OLDEST_UPDATERS, UPDATE, newest.api_version, "")
    left = {manager: entry for manager, entry in managers.items() if manager not in merged}
    shared = owned_by(managers[manager] for manager in {*merged, bucket} if manager in managers)
    left[bucket] = replace(newest, fields=shared)
    return left
