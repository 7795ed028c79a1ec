"""The offline store: what is written is what is read, and no training row sees the future."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.features.lab import small_view

from glowplug.errors import FeatureError, InferenceError
from glowplug.features import offline
from glowplug.features.offline import OfflineStore
from glowplug.features.offline_training import training_set
from glowplug.features.view import Feature, OnMissing, OnStale

TTL_S = 5.0
VIEW = small_view(on_missing=OnMissing.NULL, on_stale=OnStale.NULL, ttl_s=TTL_S)
USER, PAIR = VIEW.groups
ONLY_USER = replace(VIEW, groups=(USER,))
times = st.integers(0, 20)
ids = st.integers(0, 2)
values = st.none() | st.integers(-(2**30), 2**30).map(lambda number: number / 7)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with offline.connect(threads=1) as connection:
        yield connection


def users(rows: Sequence[tuple[int, int, float | None, float | None]]) -> str:
    """SQL of (user id, second, age, spend)."""
    if not rows:
        return f"SELECT * FROM ({users([(0, 0, 0, 0)])}) WHERE false"
    literals = ", ".join(
        f"({user}, {second}, {_sql(age)}, {_sql(spend)})" for user, second, age, spend in rows
    )
    return (
        "SELECT user_id, make_timestamp(second * 1000000) AS event_timestamp, age, spend "
        f"FROM (VALUES {literals}) rows(user_id, second, age, spend)"
    )


def _sql(value: float | None) -> str:
    return "NULL" if value is None else f"CAST({value!r} AS DOUBLE)"


def spine(moments: list[tuple[int, int]]) -> str:
    literals = ", ".join(f"({user}, {second}, {index})" for index, (user, second) in enumerate(moments))
    return (
        "SELECT user_id, 'x' AS shop, make_timestamp(second * 1000000) AS event_timestamp, label "
        f"FROM (VALUES {literals}) rows(user_id, second, label)"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    st.dictionaries(st.tuples(ids, times), st.tuples(values, values), max_size=12),
    st.lists(st.tuples(ids, times), min_size=1, max_size=8),
)
def test_the_as_of_join_agrees_with_a_naive_loop(
    tmp_path: Path,
    connection: duckdb.DuckDBPyConnection,
    history: dict[tuple[int, int], tuple[float | None, float | None]],
    moments: list[tuple[int, int]],
) -> None:
    store = OfflineStore(ONLY_USER, tmp_path)
    rows = [(user, second, age, spend) for (user, second), (age, spend) in history.items()]
    assert store.write(connection, USER, users(rows)) == len(rows)
    found = training_set(connection, store, spine(moments))
    for index, (user, second) in enumerate(moments):
        known = [at for who, at in history if who == user and at <= second]
        expected = [math.nan, math.nan]
        if known and max(known) >= second - TTL_S:
            row = history[user, max(known)]
            defaults = [feature.default or 0.0 for feature in USER.features]
            expected = [
                default if value is None else value for value, default in zip(row, defaults, strict=True)
            ]
        assert np.array_equal(found.features[index], np.array(expected, dtype=np.float32), equal_nan=True)
    assert found.extras["label"].tolist() == list(range(len(moments)))
    assert found.event_ms.tolist() == [second * 1000 for _, second in moments]


def test_a_policy_of_error_is_one_in_training_too(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    store = OfflineStore(replace(VIEW, groups=(replace(USER, on_missing=OnMissing.ERROR),)), tmp_path)
    store.write(connection, store.view.groups[0], users([(1, 5, 1.0, 1.0)]))
    with pytest.raises(InferenceError, match="1 of 2 entities have no row"):
        training_set(connection, store, spine([(1, 5), (1, 4)]))


def test_latest_is_one_row_a_key_in_a_stable_order(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    store = OfflineStore(VIEW, tmp_path)
    rows = [(user, second, float(user), float(second)) for user in range(50) for second in (1, 9, 4)]
    store.write(connection, USER, users(rows))
    assert store.prepare_latest(connection, USER, stop_ms=9000) == 50
    whole = list(store.latest(connection, USER, batch_rows=7))
    assert [batch.event_ms.max() for batch in whole] == [4000] * 8
    keys = [key for batch in whole for key in batch.keys[0]]
    assert keys == [str(user) for user in range(50)]
    rest = [key for batch in store.latest(connection, USER, skip=33, batch_rows=7) for key in batch.keys[0]]
    assert rest == keys[33:]
    assert store.prepare_latest(connection, USER, start_ms=5000) == 50
    assert store.prepare_latest(connection, USER, start_ms=9001) == 0


def test_parts_add_up_and_are_replaced(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    store = OfflineStore(VIEW, tmp_path)
    store.write(connection, USER, users([(1, 1, 1.0, 1.0)]), part="2013-01")
    store.write(connection, USER, users([(1, 2, 2.0, 2.0), (2, 2, 2.0, 2.0)]), part="2013-02")
    store.write(connection, USER, users([(1, 3, 3.0, None)]), part="2013-01")
    assert [path.name for path in store.files(USER)] == ["2013-01.parquet", "2013-02.parquet"]
    assert not list(tmp_path.rglob("*.draft"))
    found = connection.execute(f"{store.relation(USER)} ORDER BY _event_ms, user_id").fetchall()
    assert found == [(1, 2000, 2.0, 2.0), (2, 2000, 2.0, 2.0), (1, 3000, 3.0, None)]


def test_infinite_and_nan_values_are_null(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    store = OfflineStore(VIEW, tmp_path)
    moment = "TIMESTAMP '2013-01-01' AS event_timestamp"
    query = f"SELECT 1 AS user_id, {moment}, 'inf'::DOUBLE AS age, 'nan'::FLOAT AS spend"
    store.write(connection, USER, query)
    assert connection.execute(f"SELECT age, spend FROM ({store.relation(USER)})").fetchall() == [(None, None)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (users([(1, 1, 1.0, 1.0), (1, 1, 2.0, 2.0)]), "2 rows have .* must be one"),
        (users([(1, 1, 1.0, 1.0)]).replace("user_id,", "NULL AS user_id,", 1), "1 NULLs"),
        ("SELECT 1 AS user_id, 2 AS age", "cannot be written.*event_timestamp"),
        (users([(1, 1, 1.0, 1.0)]).replace("age,", "'old' AS age,", 1), "cannot be written"),
        ("SELECT * FROM nowhere", "cannot be written.*nowhere"),
    ],
)
def test_a_table_that_does_not_fit_leaves_the_old_one(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, query: str, expected: str
) -> None:
    store = OfflineStore(VIEW, tmp_path)
    store.write(connection, USER, users([(7, 1, 1.0, 1.0)]))
    with pytest.raises(FeatureError, match=expected):
        store.write(connection, USER, query)
    assert connection.execute(f"SELECT user_id FROM ({store.relation(USER)})").fetchall() == [(7,)]
    assert len(list(tmp_path.rglob("*"))) == 2


def test_another_feature_list_is_refused(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    store = OfflineStore(VIEW, tmp_path)
    store.write(connection, USER, users([(7, 1, 1.0, 1.0)]))
    renamed = replace(USER, features=(Feature("age"), Feature("spent")))
    with pytest.raises(FeatureError, match=f"feature list {USER.schema_hash.hex()}"):
        store.relation(renamed)
    with pytest.raises(FeatureError, match="table pairs of group pair is not in"):
        store.relation(PAIR)
