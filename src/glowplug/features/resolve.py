"""Rows → the model's input, under the view's policies. Pure; serving and training both end here.

Nothing is filled in silently: every default, null and stale row is counted in the report, which the lookup logs,
counts, and returns with the response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat

import numpy as np

from glowplug.errors import InferenceError
from glowplug.features.packing import Bools, Float32s, Int64s, Rows
from glowplug.features.view import FeatureView, Group, OnMissing, OnStale

MAX_NAMED_ROWS = 5


@dataclass(frozen=True)
class GroupReport:
    """What happened to the rows of one group. Every field but `group` is a count.

    `missing` and `stale` are rows before the policy; `defaulted_rows`, `null_rows` and `stale_used` what the policy
    made of them. `defaulted_values` and `null_values` are NULLs inside rows that were used.
    """

    group: str
    rows: int
    missing: int = 0
    stale: int = 0
    defaulted_rows: int = 0
    null_rows: int = 0
    stale_used: int = 0
    defaulted_values: int = 0
    null_values: int = 0


@dataclass(frozen=True)
class Report:
    groups: tuple[GroupReport, ...]

    def total(self, field: str) -> int:
        return sum(int(getattr(group, field)) for group in self.groups)

    @property
    def is_clean(self) -> bool:
        """Every row was there and fresh. (NULLs inside rows are the source's own and do not count.)"""
        return not (self.total("missing") or self.total("stale"))

    def parameters(self) -> dict[str, int | str]:
        """For the response: totals always, and which groups, as `route_hour=3,plane=1`, when there is any."""
        return dict(self._parameters)

    @cached_property
    def _parameters(self) -> dict[str, int | str]:
        totals: dict[str, int | str] = {
            f"feature_{field}": self.total(field)
            for field in ("missing", "stale", "defaulted_rows", "null_rows", "stale_used")
        }
        totals["feature_null_values"] = self.total("null_values") + self.total("defaulted_values")
        for field in ("missing", "stale"):
            named = [f"{each.group}={getattr(each, field)}" for each in self.groups if getattr(each, field)]
            if named:
                totals[f"feature_{field}_groups"] = ",".join(named)
        return totals


def resolve(
    view: FeatureView,
    rows: Sequence[Rows],
    now_ms: int | Int64s,
    *,
    entities: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Float32s, Report]:
    """The tensor float32 [n, features of the view], and what was filled in.

    `rows` has the rows of each group in the view's order, n of each. `now_ms` is the moment asked for, in Unix ms:
    one for all rows, or int64 [n]. `entities`, the n values of each entity, are for messages only. Raises
    `InferenceError` 400 (missing under `error`) or 503 (stale under `error`).
    """
    count = len(rows[0].found) if rows else 0
    matrix: Float32s = np.empty((count, len(view.features)), dtype=np.float32)
    np.concatenate([each.values for each in rows], axis=1, out=matrix)
    if not np.isnan(matrix).any() and all(map(_is_good, view.groups, rows, repeat(now_ms))):
        return matrix, _good_report(tuple(group.name for group in view.groups), count)
    reports = []
    start = 0
    for group, group_rows in zip(view.groups, rows, strict=True):
        stop = start + len(group.features)
        target = matrix[:, start:stop]
        reports.append(_resolve_group(group, group_rows, now_ms, target, entities or {}))
        start = stop
    return matrix, Report(tuple(reports))


def _is_good(group: Group, rows: Rows, now_ms: int | Int64s) -> bool:
    """Whether no policy has a say: every row is there and fresh."""
    return bool(rows.found.all()) and not (group.ttl_s is not None and _stale(group, rows, now_ms).any())


@lru_cache(maxsize=256)
def _good_report(groups: tuple[str, ...], rows: int) -> Report:
    return Report(tuple(GroupReport(group, rows) for group in groups))


def _resolve_group(
    group: Group,
    rows: Rows,
    now_ms: int | Int64s,
    target: Float32s,
    entities: Mapping[str, Sequence[str]],
) -> GroupReport:
    """Applies the group's policies to its columns of the matrix, which hold the rows as they were read."""
    missing: Bools = ~rows.found
    stale = _stale(group, rows, now_ms)
    if group.on_missing is OnMissing.ERROR and missing.any():
        raise InferenceError(_sentence(group, "no row", missing, entities), code=400)
    if group.on_stale is OnStale.ERROR and stale.any():
        problem = f"a row older than its ttl of {group.ttl_s:g} s"
        raise InferenceError(
            _sentence(group, problem, stale, entities), code=503, hint="materialize the view again"
        )
    to_default = _chosen(missing, group.on_missing is OnMissing.DEFAULT) | _chosen(
        stale, group.on_stale is OnStale.DEFAULT
    )
    to_null = _chosen(missing, group.on_missing is OnMissing.NULL) | _chosen(
        stale, group.on_stale is OnStale.NULL
    )
    defaults = np.array(
        [np.nan if feature.default is None else feature.default for feature in group.features], np.float32
    )
    nulls = np.isnan(target) & ~(to_default | to_null)[:, None]
    fillable = nulls & ~np.isnan(defaults)
    np.copyto(target, defaults, where=fillable)
    target[to_default] = defaults
    target[to_null] = np.nan
    return GroupReport(
        group=group.name,
        rows=len(target),
        missing=int(missing.sum()),
        stale=int(stale.sum()),
        defaulted_rows=int(to_default.sum()),
        null_rows=int(to_null.sum()),
        stale_used=int(stale.sum()) if group.on_stale is OnStale.USE else 0,
        defaulted_values=int(fillable.sum()),
        null_values=int(nulls.sum()) - int(fillable.sum()),
    )


def _stale(group: Group, rows: Rows, now_ms: int | Int64s) -> Bools:
    if group.ttl_s is None:
        return np.zeros(len(rows.found), dtype=np.bool_)
    # Compared this way round because now - event could overflow for a timestamp near int64's ends.
    oldest_ms = np.asarray(now_ms, dtype=np.int64) - np.int64(round(group.ttl_s * 1000))
    stale: Bools = rows.found & (rows.event_ms < oldest_ms)
    return stale


def _chosen(rows: Bools, is_chosen: bool) -> Bools:
    return rows if is_chosen else np.zeros_like(rows)


def _sentence(group: Group, problem: str, rows: Bools, entities: Mapping[str, Sequence[str]]) -> str:
    """`feature group plane (tailnum): 3 of 10 entities have no row: N1; N2; N3`. Names a few, never the whole input."""
    which = np.flatnonzero(rows)
    text = f"feature group {group.name} ({', '.join(group.keys)}): {len(which)} of {len(rows)} entities have {problem}"
    if not all(key in entities for key in group.keys):
        return text
    shown = "; ".join(_named(group, entities, int(index)) for index in which[:MAX_NAMED_ROWS])
    return f"{text}: {shown}{'; …' if len(which) > MAX_NAMED_ROWS else ''}"


def _named(group: Group, entities: Mapping[str, Sequence[str]], index: int) -> str:
    values = [entities[key][index] for key in group.keys]
    return ", ".join(value if len(value) <= 40 else value[:37] + "..." for value in values)
