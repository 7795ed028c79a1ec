"""Both offline stores, Parquet and PostgreSQL, by the same cases: what is written is what is read, and no training row
sees the future."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local.postgres_lab import PASSWORD, Postgres, postgres_server
from unit.features.lab import small_view

from glowplug.errors import ConfigError, FeatureError, InferenceError, StorageError
from glowplug.features import offline, offline_copy
from glowplug.features.offline import OfflineStore, Part, open_store
from glowplug.features.offline_training import TrainingSet, training_set
from glowplug.features.view import EntityType, Feature, FeatureView, OnMissing, OnStale

TTL_S = 5.0
VIEW = small_view(on_missing=OnMissing.NULL, on_stale=OnStale.NULL, ttl_s=TTL_S)
USER, PAIR = VIEW.groups
ONLY_USER = replace(VIEW, groups=(USER,))
ALL_NULL = replace(
    VIEW, groups=tuple(replace(each, on_missing=OnMissing.NULL, ttl_s=None) for each in VIEW.groups)
)
STORES = ("parquet", "postgres")
times = st.integers(0, 20)
ids = st.integers(0, 2)
values = st.none() | st.integers(-(2**30), 2**30).map(lambda number: number / 7)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with offline.connect(threads=1) as connection:
        yield connection


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@dataclass
class Place:
    """Opens stores in a fresh place of one kind."""

    kind: str
    url: str | Path
    connection: duckdb.DuckDBPyConnection

    def open(self, view: FeatureView = VIEW) -> OfflineStore:
        return open_store(view, self.url)

    def written(self, rows: Sequence[Any], view: FeatureView = VIEW, part: str = "all") -> OfflineStore:
        store = self.open(view)
        assert store.write(self.connection, view.groups[0], users(rows), part) == len(rows)
        return store


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Place:
    if request.param == "parquet":
        return Place("parquet", tmp_path / "offline", connection)
    server: Postgres = request.getfixturevalue("postgres")
    return Place("postgres", server.emptied(), connection)


def users(rows: Sequence[tuple[int, float, float | None, float | None]]) -> str:
    """SQL of (user id, second, age, spend)."""
    if not rows:
        return f"SELECT * FROM ({users([(0, 0, 0, 0)])}) WHERE false"
    literals = ", ".join(
        f"({user}, {round(second * 1e6)}, {_sql(age)}, {_sql(spend)})" for user, second, age, spend in rows
    )
    return (
        "SELECT user_id, make_timestamp(at_us) AS event_timestamp, age, spend "
        f"FROM (VALUES {literals}) rows(user_id, at_us, age, spend)"
    )


def _sql(value: float | None) -> str:
    return "CAST(NULL AS DOUBLE)" if value is None else f"CAST('{value!r}' AS DOUBLE)"


def spine(moments: Sequence[tuple[int, float]]) -> str:
    literals = ", ".join(
        f"({user}, {round(second * 1e6)}, {index})" for index, (user, second) in enumerate(moments)
    )
    return (
        "SELECT user_id, 'x' AS shop, make_timestamp(at_us) AS event_timestamp, label "
        f"FROM (VALUES {literals}) rows(user_id, at_us, label)"
    )


def rows_of(store: OfflineStore, **bounds: int) -> list[tuple[Any, ...]]:
    """(key, Unix ms, values…) of the group `user`; None for NULL."""
    found = []
    for batch in store.scan(store.view.groups[0], **bounds):
        for key, at, row in zip(batch.keys[0], batch.event_ms.tolist(), batch.values.tolist(), strict=True):
            found.append((key, at, *(None if math.isnan(value) else value for value in row)))
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(
    st.dictionaries(st.tuples(ids, times), st.tuples(values, values), max_size=12),
    st.lists(st.tuples(ids, times), min_size=1, max_size=8),
)
def test_the_as_of_join_agrees_with_a_naive_loop(
    place: Place,
    history: dict[tuple[int, int], tuple[float | None, float | None]],
    moments: list[tuple[int, int]],
) -> None:
    rows = [(user, second, age, spend) for (user, second), (age, spend) in history.items()]
    found = training_set(place.connection, place.written(rows, ONLY_USER), spine(moments))
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
    assert found.schema_hash == ONLY_USER.schema_hash


def test_the_future_begins_with_the_next_microsecond(place: Place) -> None:
    store = place.written([(1, 5.0, 1.0, 1.0), (1, 5.000_001, 2.0, 2.0), (1, -5.5, 3.0, 3.0)], ONLY_USER)
    found = training_set(
        place.connection, store, spine([(1, 4.999_999), (1, 5.0), (1, 5.000_001), (1, -5.5)])
    )
    assert found.features[:, 0].tolist()[1:] == [1.0, 2.0, 3.0]
    assert np.isnan(found.features[0]).all()
    # Rounded down also before 1970, in rows and in moments alike.
    assert found.event_ms.tolist() == [4999, 5000, 5000, -5500]


def big(connection: duckdb.DuckDBPyConnection, count: int) -> str:
    """A spine of many moments, and a history in the table `big`, with awkward texts and numbers."""
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE big AS
        SELECT i % 97 AS user_id, ['', 'a"b,', E'x\\ny', '\\.', 'ü:%', 'Z', 'z', 'é'][1 + i % 8] AS shop,
               make_timestamp(1_357_000_000_000_000 + i * 999_983) AS event_timestamp,
               CASE WHEN i % 11 > 0 THEN sin(i) * pow(10, i % 80 - 45) END AS age,
               CASE i % 13 WHEN 0 THEN 'nan'::DOUBLE WHEN 1 THEN '-inf'::DOUBLE WHEN 2 THEN -0.0
                 WHEN 3 THEN 1e-45 ELSE i / 3 END AS spend, i / 7 AS visits
        FROM range({count}) t(i) WHERE abs(sin(i) * pow(10, i % 80 - 45)) < 3.4e38
        """
    )
    return (
        "SELECT (i * 7919) % 101 AS user_id, ['', 'a\"b,', E'x\\ny', '\\.', 'ü:%', 'Z', 'z', 'é'][1 + i % 8] AS shop, "
        f"make_timestamp(1_357_000_000_000_000 + (i * 7907) % {count} * 1_000_000) AS event_timestamp, i AS label "
        f"FROM range({count}) t(i)"
    )


