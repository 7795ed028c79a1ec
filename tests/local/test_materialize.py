"""Offline → Redis from both stores: in full and by watermark, killed and gone on with, with a store that goes away."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import pytest_asyncio
from local.postgres_lab import Postgres, postgres_server
from unit.features.lab import ROOT, small_view, to_yaml

from glowplug.errors import FeatureError, StorageError
from glowplug.features import offline
from glowplug.features.keys import state_key
from glowplug.features.offline import OfflineStore, open_store
from glowplug.features.offline_materialize import Plan, Range, materialize
from glowplug.features.online import OnlineConfig, OnlineStore, connect
from glowplug.features.redis_server import RedisServer, start_redis
from glowplug.features.view import Feature

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEW = small_view()
USER, PAIR = VIEW.groups
KEYS = 3000
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with offline.connect(threads=1) as connection:
        yield connection


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisServer]:
    async with start_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@dataclass
class Lab:
    """A store of one kind, and an empty Redis."""

    store: OfflineStore
    url: str
    connection: duckdb.DuckDBPyConnection
    config: OnlineConfig

    def write(self, part: str, day: int, keys: range, factor: float = 1.0) -> None:
        """A row a key on that day, known from the key's own millisecond on."""
        self.store.write(
            self.connection,
            USER,
            f"SELECT i AS user_id, make_timestamp({day * DAY_MS * 1000} + i * 1000) AS event_timestamp, "
            f"i / 3 * {factor} + {day} AS age, {day} AS spend FROM range({keys.start}, {keys.stop}) t(i)",
            part,
        )

    async def run(self, day: int, *, incremental: bool = True) -> tuple[int, Plan]:
        plans: list[Plan] = []
        written = await materialize(
            self.store,
            self.config,
            {"user": Range(day * DAY_MS)},
            incremental=incremental,
            planned=lambda _, plan: plans.append(plan),
        )
        assert len(plans) == 1
        return written["user"], plans[0]

    async def online(self) -> bytes:
        """All that Redis says of all keys."""
        ids = [str(each) for each in range(KEYS)]
        async with OnlineStore(replace(self.config, timeout_s=30)) as online:
            rows, _ = await online.read(VIEW, {"user_id": ids, "shop": [""] * KEYS})
        known = np.where(rows.found[:, None], rows.values, np.float32(-1)).tobytes()
        return known + np.where(rows.found, rows.event_ms, -1).tobytes() + rows.found.tobytes()

    async def in_full(self, day: int) -> bytes:
        """What `online` would be had everything been written anew, in an empty Redis."""
        await self.empty()
        await materialize(self.store, self.config, {"user": Range(day * DAY_MS)})
        return await self.online()

    async def empty(self) -> None:
        client = connect(self.config)
        await client.flushall()
        await client.aclose()

    async def state(self) -> dict[bytes, bytes]:
        client = connect(self.config)
        try:
            found: dict[bytes, bytes] = await client.hgetall(state_key(VIEW, USER))
            return found
        finally:
            await client.aclose()


@pytest_asyncio.fixture(params=("parquet", "postgres"), loop_scope="module")
async def lab(
    request: pytest.FixtureRequest, tmp_path: Path, connection: duckdb.DuckDBPyConnection, server: RedisServer
) -> Lab:
    url = str(tmp_path / "offline")
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").emptied()
    lab = Lab(open_store(VIEW, url), url, connection, OnlineConfig(server.url))
    await lab.empty()
    return lab


async def test_increments_add_up_to_what_a_job_in_full_writes(lab: Lab) -> None:
    lab.write("day-0", 0, range(KEYS))
    assert await lab.run(1) == (KEYS, Plan(Range(DAY_MS), "nothing was materialized yet"))
    lab.write("day-1", 1, range(100))
    lab.write("day-2", 2, range(50, 120))
    written, plan = await lab.run(2)
    assert (written, plan.is_full, plan.rows) == (100, False, Range(2 * DAY_MS, DAY_MS))
    # What was not due yet then.
    assert (await lab.run(3))[0] == 70
    assert await lab.run(4) == (0, Plan(Range(4 * DAY_MS, 3 * DAY_MS), "from the watermark on", False, True))
    found = await lab.online()
    assert found == await lab.in_full(4)


async def test_a_change_below_the_watermark_is_written_too(lab: Lab) -> None:
    lab.write("day-0", 0, range(KEYS))
    lab.write("day-2", 2, range(10))
    await lab.run(3)
    lab.write("day-1", 1, range(5, 40))
    written, plan = await lab.run(4)
    assert (written, plan.reason) == (KEYS, "part day-1 is new and has rows from before the watermark")
    # The same rows again are no change.
    lab.write("day-1", 1, range(5, 40))
    assert (await lab.run(4))[0] == 0
    lab.write("day-0", 0, range(KEYS), factor=2.0)
    assert (await lab.run(4))[1].reason == "part day-0 was replaced"
    found = await lab.online()
    assert found == await lab.in_full(4)


