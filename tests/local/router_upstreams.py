"""Small servers and clients for the router's tests: pods that count, and clients that never retry."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import grpc
import grpc.aio

from glowplug.router import Router, RouterConfig
from glowplug.spec.routes import Backend, Endpoint, RouteEntry, RouteTable, Split

METHOD = "inference.GRPCInferenceService/ModelInfer"
NAMESPACE = "default"


class HttpServer:
    """An HTTP/1.1 server that answers with its name after `delay_s`, and leaves like a well-behaved pod."""

    def __init__(self, name: str, delay_s: float = 0.0) -> None:
        self.name = name
        self.delay_s = delay_s
        self.requests = 0
        self.active = 0
        self.most_active = 0
        self.is_closing = False
        self.heads: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._idle: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stops accepting, finishes what is in flight, closes what is idle."""
        self.is_closing = True
        if self._server is not None:
            self._server.close()
        for writer in self._idle:
            writer.close()
        if self._open:
            await asyncio.wait(self._open, timeout=5)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while not self.is_closing:
                self._idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self._idle.discard(writer)
                await self._answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._idle.discard(writer)
            self._open.discard(task)
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        self.heads.append(head)
        try:
            await reader.readexactly(content_length(head))
            await self.respond(head, writer)
            await writer.drain()
        finally:
            self.active -= 1

    async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        body = self.name.encode()
        close = b"connection: close\r\n" if self.is_closing else b""
        writer.write(b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n%s" % (close, len(body), body))


class Pod:
    """A pod: HTTP and gRPC on ports of their own, both answering with the pod's name."""

    def __init__(self, name: str, delay_s: float = 0.0) -> None:
        self.name = f"{NAMESPACE}/{name}"
        self.http = HttpServer(name, delay_s)
        self.grpc_requests = 0
        self.grpc_active = 0
        self.most_grpc_active = 0
        self.grpc_port = 0
        self._grpc = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(self._infer)
        service, _, name = METHOD.partition("/")
        handler = grpc.method_handlers_generic_handler(service, {name: method})
        self._grpc.add_generic_rpc_handlers((handler,))

    async def start(self) -> None:
        await self.http.start()
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        await self._grpc.start()

    async def close(self, *, linger_s: float = 0.0) -> None:
        """Goes on for `linger_s` as if nothing had happened, as pods do: what Envoy had sent is still on its way,
        and grpc.aio cancels calls that it has received and not begun."""
        await asyncio.sleep(linger_s)
        await self.http.close()
        await self._grpc.stop(grace=5)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.name, "127.0.0.1", self.http.port, self.grpc_port)

    async def _infer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:  # type: ignore[type-arg]
        self.grpc_requests += 1
        self.grpc_active += 1
        self.most_grpc_active = max(self.most_grpc_active, self.grpc_active)
        try:
            if self.http.delay_s:
                await asyncio.sleep(self.http.delay_s)
            return self.http.name.encode() + b":" + request
        finally:
            self.grpc_active -= 1


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-length":
            return int(value)
    return 0


class Client:
    """One keep-alive connection to the ingress; reads answers by their content-length or chunks."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    async def request(
        self, path: str, *, host: str = "127.0.0.1", body: bytes = b"", headers: str = ""
    ) -> tuple[int, str, bytes]:
        """Status, head in lower case, body."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self._reader is not None
        method = "POST" if body else "GET"
        head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in answer:
            content = await self._chunks(self._reader)
        else:
            content = await self._reader.readexactly(content_length(answer.encode()))
        return int(answer.split(" ", 2)[1]), answer, content

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        content = b""
        while True:
            size = int(await reader.readuntil(b"\r\n"), 16)
            content += (await reader.readexactly(size + 2))[:size]
            if size == 0:
                return content


async def get(port: int, path: str, **options: str) -> tuple[int, str, bytes]:
    """One request on a connection of its own."""
    async with Client(port) as client:
        return await client.request(path, **options)  # type: ignore[arg-type]