def test_both_stores_answer_with_the_same_bits(
    tmp_path: Path, postgres: Postgres, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several pieces each way.
    monkeypatch.setattr(offline_copy, "PIECE_ROWS", 1000)
    monkeypatch.setattr(offline_copy, "_PIECE_BYTES", 10_000)
    moments = big(connection, 20_000)
    sets: list[TrainingSet] = []
    scans: list[Any] = []
    newest: list[Any] = []
    parts: list[dict[str, Part]] = []
    for url in (tmp_path, postgres.new_database()):
        with open_store(ALL_NULL, url) as store:
            for group in ALL_NULL.groups:
                for part, half in (("a", "<"), ("b", ">=")):
                    query = f"SELECT * FROM big WHERE event_timestamp {half} make_timestamp(1_357_007_777_777_777)"
                    store.write(connection, group, query, part)
            sets.append(training_set(connection, store, moments))
            scans.append([_bytes(batch) for batch in store.scan(PAIR, batch_rows=3000)])
            with store.latest(PAIR, stop_ms=1_357_010_000_000) as latest:
                newest.append((latest.rows, [_bytes(batch) for batch in latest.batches(100, batch_rows=111)]))
            parts.append(
                {f"{group.name}/{k}": v for group in VIEW.groups for k, v in store.parts(group).items()}
            )
    parquet, database = sets
    assert parquet.features.tobytes() == database.features.tobytes()
    assert parquet.report == database.report
    assert 0 < parquet.report.total("missing") < 40_000
    assert parquet.report.total("null_values") + parquet.report.total("defaulted_values") > 1000
    assert np.unique(parquet.features[:, 0]).size > 5000
    assert scans[0] == scans[1]
    assert newest[0] == newest[1]
    assert newest[0][0] > 700
    assert parts[0] == parts[1]
    assert next(each.rows for each in parts[0].values()) > 5000


def _bytes(batch: Any) -> Any:
    return batch.keys, batch.event_ms.tobytes(), batch.values.tobytes()


def test_integers_are_keys_as_wide_as_they_are(place: Place) -> None:
    wide = [-(2**63), -1, 2**63 - 1, 2**53 + 1]
    store = place.written([(user, 1, 1.0, float(index)) for index, user in enumerate(wide)], ONLY_USER)
    assert [row[0] for row in rows_of(store)] == [str(user) for user in sorted(wide)]
    found = training_set(place.connection, store, spine([(user, 1) for user in wide]))
    assert found.features[:, 1].tolist() == [0, 1, 2, 3]


def test_an_empty_table_and_an_empty_spine(place: Place) -> None:
    store = place.written([], ONLY_USER)
    assert store.parts(USER) == {"all": Part("all", "0-0000000000000000", 0)}
    assert rows_of(store) == []
    found = training_set(place.connection, store, spine([(1, 1)]))
    assert found.report.total("missing") == 1
    nothing = training_set(place.connection, store, f"SELECT * FROM ({spine([(1, 1)])}) WHERE false")
    assert nothing.features.shape == (0, 2)
    with store.latest(USER) as latest:
        assert (latest.rows, list(latest.batches())) == (0, [])


def test_a_policy_of_error_is_one_in_training_too(place: Place) -> None:
    view = replace(VIEW, groups=(replace(USER, on_missing=OnMissing.ERROR),))
    store = place.written([(1, 5, 1.0, 1.0)], view)
    with pytest.raises(InferenceError, match="1 of 2 entities have no row"):
        training_set(place.connection, store, spine([(1, 5), (1, 4)]))


def test_latest_is_one_row_a_key_in_a_stable_order(place: Place) -> None:
    store = place.written([(user, at, float(user), float(at)) for user in range(50) for at in (1, 9, 4)])
    with store.latest(USER, stop_ms=9000) as latest:
        assert latest.rows == 50
        whole = list(latest.batches(batch_rows=7))
        assert [batch.event_ms.max() for batch in whole] == [4000] * 8
        keys = [key for batch in whole for key in batch.keys[0]]
        assert keys == [str(user) for user in range(50)]
        rest = [key for batch in latest.batches(33, batch_rows=7) for key in batch.keys[0]]
        assert rest == keys[33:]
    for start_ms, expected in ((5000, 50), (9001, 0)):
        with store.latest(USER, start_ms=start_ms) as latest:
            assert latest.rows == expected


def test_parts_add_up_and_are_replaced(place: Place) -> None:
    store = place.written([(1, 1, 1.0, 1.0)], part="2013-01")
    place.written([(1, 2, 2.0, 2.0), (2, 2, 2.0, 2.0)], part="2013-02")
    before = store.parts(USER)
    place.written([(1, 3, 3.0, None)], part="2013-01")
    assert rows_of(store) == [("1", 2000, 2.0, 2.0), ("1", 3000, 3.0, None), ("2", 2000, 2.0, 2.0)]
    assert rows_of(store, start_ms=2001) == [("1", 3000, 3.0, None)]
    assert rows_of(store, stop_ms=3000) == [("1", 2000, 2.0, 2.0), ("2", 2000, 2.0, 2.0)]
    after = store.parts(USER)
    assert list(after) == ["2013-01", "2013-02"]
    assert (after["2013-01"].rows, after["2013-01"].min_ms, after["2013-01"].max_ms) == (1, 3000, 3000)
    assert after["2013-02"] == before["2013-02"]
    assert after["2013-01"].version != before["2013-01"].version
    place.written([(1, 1, 1.0, 1.0)], part="2013-01")
    assert store.parts(USER) == before


def test_infinite_and_nan_values_are_null(place: Place) -> None:
    store = place.written([(1, 1, math.inf, math.nan), (2, 1, -0.0, -math.inf)])
    assert rows_of(store) == [("1", 1000, None, None), ("2", 1000, 0.0, None)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            users([(1, 1, 1.0, 1.0), (1, 1, 2.0, 2.0)]),
            "table users of group user: 2 rows have .* must be one",
        ),
        (users([(1, 1, 1.0, 1.0)]).replace("user_id,", "NULL AS user_id,", 1), "1 NULLs"),
        (
            "SELECT 1 AS user_id, 'old' AS age, 1.5 AS spend",
            r"column event_timestamp is missing, must be a timestamp \(UTC\); "
            r"column age is VARCHAR, must be a number \(float32\)",
        ),
        (
            users([(1, 1, 1.0, 1.0)]).replace("user_id,", "'u1' AS user_id,", 1),
            r"table users of group user cannot be written: column user_id is VARCHAR, must be int64 \(a join key\)",
        ),
        (
            users([(1, 1, 1e300, 1.0), (2, 1, 2.0, 1.0)]),
            r"column age has 1 values such as 1e\+300, must be a number \(float32\)",
        ),
        (
            users([(1, 1, 1.0, 1.0)]).replace(
                "user_id,", "170141183460469231731687303715884105727 AS user_id,", 1
            ),
            "column user_id has 1 values such as 1701411834.*, must be int64",
        ),
        (
            users([(1, 1, 1.0, 1.0)]).replace("make_timestamp(at_us)", "'infinity'::TIMESTAMP"),
            "not from 0001-01-01",
        ),
        (users([(1, 300_000_000_000, 1.0, 1.0)]), "1 timestamps in column event_timestamp are not from"),
        ("SELECT * FROM nowhere", "table users of group user cannot be written.*nowhere"),
        (users([(1, 2, 1.0, 1.0), (8, 1, 1.0, 1.0)]), "part new has a row.*must be one"),
    ],
)
def test_a_table_that_does_not_fit_leaves_the_old_one(place: Place, query: str, expected: str) -> None:
    store = place.written([(7, 1, 1.0, 1.0)], part="new")
    place.written([(8, 1, 1.0, 1.0), (9, 1, 1.0, 1.0)], part="old")
    with pytest.raises(FeatureError, match=expected):
        store.write(place.connection, USER, query, part="new")
    assert [row[0] for row in rows_of(store)] == ["7", "8", "9"]
    assert {name: part.rows for name, part in store.parts(USER).items()} == {"new": 1, "old": 2}
    if isinstance(place.url, Path):
        assert len(list(place.url.rglob("*"))) == 3


