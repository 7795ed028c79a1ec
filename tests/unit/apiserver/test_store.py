"""The store: durable, atomic, and in memory what is in the file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from glowplug.apiserver.changes import ADDED, DELETED, MODIFIED, Ref, Write
from glowplug.apiserver.store import Store
from glowplug.errors import ConfigError, DataDirHeld, StoreFull
from glowplug.spec.kinds import CONFIG_MAP, SECRET


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.db"


def ref(name: str, namespace: str = "default") -> Ref:
    return Ref(CONFIG_MAP, namespace, name)


def put(store: Store, name: str, raw: bytes, namespace: str = "default") -> str:
    (change,) = store.apply([Write(ref(name, namespace), store.revision + 1, raw)])
    return change.type


def test_reopened_store_has_the_same_objects_and_revision(path: Path) -> None:
    store = Store.open(path)
    assert put(store, "a", b"1") == ADDED
    assert put(store, "a", b"2") == MODIFIED
    put(store, "b", b"3")
    store.apply([Write(ref("b"), store.revision + 1, b"3", is_removal=True)])
    revision = store.revision
    store.close()

    again = Store.open(path)
    assert again.revision == revision
    assert [(row[0].name, row[1]) for row in again.scan(CONFIG_MAP)] == [("a", b"2")]
    assert again.get(ref("b")) is None
    again.close()


def test_changes_tell_what_was_there_before(path: Path) -> None:
    store = Store.open(path)
    put(store, "a", b"1")
    (modified,) = store.apply([Write(ref("a"), store.revision + 1, b"2")])
    (deleted,) = store.apply([Write(ref("a"), store.revision + 1, b"3", is_removal=True)])
    assert (modified.previous, modified.raw) == (b"1", b"2")
    assert (deleted.type, deleted.previous, deleted.raw) == (DELETED, b"2", b"3")
    assert store.count(CONFIG_MAP) == 0
    store.close()


def test_scan_is_ordered_by_namespace_then_name(path: Path) -> None:
    store = Store.open(path)
    for namespace, name in (("z", "a"), ("a", "z"), ("a", "b")):
        put(store, name, b"{}", namespace)
    assert [(row.namespace, row.name) for row, _ in store.scan(CONFIG_MAP)] == [
        ("a", "b"),
        ("a", "z"),
        ("z", "a"),
    ]
    assert [row.name for row, _ in store.scan(CONFIG_MAP, "a")] == ["b", "z"]
    assert list(store.scan(SECRET)) == []
    assert store.count(CONFIG_MAP, "a") == 2
    store.close()


def test_second_owner_is_refused(path: Path) -> None:
    store = Store.open(path)
    with pytest.raises(DataDirHeld, match="another process"):
        Store.open(path)
    store.close()
    Store.open(path).close()


def test_file_that_is_no_database_is_named(path: Path) -> None:
    path.write_bytes(b"this is not a database, but long enough to look like one" * 100)
    with pytest.raises(ConfigError, match=r"objects\.db cannot be opened"):
        Store.open(path)


def test_store_of_a_later_version_is_left_alone(path: Path) -> None:
    Store.open(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ConfigError, match="schema 99"):
        Store.open(path)


def test_full_disk_changes_nothing_and_passes(path: Path) -> None:
    store = Store.open(path)
    put(store, "kept", b"first")
    database = store._database  # the limit stands in for a disk without room
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    revision = store.revision

    big = b"x" * 500_000
    with pytest.raises(StoreFull, match="no room") as caught:
        store.apply([Write(ref("kept"), revision + 1, b"second"), Write(ref("big"), revision + 2, big)])
    assert "free some space" in caught.value.hint
    assert store.revision == revision
    assert store.get(ref("kept")) == b"first"
    assert store.get(ref("big")) is None

    database.execute("PRAGMA max_page_count = 1000000")
    assert put(store, "big", big) == ADDED
    store.close()
    again = Store.open(path)
    assert again.get(ref("kept")) == b"first"
    assert again.get(ref("big")) == big
    again.close()


def test_pinned_objects_are_read_and_not_written(path: Path) -> None:
    store = Store.open(path)
    store.pin(ref("derived"), b"{}")
    assert store.get(ref("derived")) == b"{}"
    store.close()
    again = Store.open(path)
    assert again.get(ref("derived")) is None
    again.close()
