"""What one request meets: addresses, errors, time limits, retries; with the real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import grpc
import grpc.aio
import pytest
import pytest_asyncio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from local.router_upstreams import (
    Client,
    HttpServer,
    Load,
    Pod,
    backend,
    call,
    entry,
    get,
    pods,
    running_router,
    table,
)

from glowplug.router import Router
from glowplug.spec.routes import Backend, Endpoint, RouteEntry, Split

PATH = "/serving/default/flights"


@pytest_asyncio.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    async with running_router(tmp_path) as running:
        yield running


@pytest_asyncio.fixture
async def pod() -> AsyncIterator[Pod]:
    async with pods("one") as (running,):
        yield running


async def publish(router: Router, *parts: RouteEntry | Backend) -> None:
    router.publish(table(*parts))
    assert await router.settled()


def only(server: HttpServer) -> Backend:
    """A revision `r` whose pod has a server for HTTP alone."""
    return Backend("default/r", (Endpoint("default/x", "127.0.0.1", server.port, None),), 0, 30.0)


@pytest.mark.parametrize(
    "host",
    [
        "flights.default",
        "flights.default.svc",
        "flights.default.svc.cluster.local:80",
        "Flights.default.localhost:8080",
    ],
)
async def test_a_host_leads_to_its_service_with_any_port(router: Router, pod: Pod, host: str) -> None:
    await publish(router, entry("flights", r=100), backend("r", pod))
    status, _, body = await get(router.real_port, "/v2/health?x=1", host=host)
    assert (status, body) == (200, b"one")
    assert pod.http.heads[-1].startswith(b"GET /v2/health?x=1 ")
    assert await call(router.real_port, authority=host) == b"one:x"


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        (f"{PATH}/v2/models/flights/infer?a=/b", b"/v2/models/flights/infer?a=/b"),
        (f"{PATH}/v1/models/flights:predict", b"/v1/models/flights:predict"),
        (PATH, b"/"),
        (f"{PATH}/", b"/"),
        (f"{PATH}?a=b", b"/?a=b"),
        (f"{PATH}//x", b"//x"),
    ],
)
async def test_a_path_leads_to_its_service_and_is_cut_off(
    router: Router, pod: Pod, path: str, arrives: bytes
) -> None:
    await publish(router, entry("flights", r=100), backend("r", pod))
    assert (await get(router.real_port, path))[0] == 200
    assert pod.http.heads[-1].split(b" ")[1] == arrives
    assert await call(router.real_port, PATH) == b"one:x"


@pytest.mark.parametrize(
    "path", ["/", "/serving", "/serving/default/flights2", "/serving/default/flight", "/v2"]
)
async def test_what_is_not_served_is_404_with_a_hint(router: Router, pod: Pod, path: str) -> None:
    await publish(router, entry("flights", r=100), backend("r", pod))
    status, head, body = await get(router.real_port, path)
    assert status == 404
    assert "application/json" in head
    assert "retry-after" not in head
    assert f"127.0.0.1{path}" in json.loads(body)["error"]
    assert "kubectl get inferenceservices -A" in json.loads(body)["error"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(router.real_port, path.rstrip("/"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (caught.value.details() or "").startswith("nothing is served at")


async def test_a_revision_without_pods_is_503_with_what_to_type(router: Router) -> None:
    await publish(router, entry("flights", r=100), backend("r"))
    for host, path in (("x", PATH), ("flights.default", "/")):
        status, head, body = await get(router.real_port, path, host=host)
        assert status == 503
        assert "retry-after: 1\r\n" in head
        assert "kubectl get pods -n default -l serving.knative.dev/revision=r" in json.loads(body)["error"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(router.real_port, PATH)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (caught.value.details() or "").startswith("revision default/r has no ready replica")


async def test_weights_are_kept_also_where_one_revision_has_no_pod(router: Router, pod: Pod) -> None:
    await publish(router, entry("flights", r=75, gone=25), backend("r", pod), backend("gone"))
    async with Client(router.real_port) as client:
        answers = [await client.request(PATH) for _ in range(400)]
    refused = [(head, body) for status, head, body in answers if status == 503]
    assert sum(status == 200 for status, _, _ in answers) == 400 - len(refused)
    # Binomial(400, 0.25): 100 with a standard deviation of 8.7; 6 of them on either side.
    assert 48 <= len(refused) <= 152
    assert "retry-after: 1" in refused[0][0]


async def test_a_pod_that_speaks_grpc_on_its_only_port_gets_it_there(router: Router, pod: Pod) -> None:
    h2c = Endpoint(pod.name, "127.0.0.1", pod.grpc_port, None)
    await publish(router, entry("flights", r=100), Backend("default/r", (h2c,), 0, 30.0))
    assert await call(router.real_port, PATH) == b"one:x"


async def test_a_pod_whose_port_is_h2c_gets_rest_over_http2_too(router: Router) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "200")])
                    connection.send_data(event.stream_id, b"over HTTP/2", end_stream=True)
            writer.write(connection.data_to_send())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        h2c = Endpoint("default/x", "127.0.0.1", server.sockets[0].getsockname()[1], None)
        await publish(router, entry("flights", r=100), Backend("default/r", (h2c,), 0, 30.0, is_h2c=True))
        assert (await get(router.real_port, PATH))[::2] == (200, b"over HTTP/2")


async def test_silence_past_the_timeout_is_504_and_a_stream_may_go_on(router: Router) -> None:
    class Slow(HttpServer):
        async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> None:
            if b"stream" in head:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
                for _ in range(8):
                    await asyncio.sleep(0.1)
                    writer.write(b".")
            else:
                await asyncio.sleep(2)

    server = Slow("slow")
    await server.start()
    endpoint = Endpoint("default/x", "127.0.0.1", server.port, None)
    await publish(router, entry("flights", r=100), Backend("default/r", (endpoint,), 0, 0.4))
    with anyio.fail_after(2):
        status, head, body = await get(router.real_port, PATH)
    assert (status, "application/json" in head) == (504, True)
    assert "error" in json.loads(body)
    assert (await get(router.real_port, PATH + "/stream"))[::2] == (200, b"........")
    await server.close()


async def test_what_a_model_answers_is_not_tried_again(router: Router) -> None:
    class Failing(HttpServer):
        async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nmy\n")

    server = Failing("failing")
    await server.start()
    await publish(router, entry("flights", r=100), only(server))
    status, head, body = await get(router.real_port, PATH)
    assert (status, body, server.requests) == (503, b"my\n", 1)
    assert "retry-after" not in head
    await server.close()


async def test_a_request_over_which_its_pod_dies_goes_to_another_one(router: Router, pod: Pod) -> None:
    class Dying(HttpServer):
        async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.close()

    dying = Dying("dying")
    await dying.start()
    endpoints = (pod.endpoint, Endpoint("default/dying", "127.0.0.1", dying.port, dying.port))
    await publish(router, entry("flights", r=100), Backend("default/r", endpoints, 0, 30.0))
    while not dying.requests:
        assert (await get(router.real_port, PATH))[0] == 200
    await dying.close()


async def test_a_pod_that_takes_no_connection_costs_no_request(router: Router, pod: Pod) -> None:
    gone = HttpServer("gone")
    await gone.start()
    endpoints = (pod.endpoint, Endpoint("default/gone", "127.0.0.1", gone.port, gone.port))
    await gone.close()
    await publish(router, entry("flights", r=100), Backend("default/r", endpoints, 0, 30.0))
    for _ in range(20):
        assert (await get(router.real_port, PATH))[0] == 200
        assert await call(router.real_port, PATH) == b"one:x"


async def test_large_bodies_pass_in_both_directions(router: Router) -> None:
    class Echo(HttpServer):
        async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n" + bytes(1 << 25))

    server = Echo("echo")
    await server.start()
    await publish(router, entry("flights", r=100), only(server))
    async with Client(router.real_port) as client:
        status, _, body = await client.request(PATH, body=bytes(1 << 25))
    assert (status, len(body)) == (200, 1 << 25)
    await server.close()


async def test_headers_of_the_client(router: Router, pod: Pod) -> None:
    await publish(router, entry("flights", r=100), backend("r", pod))
    sent = "x-request-id: my-id\r\nx-envoy-upstream-rq-timeout-ms: 1\r\nx-glowplug-listener: local/a/b\r\nx-own: 1\r\n"
    async with Client(router.real_port) as client:
        assert (await client.request(PATH, host="somewhere:99", headers=sent))[0] == 200
        assert (await client.request(PATH))[0] == 200
    first, second = (head.lower() for head in pod.http.heads)
    assert b"x-request-id: my-id\r\n" in first
    assert b"host: somewhere:99\r\n" in first
    assert b"x-own: 1\r\n" in first
    assert b"timeout-ms" not in first
    assert b"x-glowplug-listener" not in first
    assert b"x-request-id: " in second


async def test_a_pod_never_gets_more_than_its_container_concurrency(router: Router) -> None:
    async with pods("one", "two", delay_s=0.005) as (one, two):
        await publish(router, entry("flights", r=100), backend("r", one, two, concurrency=1))
        load = Load(router.real_port, PATH, clients=8, grpc_clients=8)
        async with load.running():
            await anyio.sleep(1)
            stats = (await router.stats())["default/r"]
        assert load.failures == []
        for pod in (one, two):
            assert pod.http.most_active == pod.most_grpc_active == 1
            assert pod.http.requests > 20
            assert pod.grpc_requests > 20
        assert stats.active <= 4
        assert stats.pending > 0
        assert stats.requests > 80
        assert stats.errors_5xx == 0
        # Two pods, each with one request of either protocol at a time.
        assert 0.5e6 < stats.busy_us < 4.4e6


async def test_a_full_queue_is_503(tmp_path: Path) -> None:
    async with running_router(tmp_path, max_pending_requests=2) as router, pods("one", delay_s=0.3) as (pod,):
        await publish(router, entry("flights", r=100), backend("r", pod, concurrency=1))
        answers: list[tuple[int, str, bytes]] = []

        async def ask() -> None:
            answers.append(await get(router.real_port, PATH))

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(ask, name=f"ask {number}")
        refused = [answer for answer in answers if answer[0] == 503]
        # One in the pod and two that wait; the one in the pod waited too while its connection was made.
        assert len(refused) in (5, 6)
        assert [status for status, _, _ in answers].count(200) == 8 - len(refused)
        assert all("retry-after: 1" in head and b"queue of revision default/r is full" in body
                   for _, head, body in refused)  # fmt: skip


async def test_a_local_address_leads_every_request_to_its_service(router: Router, pod: Pod) -> None:
    address = router.local_address("default", "flights-predictor")
    assert router.local_address("default", "flights-predictor") == address
    other = router.local_address("default", "other")
    assert await router.settled()
    host, _, port = address.partition(":")
    assert host == "127.0.0.1"
    status, _, body = await get(int(port), "/v2")
    assert status == 503
    assert "default/flights-predictor has no route" in json.loads(body)["error"]

    service = RouteEntry("default", "flights-predictor", (), (), (Split("default/r", 100),))
    await publish(router, service, backend("r", pod))
    for path in ("/v2/x", "/serving/default/flights/y"):
        assert (await get(int(port), path, host="anything"))[::2] == (200, b"one")
        assert pod.http.heads[-1].startswith(f"GET {path} ".encode())
    assert b"x-glowplug-listener" not in pod.http.heads[-1]
    assert await call(int(port)) == b"one:x"
    assert (await get(int(other.rpartition(":")[2]), "/v2"))[0] == 503