def test_a_zero_character_in_a_key_fits_neither(place: Place) -> None:
    query = (
        "SELECT 1 AS user_id, 'a' || chr(0) AS shop, TIMESTAMP '2013-01-01' AS event_timestamp, 1 AS visits"
    )
    with pytest.raises(FeatureError, match="1 rows have a zero character in user_id, shop"):
        place.open().write(place.connection, PAIR, query)


def test_a_part_is_no_path(place: Place) -> None:
    with pytest.raises(FeatureError, match=r"part '\.\./x', must be letters"):
        place.open().write(place.connection, USER, users([(1, 1, 1.0, 1.0)]), part="../x")


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("SELECT user_id, event_timestamp FROM s", "column shop is missing, must be string"),
        (
            "SELECT * REPLACE ('x' AS event_timestamp) FROM s",
            "column event_timestamp is VARCHAR, must be a timestamp",
        ),
        ("SELECT * REPLACE (NULL::TIMESTAMP AS event_timestamp) FROM s", "rows without a event_timestamp"),
        ("SELECT * REPLACE ('u1' AS user_id) FROM s", "spine of a training set of view shops fails.*u1"),
        ("SELECT * FROM nowhere", "spine of a training set of view shops fails.*nowhere"),
    ],
)
def test_a_spine_that_does_not_fit(place: Place, broken: str, expected: str) -> None:
    store = place.written([(7, 1, 1.0, 1.0)], ONLY_USER)
    with pytest.raises(FeatureError, match=expected):
        training_set(place.connection, store, f"WITH s AS ({spine([(7, 1)])}) {broken}")


