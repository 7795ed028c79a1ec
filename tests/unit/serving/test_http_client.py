"""The client of the hop to the predictor, against servers that are right, slow, wrong or gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from glowplug.serving.http_client import HttpClient

DEADLINE_S = 10
OK = b"HTTP/1.1 200 OK\r\nX-Name: v\r\ncontent-length: 2\r\n\r\nab"
CHUNKED = b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"


class Server:
    """Sends `answers` one after the other, a request each; None closes the connection instead."""

    def __init__(self, *answers: bytes | None, size: int = 2**16) -> None:
        self._answers = list(answers)
        self._size = size
        self.connections = 0
        self.open = 0
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**16):
                self.requests.append(data)
                answer = self._answers.pop(0)
                if answer is None:
                    break
                for start in range(0, len(answer), self._size):
                    writer.write(answer[start : start + self._size])
                    await asyncio.sleep(0)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1
        self.gone.set()


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[HttpClient]:
    async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
        client = HttpClient("127.0.0.1", listening.sockets[0].getsockname()[1])
        yield client
        await client.aclose()
        await until(lambda: server.open == 0)


async def until(condition: Callable[[], bool]) -> None:
    async def asked() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    await asyncio.wait_for(asked(), DEADLINE_S)


@pytest.mark.parametrize("size", [1, 2**16])
async def test_answers_whole_chunked_and_after_a_100(size: int) -> None:
    server = Server(OK, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + OK, size=size)
    async with running(server) as client:
        first = await client.request(
            "POST", "/p", {"a": "1", "evil": "x\r\ny: 1"}, b"body", timeout_s=DEADLINE_S
        )
        second = await client.request("GET", "/p", {})
        third = await client.request("GET", "/p", {})
    assert (first.status, first.headers, first.body) == (200, {"x-name": "v", "content-length": "2"}, b"ab")
    assert (second.status, second.body, third.status, third.body) == (201, b"abc", 200, b"ab")
    assert server.connections == 1
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /p HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\na: 1" in head
    assert b"evil" not in head
    assert body == b"body"


async def test_a_kept_connection_that_was_closed_is_replaced_once() -> None:
    server = Server(OK, None, OK, None)
    async with running(server) as client:
        for _ in range(2):
            assert (await client.request("GET", "/", {})).body == b"ab"
        assert server.connections == 2
        await client.aclose()
        with pytest.raises(ConnectionError):
            await client.request("GET", "/", {})


async def test_a_connection_is_not_kept_where_the_server_says_so() -> None:
    closing = OK.replace(b"X-Name: v", b"connection: close")
    async with running(server := Server(closing, OK)) as client:
        for _ in range(2):
            assert (await client.request("GET", "/", {})).body == b"ab"
    assert server.connections == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"])
async def test_what_does_not_come_in_time_is_given_up_with_its_connection(answer: bytes) -> None:
    async with running(server := Server(answer, OK)) as client:
        with pytest.raises(asyncio.TimeoutError):
            await client.request("GET", "/", {}, timeout_s=0.05)
        await asyncio.wait_for(server.gone.wait(), DEADLINE_S)
        assert (await client.request("GET", "/", {})).body == b"ab"
    assert server.connections == 2


async def test_who_leaves_takes_the_connection_along() -> None:
    async with running(server := Server(b"", OK)) as client:
        call = asyncio.ensure_future(client.request("GET", "/", {}))
        await until(lambda: bool(server.requests))
        call.cancel()
        await asyncio.wait_for(server.gone.wait(), DEADLINE_S)
        assert call.cancelled()


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", b"\x00" * 50])
async def test_another_protocol_is_a_connection_error(answer: bytes) -> None:
    async with running(Server(answer)) as client:
        with pytest.raises(ConnectionError, match="does not answer in HTTP"):
            await client.request("GET", "/", {}, timeout_s=DEADLINE_S)


async def test_a_second_answer_to_one_question_is_nobodys() -> None:
    async with running(server := Server(OK + OK.replace(b"ab", b"no"), OK)) as client:
        for _ in range(2):
            assert (await client.request("GET", "/", {})).body == b"ab"
    assert server.connections == 2
