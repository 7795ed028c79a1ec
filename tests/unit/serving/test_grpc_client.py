"""Our gRPC client against grpc's own server, and against servers that go away, are slow, or are none."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from glowplug.serving import grpc_client
from glowplug.serving.grpc_client import CallRefused, DeadlineExceeded, GrpcClient, Unreachable
from glowplug.wire.http2 import GrpcService, Limits, Stream, status

DEADLINE_S = 20


def client_of(port: int, **more: Any) -> GrpcClient:
    return GrpcClient("127.0.0.1", port, max_message_bytes=10**6, **more)


class Echo:
    """A `Handler` that answers when it is let go; `begun` counts the calls."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.headers: list[Mapping[str, str]] = []
        self.resets = 0
        self.is_holding = False
        self.changed = asyncio.Event()

    def request(self, stream: Stream, headers: Mapping[str, str]) -> None:
        self.headers.append(headers)
        stream.state = b""

    def message(self, stream: Stream, data: bytes) -> None:
        stream.state += data

    def ended(self, stream: Stream) -> None:
        self.streams.append(stream)
        self.changed.set()
        if not self.is_holding:
            stream.reply(stream.state)

    def reset(self, stream: Stream) -> None:
        self.resets += 1
        self.changed.set()

    def let_go(self) -> None:
        self.is_holding = False
        for stream in self.streams:
            stream.reply(stream.state)

    async def until(self, condition: Any) -> None:
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), DEADLINE_S)