def test_other_columns_are_refused_until_all_parts_are_built_again(place: Place) -> None:
    place.written([(7, 1, 1.0, 1.0)], part="a")
    place.written([(7, 2, 1.0, 1.0)], part="b")
    renamed = replace(USER, features=(Feature("age"), Feature("spent")))
    other = replace(VIEW, groups=(renamed, PAIR))
    store = place.open(other)
    moved = "part a, was written with other columns: column 3 is 'spend:float32', must be 'spent:float32'"
    for read in (lambda: rows_of(store), lambda: training_set(place.connection, store, spine([(7, 1)]))):
        with pytest.raises(FeatureError, match=moved):
            read()
    query = users([(7, 1, 5.0, 5.0)]).replace("age, spend", "age, spend AS spent", 1)
    store.write(place.connection, renamed, query, part="a")
    with pytest.raises(FeatureError, match="part b, was written"):
        rows_of(store)
    with pytest.raises(FeatureError, match="part a, was written"):
        rows_of(place.open())
    store.write(place.connection, renamed, query.replace("1000000", "2000000"), part="b")
    assert rows_of(store) == [("7", 1000, 5.0, 5.0), ("7", 2000, 5.0, 5.0)]
    # A key of another type is another column too.
    texts = replace(VIEW, entities=(replace(VIEW.entities[0], type=EntityType.STRING), VIEW.entities[1]))
    place.written([(7, 1, 1.0, 1.0)], part="a")
    place.written([(7, 2, 1.0, 1.0)], part="b")
    with pytest.raises(FeatureError, match="column 0 is 'user_id:int64', must be 'user_id:string'"):
        rows_of(place.open(texts))


