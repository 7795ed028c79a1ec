"""The look-up's own Redis client, against the real server and against one that misbehaves."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug.features.online import OnlineConfig, connect
from glowplug.features.redis_server import RedisServer, start_redis
from glowplug.features.resp import REFUSED_PAUSE_S, RedisAddress, RespClient, RespError

TIMEOUT_S = 5.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with start_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[RespClient]:
    client = RespClient(RedisAddress.parse(server.url), timeout_s=TIMEOUT_S)
    yield client
    await client.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", RedisAddress()),
        ("redis://store:7000/3", RedisAddress("store", 7000, database=3)),
        ("redis://:p%40ss@store", RedisAddress("store", password="p@ss")),
        (
            "redis://me:secret@[::1]:1/?db=2",
            RedisAddress("::1", 1, username="me", password="secret", database=2),
        ),
        ("unix:///run/redis.sock?db=4", RedisAddress(path="/run/redis.sock", database=4)),
        ("unix://:secret@/run/my%20redis.sock", RedisAddress(path="/run/my redis.sock", password="secret")),
    ],
)
def test_urls_are_read_as_redis_py_reads_them(url: str, expected: RedisAddress) -> None:
    found = RedisAddress.parse(url)
    assert found == expected
    options = connect(OnlineConfig(url)).connection_pool.connection_kwargs
    assert options.get("password", "") == found.password
    assert options.get("db", 0) == found.database
    assert options.get("path", "") == found.path


def test_tls_is_checked_unless_it_is_said() -> None:
    strict, lax = (RedisAddress.parse("rediss://x" + end).tls for end in ("", "?ssl_cert_reqs=none"))
    assert strict is not None
    assert lax is not None
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://x", "scheme 'http', must be one of redis://"),
        ("redis://x?socket_timeout=1", "option 'socket_timeout', must be one of db"),
        ("redis://x/one", "not a whole number"),
        ("redis://[", "cannot be read"),
        ("unix://", "has no path"),
        ("redis://x:port", "not a whole number"),
        ("rediss://x?ssl_ca_certs=/none", "ssl_ca_certs cannot be read"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RedisAddress.parse(url)


async def test_many_at_once_get_their_own_answers_over_one_connection(client: RespClient) -> None:
    await client.call("PING")
    before = await client.call("CLIENT", "LIST")
    chance = random.Random(1)

    async def echo(number: int) -> None:
        value = b"%d " % number * chance.choice((1, 10, 20000))
        assert await client.call("ECHO", value) == value

    calls = [asyncio.ensure_future(echo(number)) for number in range(200)]
    await asyncio.sleep(0)
    # Who leaves does not shift the others' answers.
    for call in calls[::7]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
    assert sum(result is None for result in results) >= 171
    after = await client.call("CLIENT", "LIST")
    assert len(before.splitlines()) == len(after.splitlines()) == 1


async def test_an_error_is_an_error_of_that_command_alone(client: RespClient) -> None:
    good, bad = await asyncio.gather(
        client.call("ECHO", "x"), client.call("NONSENSE"), return_exceptions=True
    )
    assert good == b"x"
    assert isinstance(bad, RespError)
    assert "unknown command" in str(bad)


async def test_password_and_database(server: RedisServer, client: RespClient) -> None:
    await client.call("CONFIG", "SET", "requirepass", "secret")
    base = f"unix://:secret@{server.socket}"
    second = RespClient(RedisAddress.parse(base + "?db=2"), timeout_s=TIMEOUT_S)
    await second.call("SET", "k", "v")
    first = RespClient(RedisAddress.parse(base), timeout_s=TIMEOUT_S)
    assert (await first.call("GET", "k"), await second.call("GET", "k")) == (None, b"v")
    wrong = RespClient(RedisAddress.parse(f"unix://:wrong@{server.socket}"), timeout_s=TIMEOUT_S)
    with pytest.raises(RespError, match="WRONGPASS") as caught:
        await wrong.call("PING")
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
    for each in (first, second, wrong):
        await each.close()


async def test_a_connection_that_redis_closed_is_replaced_unseen(client: RespClient) -> None:
    assert await client.call("PING") == b"PONG"
    assert await client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
    assert await asyncio.gather(*(client.call("ECHO", str(n)) for n in range(5))) == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]


class Wrong:
    """A server that answers everything with the same bytes, or not at all."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while await reader.read(1000):
            writer.write(self._answer)
        writer.close()


@pytest.mark.parametrize(
    "answer", [b"", b"?\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-5\r\n", b"*1000000\r\n"]
)
async def test_a_server_that_is_none_is_an_error_in_time(answer: bytes) -> None:
    wrong = Wrong(answer)
    async with await asyncio.start_server(wrong, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        client = RespClient(RedisAddress("127.0.0.1", port), timeout_s=0.2)
        for _ in range(2):
            results = await asyncio.wait_for(
                asyncio.gather(*(client.call("PING") for _ in range(3)), return_exceptions=True), TIMEOUT_S
            )
            assert all(isinstance(result, OSError | asyncio.TimeoutError) for result in results), results
        # Each time anew: a connection that did not answer is not asked again.
        assert wrong.connections >= 2
        await client.close()


@given(st.text())
def test_any_url_is_an_address_or_a_config_error(text: str) -> None:
    for url in (text, "redis://" + text, "unix://" + text):
        try:
            RedisAddress.parse(url)
        except ConfigError:
            continue


async def test_a_refused_connection_is_tried_until_the_time_is_up() -> None:
    is_over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"PING\r\n")
        writer.write(b"+PONG\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        is_over.set()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with socket.socket() as reserved:
        # Bound, so that nobody else gets the port, and refusing until it listens.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", port))
        address = RedisAddress.parse(f"redis://127.0.0.1:{port}")
        hasty, patient = RespClient(address, timeout_s=0.2), RespClient(address, timeout_s=TIMEOUT_S)
        with pytest.raises(ConnectionRefusedError):
            await hasty.call("PING")
        asking = asyncio.create_task(patient.call("PING"))
        done, _ = await asyncio.wait({asking}, timeout=3 * REFUSED_PAUSE_S)
        assert not done
        async with await asyncio.start_server(answer, sock=reserved):
            assert await asking == b"PONG"
            await patient.close()
            await hasty.close()
            await asyncio.wait_for(is_over.wait(), TIMEOUT_S)
