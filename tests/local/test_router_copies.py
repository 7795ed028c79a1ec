"""What Envoy's script copies, and that it waits for nobody: the real Envoy, and this test as who takes the copies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import pytest_asyncio
from local.router_upstreams import (
    Client,
    HttpServer,
    Pod,
    call,
    entry,
    eventually,
    pods,
    running_router,
    table,
)

from glowplug.copies import script
from glowplug.copies.child import listening_socket
from glowplug.copies.copies import Copies, GivenUp
from glowplug.copies.exchange import Exchange
from glowplug.copies.reading import Reading
from glowplug.copies.settings import parse_takers
from glowplug.router import Router, RouterConfig
from glowplug.serving.copying import Copying
from glowplug.serving.http import HttpRequest, HttpResponse
from glowplug.serving.http_protocol import HttpService
from glowplug.serving.listener import HttpListener, bind
from glowplug.spec import names
from glowplug.spec.logger import MAX_BODY_BYTES, Logger
from glowplug.spec.routes import Backend, Endpoint

PATH = "/serving/default/flights/v2/models/flights/infer"
LOGGER = Logger("flights", "default", "predictor", "r", "http://sink/", headers=("X-User",))


class Sized(HttpServer):
    """Answers as many bytes as the request's header `x-size` says, in chunks where it says so."""

    async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.delay_s)
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        size = int(fields.get(b"x-size", b"3"))
        if b"x-chunked" not in fields:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (size, b"a" * size))
            return
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"a" * size))


class Taker:
    """Wants everything; reads when the test says so."""

    def __init__(self, path: Path) -> None:
        self.exchanges: list[Exchange] = []
        self.lost: Counter[GivenUp] = Counter()
        self.listener = listening_socket(path)
        self.copies = Copies(self, max_body_bytes=MAX_BODY_BYTES, max_held_bytes=2**28)
        self.begin()

    def begin(self) -> None:
        """As a process that starts."""
        self._reading = Reading(self.listener.dup(), lambda part: self.copies.take(part, 0.0))

    def end(self) -> None:
        """As a process that is killed."""
        self._reading.close()

    def wants(self, about: Mapping[str, str], request: Mapping[str, str]) -> bool:
        return True

    def copied(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def given_up(self, about: Mapping[str, str], why: GivenUp) -> None:
        self.lost[why] += 1

    async def until(self, count: int) -> list[Exchange]:
        """Reads until there are so many."""

        def are_there() -> bool:
            self._reading.read()
            return len(self.exchanges) >= count

        await eventually(are_there, f"{count} exchanges; found {len(self.exchanges)}, {self.lost}")
        return self.exchanges


@pytest_asyncio.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    async with running_router(tmp_path) as running:
        yield running


@pytest_asyncio.fixture
async def taker(router: Router) -> AsyncIterator[Taker]:
    found = Taker(router.payloads_socket)
    yield found
    found.end()
    found.listener.close()


@pytest_asyncio.fixture
async def pod() -> AsyncIterator[Pod]:
    async with pods("one") as (running,):
        yield running


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Sized]:
    found = Sized("sized")
    await found.start()
    yield found
    await found.close()


async def publish(router: Router, endpoint: Endpoint, logger: Logger = LOGGER, copy_key: str = "") -> None:
    backend = Backend("default/r", (endpoint,), 0, 30.0, logger=logger, copy_key=copy_key)
    router.publish(table(entry("flights", r=100), backend))
    assert await router.settled()


def of(server: HttpServer) -> Endpoint:
    return Endpoint("default/x", "127.0.0.1", server.port, None)


