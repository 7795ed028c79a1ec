"""The policies for missing and stale rows, against a naive reading of the same rules."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.features.lab import small_view

from glowplug.errors import InferenceError
from glowplug.features.packing import Rows
from glowplug.features.resolve import resolve
from glowplug.features.view import Feature, FeatureView, Group, OnMissing, OnStale

NOW_MS = 10_000_000
TTL_S = 60.0
Row = tuple[float, float, int] | None
rows_of = st.lists(
    st.none()
    | st.tuples(
        st.floats(width=32),
        st.floats(width=32),
        st.sampled_from([0, NOW_MS - 60_001, NOW_MS - 60_000, NOW_MS, NOW_MS + 5]),
    ),
    max_size=8,
)


def only_user(on_missing: OnMissing, on_stale: OnStale, defaults: bool) -> FeatureView:
    view = small_view(on_missing=on_missing, on_stale=on_stale, ttl_s=TTL_S)
    group = view.group("user")
    if not defaults:
        group = replace(group, features=tuple(Feature(each.name) for each in group.features))
    return FeatureView(view.name, view.entities, (group,))


def to_rows(rows: list[Row]) -> Rows:
    filled = [row or (math.nan, math.nan, 0) for row in rows]
    return Rows(
        np.array([row[:2] for row in filled], dtype=np.float32).reshape(-1, 2),
        np.array([row[2] for row in filled], dtype=np.int64),
        np.array([row is not None for row in rows], dtype=np.bool_),
    )


def naive(group: Group, row: Row) -> tuple[list[float], str]:
    """The values of one row and what happened to it."""
    defaults = [math.nan if each.default is None else each.default for each in group.features]
    nulls = [math.nan] * len(defaults)
    if row is None:
        return {"error": (nulls, "refused"), "default": (defaults, "defaulted"), "null": (nulls, "null")}[
            group.on_missing.value
        ]
    values = [
        default if math.isnan(value) else value for value, default in zip(row[:2], defaults, strict=True)
    ]
    if row[2] < NOW_MS - TTL_S * 1000:
        return {
            "error": (nulls, "refused"),
            "default": (defaults, "defaulted"),
            "null": (nulls, "null"),
            "use": (values, "stale used"),
        }[group.on_stale.value]
    return values, "used"


@given(rows_of, st.sampled_from(OnMissing), st.sampled_from(OnStale), st.booleans())
def test_agrees_with_the_naive_reading(
    rows: list[Row], on_missing: OnMissing, on_stale: OnStale, defaults: bool
) -> None:
    view = only_user(on_missing, on_stale, defaults)
    expected = [naive(view.groups[0], row) for row in rows]
    outcomes = [outcome for _, outcome in expected]
    if "refused" in outcomes:
        with pytest.raises(InferenceError) as caught:
            resolve(view, [to_rows(rows)], NOW_MS)
        is_missing = on_missing is OnMissing.ERROR and None in rows
        assert caught.value.code == (400 if is_missing else 503)
        return
    matrix, report = resolve(view, [to_rows(rows)], NOW_MS)
    wanted = np.array([values for values, _ in expected], dtype=np.float32).reshape(-1, 2)
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix, wanted, equal_nan=True)
    (group,) = report.groups
    assert (group.rows, group.missing) == (len(rows), rows.count(None))
    assert group.defaulted_rows == outcomes.count("defaulted")
    assert group.null_rows == outcomes.count("null")
    assert group.stale_used == outcomes.count("stale used")
    used = [
        row for row, outcome in zip(rows, outcomes, strict=True) if row and outcome in ("used", "stale used")
    ]
    nulls = sum(math.isnan(value) for row in used for value in row[:2])
    assert group.defaulted_values + group.null_values == nulls
    assert (group.null_values == 0) or not defaults
    assert report.is_clean == (None not in rows and group.stale == 0)


def test_columns_are_the_groups_in_their_order() -> None:
    view = small_view(on_missing=OnMissing.DEFAULT)
    pair = Rows(np.array([[7.0]], np.float32), np.array([NOW_MS]), np.array([True]))
    matrix, report = resolve(view, [to_rows([None]), pair], NOW_MS)
    assert matrix.tolist() == [[30.0, -1.0, 7.0]]
    assert report.parameters() == {
        "feature_missing": 1,
        "feature_stale": 0,
        "feature_defaulted_rows": 1,
        "feature_null_rows": 0,
        "feature_stale_used": 0,
        "feature_null_values": 0,
        "feature_missing_groups": "user=1",
    }


def test_an_error_names_a_few_entities_and_no_more() -> None:
    view = small_view()
    ids = [f"{index:0100}" for index in range(50)]
    rows = [to_rows([None] * 50), Rows.empty(50, 1)]
    with pytest.raises(InferenceError) as caught:
        resolve(view, rows, NOW_MS, entities={"user_id": ids, "shop": ids})
    message = caught.value.message
    assert message.startswith("feature group user (user_id): 50 of 50 entities have no row: 000")
    assert message.endswith("; …")
    assert len(message) < 400


def test_each_row_has_its_own_moment() -> None:
    view = only_user(OnMissing.NULL, OnStale.DEFAULT, defaults=True)
    rows = to_rows([(1.0, 2.0, 0), (1.0, 2.0, 0)])
    matrix, report = resolve(view, [rows], np.array([60_000, 60_001]))
    assert matrix.tolist() == [[1.0, 2.0], [30.0, -1.0]]
    assert report.total("stale") == 1