class Site:
    """An Echo on a port of its own, which can be closed and opened again."""

    def __init__(self, **limits: Any) -> None:
        self.echo = Echo()
        self.service = GrpcService(self.echo, Limits(**limits))
        self.server: Any = None
        self.port = 0

    async def open(self) -> Site:
        loop = asyncio.get_running_loop()
        self.service = GrpcService(self.echo, self.service.limits)
        self.server = await loop.create_server(self.service.protocol, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        self.server.close()
        self.service.abort()
        await self.service.drained()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = await Site().open()
    yield made
    await made.close()


async def call(client: GrpcClient, message: bytes = b"hi", timeout_s: float = DEADLINE_S) -> bytes:
    return await client.call("/x.Y/Echo", message, {"x-request-id": "7"}.items(), timeout_s)


async def test_a_real_server() -> None:
    async def echo(data: bytes, context: Any) -> bytes:
        return data + str(dict(context.invocation_metadata())["x-request-id"]).encode()

    async def refuse(data: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("why", "because"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "nö %")
        return b""

    async def sleep(data: bytes, context: Any) -> bytes:
        assert context.time_remaining() < 1
        await asyncio.sleep(60)
        return b""

    server = grpc.aio.server()
    methods = {
        name: grpc.unary_unary_rpc_method_handler(work)
        for name, work in {"Echo": echo, "Refuse": refuse, "Sleep": sleep}.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x.Y", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = client_of(port)
    for size in (0, 5, 100_000, 900_000):
        assert await call(client, b"x" * size) == b"x" * size + b"7"
    assert await asyncio.gather(*[call(client, b"%d" % n) for n in range(300)]) == [
        b"%d7" % n for n in range(300)
    ]
    with pytest.raises(CallRefused) as caught:
        await client.call("/x.Y/Refuse", b"", (), DEADLINE_S)
    assert (caught.value.code, caught.value.text) == (status.NOT_FOUND, "nö %")
    assert caught.value.trailers["why"] == "because"
    with pytest.raises(CallRefused, match="allowed") as caught:
        await call(client, b"x" * 1_000_001)
    assert caught.value.code == status.RESOURCE_EXHAUSTED
    with pytest.raises(CallRefused) as caught:
        await client.call("/x.Y/Nope", b"", (), DEADLINE_S)
    assert caught.value.code == status.UNIMPLEMENTED
    with pytest.raises((DeadlineExceeded, CallRefused)):
        await client.call("/x.Y/Sleep", b"", (), 0.2)
    await server.stop(None)
    with pytest.raises(Unreachable):
        await call(client)
    await client.aclose()


async def test_a_server_that_drains_loses_no_call(site: Site) -> None:
    site.echo.is_holding = True
    client = client_of(site.port)
    first = asyncio.ensure_future(call(client, b"1"))
    await site.echo.until(lambda: len(site.echo.streams) == 1)
    site.service.begin_drain()
    # Sent before the client has been told.
    second = asyncio.ensure_future(call(client, b"2"))
    await site.echo.until(lambda: len(site.echo.streams) == 2)
    drained = asyncio.ensure_future(site.service.drained())
    assert not drained.done()
    site.echo.let_go()
    assert await asyncio.gather(first, second) == [b"1", b"2"]
    await asyncio.wait_for(drained, DEADLINE_S)
    # The next goes to a new connection.
    await site.close()
    await site.open()
    assert await call(client, b"3") == b"3"
    await client.aclose()


async def test_calls_under_a_changing_server_all_succeed(site: Site) -> None:
    """Connections drain and new ones are opened, again and again, while calls are made."""
    client = client_of(site.port)
    is_over = False

    async def calls(name: int) -> int:
        count = 0
        while not is_over:
            message = b"%d-%d" % (name, count)
            assert await call(client, message) == message
            count += 1
        return count

    work = asyncio.gather(*[calls(name) for name in range(8)])
    for _ in range(20):
        seen = len(site.echo.streams)
        await site.echo.until(lambda seen=seen: len(site.echo.streams) > seen + 20)
        site.service.begin_drain()
        await asyncio.wait_for(site.service.drained(), DEADLINE_S)
        site.service.is_draining = False
    is_over = True
    assert sum(await asyncio.wait_for(work, DEADLINE_S)) > 20 * 20
    await client.aclose()


async def test_more_calls_than_the_server_allows_wait_their_turn() -> None:
    site = await Site(max_streams=3).open()
    site.echo.is_holding = True
    client = client_of(site.port)
    work = asyncio.gather(*[call(client, b"%d" % n) for n in range(20)])
    await site.echo.until(lambda: len(site.echo.streams) == 3)
    site.echo.let_go()
    assert await asyncio.wait_for(work, DEADLINE_S) == [b"%d" % n for n in range(20)]
    await client.aclose()
    await site.close()


async def test_a_lost_connection_fails_its_calls_and_the_next_has_a_new_one(site: Site) -> None:
    site.echo.is_holding = True
    client = client_of(site.port)
    waiting = asyncio.ensure_future(call(client))
    await site.echo.until(lambda: site.echo.streams)
    site.service.abort()
    with pytest.raises(Unreachable):
        await asyncio.wait_for(waiting, DEADLINE_S)
    site.echo.is_holding = False
    assert await call(client) == b"hi"
    await client.aclose()


async def test_a_server_that_is_down_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    site = await Site().open()
    await site.close()
    client = client_of(site.port)
    with pytest.raises(Unreachable, match=r"(?i)connect"):
        await call(client)
    await site.open()
    # It is not asked for each call: this one fails without a connection.
    with pytest.raises(Unreachable):
        await call(client)
    assert not site.service.connections
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(Unreachable):
            assert await call(client) == b"hi"
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("it was not asked again")
    await client.aclose()
    await site.close()


async def test_a_call_that_nobody_waits_for_is_reset(site: Site) -> None:
    site.echo.is_holding = True
    client = client_of(site.port)
    waiting = asyncio.ensure_future(call(client))
    await site.echo.until(lambda: site.echo.streams)
    waiting.cancel()
    await site.echo.until(lambda: site.echo.resets == 1)
    with pytest.raises(DeadlineExceeded):
        await call(client, timeout_s=0.05)
    await site.echo.until(lambda: site.echo.resets == 2)
    assert float(site.echo.headers[-1]["grpc-timeout"][:-1]) > 0
    await client.aclose()


async def test_a_dead_server_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes connections and never says a word; calls go elsewhere once it does not answer a ping."""
    monkeypatch.setattr(grpc_client, "PONG_TIMEOUT_S", 0.05)
    gone = asyncio.Event()

    class Mute(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            gone.set()

    server = await asyncio.get_running_loop().create_server(Mute, "127.0.0.1", 0)
    client = client_of(server.sockets[0].getsockname()[1])
    waiting = asyncio.ensure_future(call(client))
    with pytest.raises(DeadlineExceeded):
        await call(client, timeout_s=0.05)
    with pytest.raises(Unreachable, match="does not answer"):
        await asyncio.wait_for(waiting, DEADLINE_S)
    await asyncio.wait_for(gone.wait(), DEADLINE_S)
    await client.aclose()
    server.close()


async def test_a_server_that_is_busy_is_not_taken_for_dead(
    site: Site,
) -> None:
    client = client_of(site.port)
    assert await call(client) == b"hi"
    site.echo.is_holding = True
    waiting = asyncio.ensure_future(call(client))
    await site.echo.until(lambda: len(site.echo.streams) == 2)
    with pytest.raises(DeadlineExceeded):
        await call(client, timeout_s=0.05)
    # Its answer to the ping ends the doubt.
    assert client._current is not None
    assert client._current._doubt is not None
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if client._current._doubt is None:
            break
        await asyncio.sleep(0.001)
    assert client._current._doubt is None
    assert len(site.service.connections) == 1
    site.echo.let_go()
    assert await waiting == b"hi"
    await client.aclose()


async def test_a_server_of_another_protocol() -> None:
    class Http1(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await asyncio.get_running_loop().create_server(Http1, "127.0.0.1", 0)
    client = client_of(server.sockets[0].getsockname()[1])
    with pytest.raises(Unreachable, match="broke the protocol"):
        await call(client)
    await client.aclose()
    server.close()


async def test_names_that_are_none() -> None:
    for host in ("a" * 70 + ".example", "no-such-host.invalid"):
        client = GrpcClient(host, 1, max_message_bytes=10)
        with pytest.raises(Unreachable):
            await call(client)
        await client.aclose()


async def test_headers_that_would_end_the_block_are_left_out(site: Site) -> None:
    client = client_of(site.port)
    await client.call("/x", b"", [("x-bad", "a\r\nb"), ("x-good", "a b")], DEADLINE_S)
    assert "x-bad" not in site.echo.headers[0]
    assert site.echo.headers[0]["x-good"] == "a b"
    await client.aclose()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert),
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return key, cert


async def test_tls(certificate: tuple[Path, Path]) -> None:
    key, cert = certificate

    async def echo(data: bytes, context: Any) -> bytes:
        return data

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x.Y", {"Echo": method}),))
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    tls = ssl.create_default_context(cafile=str(cert))
    tls.set_alpn_protocols(["h2"])
    client = client_of(port, tls=tls)
    assert await call(client, b"x" * 50_000) == b"x" * 50_000
    await client.aclose()
    distrustful = ssl.create_default_context()
    distrustful.set_alpn_protocols(["h2"])
    client = client_of(port, tls=distrustful)
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        await call(client)
    await client.aclose()
    await server.stop(None)


async def test_the_clients_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = client_of(listener.getsockname()[1])
        waiting = asyncio.ensure_future(call(client))
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(Unreachable):
            await asyncio.wait_for(waiting, DEADLINE_S)
