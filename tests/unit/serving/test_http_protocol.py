"""HTTP/1.1 on real loopback connections: order, limits, malformed bytes, and the way a connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glowplug.serving.http import HttpRequest, HttpResponse
from glowplug.serving.http_protocol import MAX_HEADER_BYTES, HttpService
from glowplug.serving.listener import HttpListener, bind

LIMIT = 1000
DEADLINE_S = 10


class Echo:
    """Answers with what it got; `/slow` waits until it is let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.is_waiting = asyncio.Event()

    def begin(self, request: HttpRequest, done: Any) -> None:
        """No request is direct."""

    async def answer(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/slow":
            self.is_waiting.set()
            await self.gate.wait()
        found = {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "size": len(request.body),
        }
        return HttpResponse(200, orjson.dumps(found), {"content-type": "application/json"})


class Site:
    def __init__(self, keep_alive_s: float = 30) -> None:
        self.echo = Echo()
        self.service = HttpService(self.echo, max_body_bytes=LIMIT, keep_alive_s=keep_alive_s)  # type: ignore[arg-type]
        socket = bind("127.0.0.1", 0)
        self.port = socket.getsockname()[1]
        self.listener = HttpListener(self.service, socket)

    async def send(self, data: bytes, *, ends: bool = True) -> bytes:
        """Everything that comes back until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            if ends and writer.can_write_eof():
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), DEADLINE_S)
        finally:
            writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    await site.listener.start()
    yield site
    site.echo.gate.set()
    site.listener.close()
    await site.listener.abort()
    await asyncio.wait_for(site.listener.drained(), DEADLINE_S)


def get(path: str, *lines: str) -> bytes:
    return ("\r\n".join([f"GET {path} HTTP/1.1", "host: x", *lines]) + "\r\n\r\n").encode()


def bodies(answer: bytes) -> list[Any]:
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append(orjson.loads(rest[:size]))
        answer = rest[size:]
    return found


async def test_requests_sent_ahead_are_answered_in_order(site: Site) -> None:
    data = b"".join(get(f"/{i}?q={i}") for i in range(40)) + get("/last", "connection: close")
    answers = bodies(await site.send(data, ends=False))
    assert [item["path"] for item in answers] == [*(f"/{i}" for i in range(40)), "/last"]
    assert answers[3]["query"] == "q=3"


async def test_byte_by_byte_and_chunked(site: Site) -> None:
    head = b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    data = head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    for index in range(len(data)):
        writer.write(data[index : index + 1])
        await asyncio.sleep(0)
    answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    assert bodies(answer)[0]["size"] == 5


async def test_a_body_past_the_limit_is_413_declared_or_not(site: Site) -> None:
    declared = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n" + b"x" * 1001
    chunked = (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n"
        + b"x" * 2000
        + b"\r\n0\r\n\r\n"
    )
    expecting = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9999999999999\r\n\r\n"
    for data in (declared, chunked, expecting):
        answer = await site.send(data, ends=False)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
        assert b"--max_body_bytes" in answer


async def test_100_continue(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(
        b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 3\r\n\r\n"
    )
    assert (
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S) == b"HTTP/1.1 100 Continue\r\n\r\n"
    )
    writer.write(b"abc")
    assert bodies(await asyncio.wait_for(reader.read(), DEADLINE_S))[0]["size"] == 3
    writer.close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbig: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n", b"431"),
        (b"GET /" + b"x" * MAX_HEADER_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"431"),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_closed(
    site: Site, data: bytes, code: bytes
) -> None:
    assert (await site.send(data, ends=False)).startswith(b"HTTP/1.1 " + code)


async def test_head_has_the_length_and_no_body(site: Site) -> None:
    answer = await site.send(b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in answer


async def test_an_upgrade_is_answered_as_plain_http(site: Site) -> None:
    answer = await site.send(
        get("/u", "connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: x")
    )
    assert bodies(answer)[0]["path"] == "/u"


async def test_http_1_0_closes(site: Site) -> None:
    assert bodies(await site.send(b"GET /old HTTP/1.0\r\n\r\n", ends=False))[0]["path"] == "/old"


async def test_a_client_that_ends_its_side_gets_what_is_at_hand_and_waits_for_nothing(site: Site) -> None:
    assert bodies(await site.send(get("/quick")))[0]["path"] == "/quick"
    task = asyncio.ensure_future(site.send(get("/slow")))
    await asyncio.wait_for(site.echo.is_waiting.wait(), DEADLINE_S)
    (answering,) = site.service.tasks
    assert await task == b""
    await asyncio.wait({answering}, timeout=DEADLINE_S)
    assert answering.cancelled()


async def test_idle_connections_are_closed_in_time() -> None:
    site = Site(keep_alive_s=0.05)
    await site.listener.start()
    assert await site.send(b"", ends=False) == b""
    assert len(bodies(await site.send(get("/once"), ends=False))) == 1
    site.listener.close()
    await asyncio.wait_for(site.listener.drained(), DEADLINE_S)


async def test_a_drain_finishes_what_is_in_flight_and_closes_what_is_idle(site: Site) -> None:
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", site.port)
    idle_writer.write(get("/warm"))
    await asyncio.wait_for(idle_reader.readuntil(b"}"), DEADLINE_S)
    busy = asyncio.ensure_future(site.send(get("/slow"), ends=False))
    await asyncio.wait_for(site.echo.is_waiting.wait(), DEADLINE_S)
    site.listener.begin_drain()
    assert b"connection: close" in await site.send(get("/late"), ends=False)
    site.listener.close()
    assert await asyncio.wait_for(idle_reader.read(), DEADLINE_S) == b""
    idle_writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", site.port)
    assert not busy.done()
    site.echo.gate.set()
    assert bodies(await busy)[0]["path"] == "/slow"
    await asyncio.wait_for(site.listener.drained(), DEADLINE_S)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.binary(max_size=40)
        | st.sampled_from([get("/a"), b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nab"]),
        max_size=4,
    )
)
async def test_any_bytes_leave_the_server_standing(site: Site, parts: list[bytes]) -> None:
    answer = await site.send(b"".join(parts))
    assert b"HTTP/1.1 5" not in answer
    assert bodies(await site.send(get("/still", "connection: close")))[0]["path"] == "/still"


def test_a_taken_port_is_said() -> None:
    from glowplug.errors import ConfigError

    first = bind("127.0.0.1", 0)
    first.listen()
    with pytest.raises(
        ConfigError, match=r"HTTP port \d+ on 127.0.0.1 cannot be opened: Address already in use"
    ):
        bind("127.0.0.1", first.getsockname()[1])
    first.close()