async def call(
    port: int, prefix: str = "", *, authority: str | None = None, timeout_s: float = 10.0
) -> bytes:
    """One gRPC call; raises grpc.aio.AioRpcError."""
    options = [("grpc.default_authority", authority)] if authority else []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        return await channel.unary_unary(f"{prefix}/{METHOD}")(b"x", timeout=timeout_s)


class Load:
    """`clients` REST connections and as many gRPC callers that ask all the time, and count every answer."""

    def __init__(self, port: int, prefix: str, *, clients: int, grpc_clients: int = 0) -> None:
        self.port = port
        self.prefix = prefix
        self.clients = clients
        self.grpc_clients = grpc_clients
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._is_over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        async with anyio.create_task_group() as tasks:
            for number in range(self.clients):
                tasks.start_soon(self._rest, name=f"rest {number}")
            for number in range(self.grpc_clients):
                tasks.start_soon(self._grpc, name=f"grpc {number}")
            yield self
            self._is_over = True

    async def _rest(self) -> None:
        async with Client(self.port) as client:
            while not self._is_over:
                try:
                    status, head, body = await client.request(f"{self.prefix}/v2", body=b"x" * 100)
                except (OSError, asyncio.IncompleteReadError) as error:
                    self.failures.append(repr(error))
                    return
                if status != 200:
                    self.failures.append(f"{status} {body!r} {head}")
                self.answers["rest " + body.decode()] += 1

    async def _grpc(self) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            infer = channel.unary_unary(f"{self.prefix}/{METHOD}")
            while not self._is_over:
                try:
                    self.answers["grpc " + (await infer(b"x", timeout=20)).decode()] += 1
                except grpc.aio.AioRpcError as error:
                    self.failures.append(f"{error.code()} {error.details()}")


def backend(name: str, *pods: Pod, concurrency: int = 0, timeout_s: float = 30.0) -> Backend:
    return Backend(f"{NAMESPACE}/{name}", tuple(pod.endpoint for pod in pods), concurrency, timeout_s)


def entry(name: str, **splits: int) -> RouteEntry:
    """A service as the route controller publishes it; revisions are named by keyword, `_` for `-`."""
    hosts = tuple(
        f"{name}.{NAMESPACE}{suffix}" for suffix in (".localhost", ".svc.cluster.local", ".svc", "")
    )
    parts = tuple(Split(f"{NAMESPACE}/{revision.replace('_', '-')}", p) for revision, p in splits.items())
    return RouteEntry(NAMESPACE, name, hosts, (f"/serving/{NAMESPACE}/{name}",), parts)


def table(*parts: RouteEntry | Backend) -> RouteTable:
    routes = tuple(part for part in parts if isinstance(part, RouteEntry))
    return RouteTable(routes, tuple(part for part in parts if isinstance(part, Backend)))


class _Started:
    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def started(self, value: None = None) -> None:
        self._future.set_result(value)


@asynccontextmanager
async def running_router(directory: Path, **options: object) -> AsyncIterator[Router]:
    """A router in a task of its own, so that a fixture may begin it in one task and end it in another."""
    on_pid: Callable[[int], None] = options.pop("on_pid", lambda pid: None)  # type: ignore[assignment]
    router = Router(RouterConfig(directory, port=0, **options), on_pid=on_pid)  # type: ignore[arg-type]
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(router.run(task_status=_Started(started)), name="router")
    try:
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await task
        yield router
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def pods(*names: str, delay_s: float = 0.0) -> AsyncIterator[list[Pod]]:
    running = [Pod(name, delay_s) for name in names]
    try:
        for pod in running:
            await pod.start()
        yield running
    finally:
        for pod in running:
            await pod.close()


async def eventually(is_true: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Waits for a condition; fails with `what` if it does not come."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, what
        await anyio.sleep(0.01)