async def test_bodies_of_every_size_are_copied_as_they_are(
    router: Router, taker: Taker, server: Sized
) -> None:
    await publish(router, of(server))
    sizes = [(1, 1), (70_000, 10), (10, 70_000), (32 * 1024, 64 * 1024), (MAX_BODY_BYTES, MAX_BODY_BYTES)]
    async with Client(router.real_port) as client:
        for number, (sent, wanted) in enumerate(sizes):
            head = f"x-size: {wanted}\r\nx-user: u{number}\r\nx-other: o\r\nce-id: c\r\n"
            for again, more in enumerate(("", "x-chunked: y\r\n")):
                await client.request(PATH, body=b"q" * sent, headers=head + more)
                await taker.until(2 * number + again + 1)
        # What asks for no answer is not copied.
        await client.request(PATH)
        await client.request(PATH, body=b"last")
    found = await taker.until(2 * len(sizes) + 1)
    for number, exchange in enumerate(found[:-1]):
        sent, wanted = sizes[number // 2]
        assert exchange.request.body == b"q" * sent and exchange.answer.body == b"a" * wanted
        assert Logger.from_text(exchange.about[names.COPY_LOGGER]) == LOGGER
        headers = dict(exchange.request.headers)
        assert headers == {
            ":path": PATH,
            "ce-id": "c",
            "x-user": f"u{number // 2}",
        }
        assert exchange.answer.headers[":status"] == "200"
        assert exchange.began_at <= exchange.ended_at
    assert found[-1].request.body == b"last" and not taker.lost and taker.copies.held_bytes == 0


class Echo:
    """What our own server may have to answer."""

    def begin(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> None:
        return None

    async def answer(self, request: HttpRequest) -> HttpResponse:
        headers = {"content-type": "application/json", "x-seen": " ".join(sorted(request.headers))}
        return HttpResponse(int(request.headers["x-status"]), request.body[::-1], headers)


@pytest.mark.parametrize("mode", ["all", "request", "response"])
async def test_our_servers_copies_are_those_of_envoy(router: Router, taker: Taker, mode: str) -> None:
    """One exchange, copied by Envoy and by the server behind it: equal but for the prefix, which Envoy cuts off."""
    logger = replace(LOGGER, mode=mode, annotations=(("team", "flights, 100 % \N{SNOWMAN}"),))
    copying = Copying(parse_takers(router.copying))
    service = HttpService(copying.http(Echo()), max_body_bytes=2**26, keep_alive_s=30)
    socket = bind("127.0.0.1", 0)
    endpoint = Endpoint("default/x", "127.0.0.1", socket.getsockname()[1], None)
    listener = HttpListener(service, socket)
    await listener.start()
    bodies = [b"q", b"q" * 4096, b"q" * 32 * 1024, b"qa" * 33 * 1024]
    seen: list[str] = []
    try:
        for key in ("", router.copy_key):
            await publish(router, endpoint, logger, copy_key=key)
            async with Client(router.real_port) as client:
                for number, body in enumerate(bodies):
                    for status in (200, 400):
                        head = f"x-status: {status}\r\nx-user: u\xe9{number}\r\n"
                        head += f"content-type: a/b\r\nce-id: {number}\r\n"
                        got, head_back, _ = await client.request(PATH + "?a=b", body=body, headers=head)
                        assert got == status
                        seen.append(head_back)
        found = await taker.until(4 * len(bodies))
    finally:
        copying.close()
        listener.close()
        await listener.drained()
    assert router.copy_key not in "".join(seen), "no model sees the header"
    half = 2 * len(bodies)
    for by_envoy, by_server in zip(found[:half], found[half:], strict=True):
        assert by_envoy.about == {**by_server.about, names.COPY_PREFIX: "/serving/default/flights"}
        headers = dict(by_server.request.headers)
        headers[":path"] = by_envoy.about[names.COPY_PREFIX] + headers[":path"]
        assert dict(by_envoy.request.headers) == headers
        assert dict(by_envoy.answer.headers) == dict(by_server.answer.headers)
        assert (by_envoy.request.body, by_envoy.answer.body) == (
            by_server.request.body,
            by_server.answer.body,
        )
    assert any(exchange.request.body or exchange.answer.body for exchange in found)
    assert await router.uncopied() == 0 and not taker.lost


async def test_a_client_cannot_ask_for_copies(router: Router, taker: Taker) -> None:
    """What it sends under the header's name, if it knew it, is replaced; and a name that it guesses is none."""
    copying = Copying(parse_takers(router.copying))
    service = HttpService(copying.http(Echo()), max_body_bytes=2**26, keep_alive_s=30)
    socket = bind("127.0.0.1", 0)
    listener = HttpListener(service, socket)
    await listener.start()
    try:
        endpoint = Endpoint("default/x", "127.0.0.1", socket.getsockname()[1], None)
        await publish(router, endpoint, copy_key=router.copy_key)
        async with Client(router.real_port) as client:
            forged = "x-status: 200\r\nglowplug-copy-payloads-0: {} all\r\n"
            forged += f"glowplug-copy-payloads-{router.copy_key}: {{}} all\r\n"
            assert (await client.request(PATH, body=b"q", headers=forged))[0] == 200
        (exchange,) = await taker.until(1)
        assert Logger.from_text(exchange.about[names.COPY_LOGGER]) == LOGGER
    finally:
        copying.close()
        listener.close()
        await listener.drained()


async def test_a_body_that_is_too_large_is_said_to_be(router: Router, taker: Taker, server: Sized) -> None:
    await publish(router, of(server))
    too_large = MAX_BODY_BYTES + 1
    async with Client(router.real_port) as client:
        await client.request(PATH, body=b"q" * too_large)
        await client.request(PATH, body=b"q", headers=f"x-size: {too_large}\r\n")
        await client.request(PATH, body=b"q", headers=f"x-size: {too_large}\r\nx-chunked: y\r\n")
        status, _, body = await client.request(PATH, body=b"small")
    assert (status, body) == (200, b"aaa")
    (exchange,) = await taker.until(1)
    assert exchange.request.body == b"small" and taker.lost == {GivenUp.TOO_LARGE: 3}


async def test_grpcs_status_comes_with_the_answer(router: Router, taker: Taker, pod: Pod) -> None:
    await publish(router, pod.endpoint)
    await call(router.real_port, "/serving/default/flights")
    (exchange,) = await taker.until(1)
    assert exchange.answer.headers["grpc-status"] == "0" and exchange.answer.body[5:] == b"one:x"
    assert exchange.request.body[5:] == b"x" and exchange.request.is_grpc


async def test_a_mode_copies_what_it_tells_of(router: Router, taker: Taker, server: Sized) -> None:
    for number, (mode, request, answer) in enumerate((("request", b"qq", b""), ("response", b"", b"aaa"))):
        await publish(router, of(server), replace(LOGGER, mode=mode))
        async with Client(router.real_port) as client:
            await client.request(PATH, body=b"qq")
        exchange = (await taker.until(number + 1))[-1]
        assert (exchange.request.body, exchange.answer.body) == (request, answer)
        assert exchange.request.headers[":path"] == PATH


async def test_what_nobody_takes_waits_up_to_a_bound_and_what_is_beyond_it_is_counted(
    router: Router, taker: Taker, server: Sized
) -> None:
    await publish(router, of(server))
    taker.end()
    megabyte = b"q" * 2**20
    async with Client(router.real_port) as client:
        for number in range(5):
            await client.request(PATH, body=megabyte, headers=f"x-user: {number}\r\n")
        assert await router.uncopied() == 0
        # A process that starts takes what waits.
        taker.begin()
        found = await taker.until(5)
        assert [exchange.request.headers["x-user"] for exchange in found] == list("01234")
        taker.end()
        for _ in range(30):
            status, _, _ = await client.request(PATH, body=megabyte)
            assert status == 200
        uncopied = await router.uncopied()
        assert 10 <= uncopied < 30
        taker.begin()
        await taker.until(5 + 30 - uncopied)
        await client.request(PATH, body=b"after")
        assert (await taker.until(6 + 30 - uncopied))[-1].request.body == b"after"
        assert await router.uncopied() == uncopied


async def test_without_anybody_to_take_copies_requests_go_on(router: Router, server: Sized) -> None:
    await publish(router, of(server))
    async with Client(router.real_port) as client:
        for count in range(1, 4):
            assert (await client.request(PATH, body=b"q"))[0] == 200
            assert await router.uncopied() == count


async def test_many_at_a_time_find_their_answers(router: Router, taker: Taker, server: Sized) -> None:
    """More than the script holds until their answers come."""
    await publish(router, of(server))
    server.delay_s = 0.5

    async def ask(number: int) -> None:
        async with Client(router.real_port) as client:
            await client.request(PATH, body=b"x" * number, headers=f"x-size: {number}\r\n")

    async with anyio.create_task_group() as tasks:
        for number in range(1, 101):
            tasks.start_soon(ask, number)
    found = await taker.until(100)
    sizes = [(len(exchange.request.body), len(exchange.answer.body)) for exchange in found]
    assert sorted(sizes) == [(number, number) for number in range(1, 101)] and server.most_active > 32


async def test_a_script_that_fails_fails_no_request(
    tmp_path: Path, server: Sized, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "function envoy_on_request(handle) error('x') end function envoy_on_response(handle) nothing.at = 1 end"
    monkeypatch.setattr(script, "_script", lambda: broken)
    async with running_router(tmp_path) as router:
        await publish(router, of(server))
        async with Client(router.real_port) as client:
            for _ in range(3):
                assert (await client.request(PATH, body=b"q"))[::2] == (200, b"aaa")
        # And it is seen.
        assert await router.uncopied() >= 3


async def test_a_new_listener_keeps_copying(router: Router, taker: Taker, server: Sized) -> None:
    """Envoy starts the script anew, and its numbers."""
    await publish(router, of(server))
    for number in range(3):
        port = int(router.local_address("default", f"other{number}").rpartition(":")[2])
        assert await router.settled() and port
        async with Client(router.real_port) as client:
            await client.request(PATH, body=b"q%d" % number)
        assert (await taker.until(number + 1))[-1].request.body == b"q%d" % number


async def test_pods_can_be_told_before_the_router_runs(tmp_path: Path) -> None:
    router = Router(RouterConfig(tmp_path, port=0))
    before = parse_takers(router.copying)
    async with anyio.create_task_group() as tasks:
        await tasks.start(router.run)
        assert parse_takers(router.copying) == before
        assert {taker.socket for taker in before} == {str(router.copies_socket), str(router.payloads_socket)}
        tasks.cancel_scope.cancel()
