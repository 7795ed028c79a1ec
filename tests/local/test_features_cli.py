"""`glowplug features`: the command that a CronJob runs, on a real Redis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from unit.features.lab import small_view, to_yaml

from glowplug.features import offline
from glowplug.features.offline import open_store
from glowplug.features.redis_server import RedisServer, start_redis

GLOWPLUG = Path(sys.executable).parent / "glowplug"
VIEW = small_view()
USER, _ = VIEW.groups


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with start_redis(tmp_path) as server:
        yield server


def glowplug(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(GLOWPLUG), "features", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


async def test_what_is_new_is_written_and_what_there_is_is_told(server: RedisServer, tmp_path: Path) -> None:
    view, folder = tmp_path / "view.yaml", tmp_path / "offline"
    view.write_text(to_yaml(VIEW))
    store = open_store(VIEW, folder)
    with offline.connect(threads=1) as connection:
        for day in (1, 2):
            store.write(
                connection,
                USER,
                f"SELECT i AS user_id, TIMESTAMP '2013-01-0{day}' AS event_timestamp, 1.0 AS age, {day} AS spend "
                f"FROM range({day * 10}) t(i)",
                f"day-{day}",
            )
    places = ["-v", str(view), "--online", server.url]
    write = ["materialize", *places, "--offline", str(folder), "-g", "user", "--until"]

    assert glowplug("status", *places).returncode == 1
    for until, keys, kind in (
        ("2013-01-02", 10, "in full"),
        ("2013-01-03", 20, "new"),
        ("2013-01-03", 0, "new"),
    ):
        written = glowplug(*write, f"{until}T00:00:00Z")
        assert written.returncode == 0, written.stderr
        assert f"user: {keys} keys, {kind}" in written.stderr
    told = glowplug("status", *places)
    assert [line.split() for line in told.stdout.splitlines()[1:]] == [
        ["user", "2013-01-03T00:00:00Z"],
        ["pair", "never"],
    ]


def test_what_is_wrong_is_said_before_anything_is_connected_to(tmp_path: Path) -> None:
    view = tmp_path / "view.yaml"
    view.write_text(to_yaml(VIEW))
    places = ["-v", str(view), "--online", "redis://127.0.0.1:1", "--offline", str(tmp_path)]
    for arguments, expected in (
        (["--until", "soon"], "'soon' is no moment"),
        (["-g", "users"], "no group users; there are user, pair"),
        (["--since", "2013-02-01", "--until", "2013-01-01"], "is not before --until"),
    ):
        refused = glowplug("materialize", *places, *arguments)
        assert refused.returncode != 0
        assert expected in refused.stderr
    gone = glowplug("materialize", "-v", str(tmp_path / "none.yaml"), *places[2:])
    assert gone.returncode != 0
    assert "none.yaml cannot be read" in gone.stderr
