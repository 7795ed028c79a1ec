"""The online store on a real Redis: one round trip a batch, bounded waits, and a bulk write that can be killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio as redis
from unit.features.lab import small_view

from glowplug.errors import ConfigError, FeatureError, InferenceError
from glowplug.features import offline
from glowplug.features.offline_materialize import Range, materialize
from glowplug.features.online import OnlineConfig, OnlineStore, connect
from glowplug.features.online_writer import Job, RowBatch, rows_done, write
from glowplug.features.redis_server import RedisServer, find_redis, redis_command, start_redis
from glowplug.features.view import Feature

VIEW = small_view()
USER, PAIR = VIEW.groups
ENTITIES = {"user_id": ["1", "2", "1", "9"], "shop": ["a:b", "%", "a:b", ""]}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with start_redis(tmp_path / "redis") as server:
        yield server


async def batches(*sizes: int, first: int = 0) -> AsyncIterator[RowBatch]:
    for size in sizes:
        ids = np.arange(first, first + size)
        values = np.stack([ids, -ids], axis=1).astype(np.float32)
        yield RowBatch([[str(each) for each in ids]], ids.astype(np.int64), values)
        first += size


async def one_pair(user: str, shop: str, visits: float) -> AsyncIterator[RowBatch]:
    yield RowBatch([[user], [shop]], np.array([5]), np.array([[visits]], np.float32))


async def calls(client: Any) -> dict[str, int]:
    stats = await client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(entry["calls"]) for name, entry in stats.items()}


async def test_a_batch_is_one_command(server: RedisServer) -> None:
    config = OnlineConfig(server.url)
    client = connect(config)
    await write(client, VIEW, USER, Job("users", 3, 100), batches(3))
    await write(client, VIEW, PAIR, Job("pairs", 1, 100), one_pair("1", "a:b", 7))
    async with OnlineStore(config) as store:
        await store.ping()
        before = await calls(client)
        user, pair = await store.read(VIEW, ENTITIES)
        after = await calls(client)
    changed = {name: count - before.get(name, 0) for name, count in after.items()}
    assert {name: count for name, count in changed.items() if count} == {"mget": 1, "info": 1}
    assert user.found.tolist() == [True, True, True, False]
    assert user.values[:3].tolist() == [[1, -1], [2, -2], [1, -1]]
    assert user.event_ms[:3].tolist() == [1, 2, 1]
    assert pair.found.tolist() == [True, False, True, False]
    assert pair.values[[0, 2], 0].tolist() == [7, 7]
    await client.aclose()


async def test_no_rows_ask_nothing(server: RedisServer) -> None:
    async with OnlineStore(OnlineConfig(server.url)) as store:
        user, pair = await store.read(VIEW, {"user_id": [], "shop": []})
    assert user.values.shape == (0, 2)
    assert pair.values.shape == (0, 1)


async def test_the_state_says_what_was_finished(server: RedisServer) -> None:
    config = OnlineConfig(server.url)
    client = connect(config)
    async with OnlineStore(config) as store:
        assert [state.until_ms for state in await store.states(VIEW)] == [None, None]
        with pytest.raises(FeatureError, match="has 2 rows, the job users says 3"):
            await write(client, VIEW, USER, Job("users", 3, 100), batches(2))
        assert [state.until_ms for state in await store.states(VIEW)] == [None, None]
        await write(client, VIEW, USER, Job("users", 3, 100), batches(1, first=2))
        user, pair = await store.states(VIEW)
        assert (user.rows, user.until_ms, pair.until_ms) == (3, 100, None)
        # Another feature list has rows and a state of its own.
        renamed = replace(VIEW, groups=(replace(USER, features=(Feature("age"), Feature("spent"))), PAIR))
        assert [state.until_ms for state in await store.states(renamed)] == [None, None]
    await client.aclose()


async def test_an_interrupted_write_goes_on_behind_its_last_batch(server: RedisServer) -> None:
    client = connect(OnlineConfig(server.url))
    job = Job("users", 30, 100)
    seen: list[tuple[int, int]] = []

    async def cut_off() -> AsyncIterator[RowBatch]:
        async for batch in batches(10, 10):
            yield batch
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await write(client, VIEW, USER, job, cut_off())
    done = await rows_done(client, VIEW, USER, job)
    assert done == 20
    await write(client, VIEW, USER, job, batches(10, first=done), lambda *progress: seen.append(progress))
    assert seen == [(20, 30), (30, 30)]
    assert await rows_done(client, VIEW, USER, Job("other", 30, 100)) == 0
    async with OnlineStore(OnlineConfig(server.url)) as store:
        rows, _ = await store.read(VIEW, {"user_id": [str(each) for each in range(30)], "shop": [""] * 30})
    assert rows.found.all()
    await client.aclose()


async def test_materialize_writes_the_newest_rows_once(server: RedisServer, tmp_path: Path) -> None:
    store = offline.open_store(VIEW, tmp_path / "offline")
    with offline.connect(threads=1) as connection:
        stamp = "make_timestamp(second * 1000000) AS event_timestamp"
        users = (
            f"SELECT i AS user_id, {stamp}, i / 3 + second AS age, NULL AS spend "
            "FROM range(500) t(i), range(3) s(second)"
        )
        pairs = (
            f"SELECT i AS user_id, 'x:' || i AS shop, {stamp}, 1 AS visits "
            "FROM range(5) t(i), (SELECT 1 AS second)"
        )
        store.write(connection, USER, users)
        store.write(connection, PAIR, pairs)
        expected = np.concatenate([batch.values[:, 0] for batch in store.scan(USER, 1000, 1001)])
    config = OnlineConfig(server.url)
    seen: list[tuple[str, int, int]] = []
    ranges = {"user": Range(2000), "pair": Range(2000)}
    written = await materialize(store, config, ranges, lambda *step: seen.append(step), batch_rows=200)
    assert written == {"user": 500, "pair": 5}
    assert [step for step in seen if step[0] == "user"] == [("user", n, 500) for n in (0, 200, 400, 500)]
    async with OnlineStore(config) as online:
        ids = [str(each) for each in range(500)]
        user, pair = await online.read(VIEW, {"user_id": ids, "shop": [f"x:{each}" for each in ids]})
        assert user.values[:, 0].tobytes() == expected.tobytes()
        assert np.isnan(user.values[:, 1]).all()
        assert (user.event_ms == 1000).all()
        assert pair.found.sum() == 5
    client = connect(config)
    before = await calls(client)
    assert await materialize(store, config, ranges, batch_rows=200) == written
    assert (await calls(client)).get("mset") == before["mset"]
    await client.aclose()


async def test_redis_stopped_in_its_tracks_is_a_503_in_time_and_then_right_again(server: RedisServer) -> None:
    config = OnlineConfig(server.url, timeout_s=0.3)
    client = connect(config)
    await write(client, VIEW, USER, Job("users", 10, 100), batches(10))
    await client.aclose()
    async with OnlineStore(config) as store:
        await store.ping()
        os.kill(server.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        try:
            with pytest.raises(InferenceError, match=r"did not answer in 0\.3 s") as caught:
                await store.read(VIEW, {"user_id": ["1"], "shop": [""]})
            assert time.monotonic() - started < 1.0
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        assert caught.value.code == 503
        # The late answer to the first question must not be taken for that of the next.
        rows, _ = await store.read(VIEW, {"user_id": ["7", "3"], "shop": ["", ""]})
        assert rows.values[:, 0].tolist() == [7, 3]


async def test_redis_killed_is_a_503_and_a_new_one_is_found(tmp_path: Path) -> None:
    directory = tmp_path / "redis"
    async with start_redis(directory) as server:
        config = OnlineConfig(server.url)
        client = connect(config)
        await write(client, VIEW, USER, Job("users", 2, 100), batches(2))
        await client.aclose()
        store = OnlineStore(config)
        await store.ping()
        # Its own orderly end saves what it holds.
    with pytest.raises(InferenceError, match="cannot be read") as caught:
        await store.read(VIEW, {"user_id": ["1"], "shop": [""]})
    assert caught.value.code == 503
    async with start_redis(directory) as server:
        rows, _ = await store.read(VIEW, {"user_id": ["1"], "shop": [""]})
        assert rows.values.tolist() == [[1, -1]]
        server.process.kill()
        await server.process.wait()
        with pytest.raises(InferenceError):
            await store.ping()
    await store.close()


async def test_foreign_rows_are_a_503(server: RedisServer) -> None:
    client = connect(OnlineConfig(server.url))
    await write(client, VIEW, USER, Job("users", 2, 100), batches(2))
    (key,) = [key async for key in client.scan_iter("gp:f:*:1")]
    await client.set(key, b"something else")
    async with OnlineStore(OnlineConfig(server.url)) as store:
        with pytest.raises(InferenceError, match="has 14 bytes, must be 28") as caught:
            await store.read(VIEW, {"user_id": ["0", "1"], "shop": ["", ""]})
    assert caught.value.code == 503
    await client.aclose()


async def test_writing_to_a_full_or_absent_redis_is_a_feature_error(
    server: RedisServer, tmp_path: Path
) -> None:
    client = connect(OnlineConfig(server.url))
    await client.config_set("maxmemory", "1")
    with pytest.raises(FeatureError, match="cannot be written"):
        await write(client, VIEW, USER, Job("users", 2, 100), batches(2))
    await client.aclose()
    absent = connect(OnlineConfig(f"unix://{tmp_path}/none.sock"))
    with pytest.raises(FeatureError, match="cannot be written"):
        await write(absent, VIEW, USER, Job("users", 2, 100), batches(2))
    await absent.aclose()


def test_the_address_is_shown_without_its_password() -> None:
    assert OnlineConfig("redis://me:secret@store:6379/2").address == "redis://store:6379/2"
    with pytest.raises(ConfigError, match="scheme 'http'"):
        OnlineConfig("http://store")


async def test_redis_opens_no_port_and_refuses_a_second(tmp_path: Path) -> None:
    async with start_redis(tmp_path) as server:
        assert server.socket.stat().st_mode & 0o777 == 0o700
        client: Any = redis.Redis.from_url(server.url)
        assert (await client.config_get("port"))["port"] == "0"
        await client.aclose()
        with pytest.raises(FeatureError, match="another Redis is running"):
            async with start_redis(tmp_path):
                pass
        assert server.process.returncode is None
    assert server.process.returncode == 0


async def test_a_directory_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    async with start_redis(deep) as server:
        assert len(str(server.socket)) < 100
        async with OnlineStore(OnlineConfig(server.url)) as store:
            await store.ping()
    assert not server.socket.parent.exists()


async def test_a_redis_that_dies_shows_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"REDIS0009 and then nothing of the kind")
    with pytest.raises(FeatureError, match=r"(?s)Redis ended with.*(RDB|rdb)"):
        async with start_redis(tmp_path):
            pass


def test_the_binary_is_the_real_one() -> None:
    command = redis_command(find_redis(), Path("/d"), Path("/d/s"))
    assert os.access(command[0], os.X_OK)
    assert command[command.index("--port") + 1] == "0"