def test_a_table_that_was_never_written(place: Place) -> None:
    store = place.written([(7, 1, 1.0, 1.0)])
    assert store.parts(PAIR) == {}
    with pytest.raises(FeatureError, match="table pairs of group pair is not in"):
        training_set(place.connection, store, spine([(7, 1)]))


def test_views_in_one_database_do_not_meet(postgres: Postgres, connection: duckdb.DuckDBPyConnection) -> None:
    url = postgres.emptied()
    for name, age in (("one-view", 1.0), ("other-view", 2.0)):
        open_store(replace(VIEW, name=name), url).write(connection, USER, users([(1, 1, age, age)]))
    assert rows_of(open_store(replace(VIEW, name="one-view"), url)) == [("1", 1000, 1.0, 1.0)]
    assert rows_of(open_store(replace(VIEW, name="other-view"), url)) == [("1", 1000, 2.0, 2.0)]


def test_one_snapshot_for_all_groups(postgres: Postgres, connection: duckdb.DuckDBPyConnection) -> None:
    store = open_store(VIEW, postgres.emptied())
    store.write(connection, USER, users([(n, 1, 1.0, 1.0) for n in range(100)]))
    with store.latest(USER) as latest:
        store.write(connection, USER, users([(n, 2, 2.0, 2.0) for n in range(10)]))
        assert latest.rows == 100
        assert {float(batch.values[0, 0]) for batch in latest.batches(batch_rows=10)} == {1.0}
    assert len(rows_of(store)) == 10