async def test_another_feature_list_begins_anew(lab: Lab) -> None:
    lab.write("day-0", 0, range(10))
    await lab.run(1)
    renamed = replace(USER, features=(Feature("age"), Feature("spent")))
    other = replace(lab, store=open_store(replace(VIEW, groups=(renamed, PAIR)), lab.url))
    with pytest.raises(FeatureError, match="column 3 is 'spend:float32', must be 'spent:float32'"):
        await other.run(2)
    lab.write("day-1", 1, range(3))
    assert (await lab.run(2))[0] == 3


async def test_an_empty_table_is_materialized_too(lab: Lab) -> None:
    lab.write("nothing", 0, range(0))
    assert (await lab.run(1))[0] == 0
    assert (await lab.state())[b"until_ms"] == str(DAY_MS).encode()
    lab.write("day-1", 1, range(3))
    assert await lab.run(2) == (3, Plan(Range(2 * DAY_MS, DAY_MS), "from the watermark on", is_full=False))


async def test_killed_between_its_batches_it_goes_on_and_no_row_is_missing(lab: Lab, tmp_path: Path) -> None:
    # One of each on either store; they share all but the store's own reading.
    mode = "incremental" if lab.url.startswith("postgresql") else "full"
    lab.write("day-0", 0, range(KEYS))
    until_ms = b"none"
    if mode == "incremental":
        await lab.run(1)
        until_ms = str(DAY_MS).encode()
    lab.write("day-1", 1, range(KEYS))
    view = tmp_path / "view.yaml"
    view.write_text(to_yaml(VIEW))
    reached = 0
    for kill_at in (1300, None):
        process = subprocess.Popen(  # noqa: ASYNC220  # its lines are read one by one; nothing else goes on here
            [sys.executable, "-m", "local.offline_materializer", str(view), lab.url, lab.config.url, "user",
             str(2 * DAY_MS), mode],
            stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert process.stdout is not None
        with process.stdout:
            first = int(process.stdout.readline().split()[0])
            # It goes on behind what Redis had, no more than a batch of which the process may not have told.
            assert reached <= first <= reached + 100
            for line in process.stdout:
                reached = int(line.split()[0])
                if kill_at is not None and reached >= kill_at:
                    process.send_signal(signal.SIGKILL)
                    break
        process.wait(60)
        state = await lab.state()
        if kill_at is not None:
            assert process.returncode == -signal.SIGKILL
            # The watermark is where it was, or nowhere: never ahead of the rows.
            assert state.get(b"until_ms", b"none") == until_ms
            assert (b"watermark" in state) == (mode == "incremental")
            reached = int(state[b"rows"])
    assert process.returncode == 0
    assert reached == KEYS
    assert state[b"until_ms"] == str(2 * DAY_MS).encode()
    found = await lab.online()
    assert found == await lab.in_full(2)


async def test_a_job_in_full_that_was_cut_off_leaves_no_watermark(lab: Lab) -> None:
    lab.write("day-0", 0, range(KEYS))
    lab.write("day-1", 1, range(KEYS))
    await lab.run(2)

    def stop_half_way(_: str, done: int, total: int) -> None:
        if done > KEYS / 2:
            raise KeyboardInterrupt

    # Back to the first day: from here on Redis has rows of both.
    with pytest.raises(KeyboardInterrupt):
        await materialize(lab.store, lab.config, {"user": Range(DAY_MS)}, stop_half_way, 1000)
    lab.write("day-2", 2, range(10))
    written, plan = await lab.run(3)
    assert (written, plan.is_full) == (KEYS, True)
    found = await lab.online()
    assert found == await lab.in_full(3)


async def test_a_table_written_while_it_is_read_is_read_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.write("day-0", 0, range(10))
    kind: Any = type(lab.store)
    real = kind.latest
    times: list[int] = []

    def latest(self: Any, *args: Any) -> Any:
        opened = real(self, *args)
        times.append(1)
        if len(times) == 1:
            lab.write("day-1", 1, range(20))
        return opened

    monkeypatch.setattr(kind, "latest", latest)
    assert (await lab.run(2))[0] == 20
    assert len(times) == 2
    found = await lab.online()
    assert found == await lab.in_full(2)


async def test_postgres_gone_in_mid_run_is_one_error_and_then_it_goes_on(
    postgres: Postgres, connection: duckdb.DuckDBPyConnection, server: RedisServer
) -> None:
    url = postgres.emptied()
    lab = Lab(open_store(VIEW, url), url, connection, OnlineConfig(server.url))
    await lab.empty()
    lab.write("day-0", 0, range(KEYS))

    def kill_half_way(_: str, done: int, total: int) -> None:
        if done >= KEYS / 2:
            postgres.kill()

    ranges = {"user": Range(DAY_MS)}
    with pytest.raises(
        StorageError, match=r"table users of group user in postgresql://tester@127\.0\.0\.1"
    ) as caught:
        await materialize(lab.store, lab.config, ranges, kill_half_way, 500)
    assert "is PostgreSQL running" in caught.value.hint
    assert "watermark" not in {key.decode() for key in await lab.state()}
    postgres.start()
    seen: list[int] = []
    assert await materialize(lab.store, lab.config, ranges, lambda _, done, __: seen.append(done), 500) == {
        "user": KEYS
    }
    assert seen == [1500, 2000, 2500, 3000]
    found = await lab.online()
    assert found == await lab.in_full(1)
