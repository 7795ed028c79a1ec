"""Tables: what the API answers when kubectl asks for something to print.

One `meta.k8s.io/v1` Table for a list of objects of one kind; the columns are in `columns.py`. Pure: `now` turns
timestamps into ages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from glowplug.apiserver.columns import AGE, CUSTOM_COLUMNS, NAME, Column
from glowplug.apiserver.columns_built_in import BUILT_IN_COLUMNS
from glowplug.apiserver.durations import human_duration
from glowplug.errors import BadRequest
from glowplug.spec.kinds import Kind

__all__ = ["columns_of", "human_duration", "table"]

Object = dict[str, Any]

_META = "meta.k8s.io/v1"


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """The columns of a kind; name and age where it has no others."""
    built_in = BUILT_IN_COLUMNS.get((kind.group, kind.name))
    if built_in is not None:
        return built_in
    return (NAME, *CUSTOM_COLUMNS.get((kind.group, kind.name), (AGE,)))


def table(
    kind: Kind, objects: Iterable[Object], *, now: datetime, include_object: str = "Metadata"
) -> Object:
    """The Table of `objects`, its metadata left empty for the caller's resourceVersion and continue token.

    `include_object` says what each row carries of its object: `Metadata` (also if empty), `Object` or `None`;
    BadRequest for anything else. Rows share their objects' values.
    """
    attach = _ATTACHED.get(include_object or "Metadata")
    if attach is None:
        raise BadRequest(f"includeObject = {include_object!r}, must be one of {', '.join(_ATTACHED)}")
    columns = columns_of(kind)
    cells = [column.cell for column in columns]
    rows: list[Object] = []
    for obj in objects:
        row: Object = {"cells": [cell(obj, now) for cell in cells]}
        attach(row, obj)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": _META,
        "metadata": {},
        "columnDefinitions": [column.definition() for column in columns],
        "rows": rows,
    }


def _attach_metadata(row: Object, obj: Object) -> None:
    row["object"] = {
        "kind": "PartialObjectMetadata",
        "apiVersion": _META,
        "metadata": obj.get("metadata", {}),
    }


def _attach_object(row: Object, obj: Object) -> None:
    row["object"] = obj


def _attach_nothing(row: Object, obj: Object) -> None:
    # A row without `object` makes some clients fail; null is what the API server sends.
    row["object"] = None


_ATTACHED: dict[str, Callable[[Object, Object], None]] = {
    "Metadata": _attach_metadata,
    "Object": _attach_object,
    "None": _attach_nothing,
}