def test_another_zone_or_date_style_of_the_database_changes_nothing(
    postgres: Postgres, connection: duckdb.DuckDBPyConnection
) -> None:
    url = postgres.new_database()
    with psycopg.connect(url, autocommit=True) as session:
        database = url.rpartition("/")[2]
        for setting in ("timezone = 'Asia/Kathmandu'", "datestyle = 'SQL, DMY'", "extra_float_digits = -15"):
            session.execute(f"ALTER DATABASE {database} SET {setting}".encode())
    store = open_store(ONLY_USER, url)
    store.write(connection, USER, users([(1, 1_364_688_000, 1 / 3, 0.1)]))
    assert rows_of(store) == [("1", 1_364_688_000_000, float(np.float32(1 / 3)), float(np.float32(0.1)))]


def test_urls(tmp_path: Path) -> None:
    for url in (tmp_path, str(tmp_path), f"file://{tmp_path}", f"file://localhost{tmp_path}"):
        assert open_store(VIEW, url).url == str(tmp_path)
    with pytest.raises(ConfigError, match="names no folder of this computer"):
        open_store(VIEW, "file://elsewhere/x")
    with pytest.raises(ConfigError, match="URL with mysql://") as caught:
        open_store(VIEW, f"mysql://me:{PASSWORD}@host/db")
    assert PASSWORD not in _everything(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@host:not-a-port/db",
        f"postgresql://me:{PASSWORD}/x@host/db",
        f"postgresql://me:{PASSWORD}@[::1/db",
        f"postgresql://me:1@{PASSWORD}@host/db",
        f"postgresql://me:12/{PASSWORD}@host/db",
        f"postgresql://host/db?user=me&password={PASSWORD}&nonsense=1",
    ],
)
def test_no_secret_in_the_error_of_a_url(url: str, connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises((ConfigError, StorageError)) as caught:
        open_store(VIEW, url).parts(USER)
    assert PASSWORD not in _everything(caught.value)


def test_no_secret_in_errors_of_the_database(
    postgres: Postgres, connection: duckdb.DuckDBPyConnection
) -> None:
    url = postgres.emptied()
    wrong = [
        url.replace(PASSWORD, f"not-{PASSWORD}"),
        url.rpartition("/")[0] + "/nowhere",
        f"postgresql://tester:{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://127.0.0.1:1/db?user=tester&password={PASSWORD}",
    ]
    for each in wrong:
        store = open_store(VIEW, each)
        assert PASSWORD not in repr(store) + store.url
        with pytest.raises(
            StorageError, match=r"table users of group user in postgresql://.*127\.0\.0\.1"
        ) as caught:
            store.write(connection, USER, users([(1, 1, 1.0, 1.0)]))
        assert PASSWORD not in _everything(caught.value)
        assert "is PostgreSQL running" in caught.value.hint


def _everything(error: BaseException) -> str:
    """All that a log may show of it."""
    import traceback

    return "".join(traceback.format_exception(error)) + repr(error) + str(getattr(error, "hint", ""))


def test_postgres_gone_in_mid_run_leaves_the_old_part(
    postgres: Postgres, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(ONLY_USER, postgres.emptied())
    store.write(connection, USER, users([(1, 1, 1.0, 1.0)]))
    real = offline_copy.copy_in

    def dies(*args: Any) -> None:
        real(*args)
        postgres.kill()

    def read() -> None:
        with store.latest(USER) as latest:
            postgres.kill()
            list(latest.batches())

    def write() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("glowplug.features.offline_postgres.copy_in", dies)
            store.write(connection, USER, users([(1, 2, 2.0, 2.0)]))

    def join() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("glowplug.features.offline_postgres.copy_in", dies)
            training_set(connection, store, spine([(1, 2)]))

    for broken in (read, write, join):
        with pytest.raises(
            StorageError, match=r"tables? users.* in postgresql://tester@127\.0\.0\.1"
        ) as caught:
            broken()
        assert "is PostgreSQL running" in caught.value.hint
        with pytest.raises(StorageError):
            store.parts(USER)
        postgres.start()
        assert rows_of(store) == [("1", 1000, 1.0, 1.0)]
    store.write(connection, USER, users([(1, 2, 2.0, 2.0)]))
    assert rows_of(store) == [("1", 2000, 2.0, 2.0)]
