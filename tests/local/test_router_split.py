"""How a route's requests are shared out, with the real Envoy: by weight, by the tag they name, by who sends them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio
from local.binomial import interval
from local.router_upstreams import METHOD, Client, Pod, backend, call, entry, get, pods, running_router, table
from local.test_activator import held, running

from glowplug.router import Router
from glowplug.spec.affinity import Affinity, Source
from glowplug.spec.routes import Backend, RouteEntry

PATH = "/serving/default/flights"
HOST = "flights.default.localhost"
USERS = [f"user-{number}" for number in range(300)]
Pair = tuple[Pod, Pod]


@pytest_asyncio.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    async with running_router(tmp_path) as running:
        yield running


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    async with pods("stable", "canary") as (stable, canary):
        yield stable, canary


async def publish(router: Router, service: RouteEntry, *revisions: Backend) -> None:
    router.publish(table(service, *revisions))
    assert await router.settled()


def both(pair: Pair) -> tuple[Backend, Backend]:
    return backend("r1", pair[0]), backend("r2", pair[1])


def tagged(**splits: int) -> RouteEntry:
    return replace(entry("flights", **splits), tags=(("latest", "default/r2"), ("prev", "default/r1")))


async def ask(port: int, headers: str = "", *, path: str = PATH, host: str = "127.0.0.1") -> str:
    async with Client(port) as client:
        status, head, body = await client.request(f"{path}/v2", host=host, headers=headers)
    assert status == 200, f"{head}{body!r}"
    return body.decode()


async def ask_grpc(port: int, *metadata: tuple[str, str], prefix: str = PATH) -> str:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer: bytes = await channel.unary_unary(f"{prefix}/{METHOD}")(b"", metadata=metadata, timeout=10)
    return answer.decode().partition(":")[0]


async def test_a_tag_in_the_header_picks_its_revision(router: Router, pair: Pair) -> None:
    stable, canary = pair
    local = int(router.local_address("default", "flights").rpartition(":")[2])
    await publish(router, tagged(r1=100, r2=0), *both(pair))
    port = router.real_port
    for _ in range(5):
        # By path, by host, and where a transformer calls its predictor.
        assert await ask(port, "Knative-Serving-Tag: latest\r\n") == "canary"
        assert await ask(port, "Knative-Serving-Tag: latest\r\n", path="", host=HOST) == "canary"
        assert await ask(local, "Knative-Serving-Tag: latest\r\n", path="", host="any") == "canary"
        assert await ask_grpc(port, ("knative-serving-tag", "latest")) == "canary"
        assert await ask_grpc(local, ("knative-serving-tag", "latest"), prefix="") == "canary"
    assert stable.http.requests == stable.grpc_requests == 0
    arrived = canary.http.heads[-1].lower()
    assert b"\r\nknative-serving-tag: latest\r\n" in arrived
    assert b"knative-serving-revision: r2" in arrived
    assert b"default-route" not in arrived
    # Exactly the prefix goes to the pod as `/`, as without a tag.
    async with Client(port) as client:
        assert (await client.request(PATH, headers="Knative-Serving-Tag: latest\r\n"))[0] == 200
    assert canary.http.heads[-1].startswith(b"GET / ")


async def test_an_unknown_tag_goes_the_default_way_and_the_pod_is_told(router: Router, pair: Pair) -> None:
    stable, canary = pair
    await publish(router, tagged(r1=100, r2=0), *both(pair))
    for headers in ("Knative-Serving-Tag: nobodys\r\n", "Knative-Serving-Tag: lates\r\n", ""):
        assert await ask(router.real_port, headers) == "stable"
        assert b"\r\nknative-serving-default-route: true\r\n" in stable.http.heads[-1].lower()
    assert await ask_grpc(router.real_port, ("knative-serving-tag", "nobodys")) == "stable"
    assert canary.http.requests == canary.grpc_requests == 0


async def test_an_address_of_a_tag_tells_the_tag_whatever_the_sender_said(router: Router, pair: Pair) -> None:
    own = replace(entry("prev-flights", r1=100), tag="prev")
    await publish(router, own, *both(pair))
    for headers in ("", "Knative-Serving-Tag: latest\r\n"):
        assert await ask(router.real_port, headers, path="/serving/default/prev-flights") == "stable"
        arrived = pair[0].http.heads[-1].lower()
        assert arrived.count(b"knative-serving-tag:") == 1
        assert b"\r\nknative-serving-tag: prev\r\n" in arrived


async def test_without_tags_nothing_is_read_and_nothing_is_told(router: Router, pair: Pair) -> None:
    await publish(router, entry("flights", r1=100), *both(pair))
    assert await ask(router.real_port, "Knative-Serving-Tag: latest\r\n") == "stable"
    assert b"default-route" not in pair[0].http.heads[-1].lower()


async def test_a_tag_of_a_revision_that_is_down_does_not_fall_back(router: Router, pair: Pair) -> None:
    await publish(router, tagged(r1=100, r2=0), backend("r1", pair[0]), Backend("default/r2", (), 0, 30.0))
    status, _, body = await get(router.real_port, PATH, headers="Knative-Serving-Tag: latest\r\n")
    assert status == 503
    assert b"default/r2 has no ready replica" in body
    assert await ask(router.real_port) == "stable"
    # And the other way round: the default is down, the tag is up.
    await publish(router, tagged(r1=100, r2=0), Backend("default/r1", (), 0, 30.0), backend("r2", pair[1]))
    assert (await get(router.real_port, PATH))[0] == 503
    assert await ask(router.real_port, "Knative-Serving-Tag: latest\r\n") == "canary"
    with pytest.raises(grpc.aio.AioRpcError):
        await call(router.real_port, PATH)


async def test_a_request_that_names_a_tag_waits_for_that_tag_s_revision(tmp_path: Path, pair: Pair) -> None:
    stable, canary = pair
    async with running(tmp_path) as ingress:

        async def publish_held(*backends: Backend) -> None:
            new = table(tagged(r1=100, r2=0), *backends)
            ingress.activator.publish(new)
            ingress.router.publish(new)
            assert await ingress.router.settled()

        await publish_held(held("r1", concurrency=0), held("r2", concurrency=0))
        asked = [asyncio.create_task(ask(ingress.port, "Knative-Serving-Tag: latest\r\n")) for _ in range(3)]
        called = [
            asyncio.create_task(ask_grpc(ingress.port, ("knative-serving-tag", "latest"))) for _ in range(3)
        ]
        unknown = asyncio.create_task(ask(ingress.port, "Knative-Serving-Tag: nobodys\r\n"))
        await ingress.held(6, "default/r2")
        await ingress.held(1, "default/r1")
        # The pod of the default comes first: nobody who asked for the other one goes there.
        await publish_held(held("r1", stable, concurrency=0), held("r2", concurrency=0))
        assert await unknown == "stable"
        await ingress.held(6, "default/r2")
        await publish_held(held("r1", stable, concurrency=0), held("r2", canary, concurrency=0))
        assert set(await asyncio.gather(*asked, *called)) == {"canary"}
        assert stable.http.requests == 1
        assert b"\r\nknative-serving-tag: latest\r\n" in canary.http.heads[-1].lower()


@pytest.mark.parametrize(
    ("affinity", "header"),
    [
        (Affinity(Source.HEADER, "x-user-id"), "X-User-Id: {}"),
        (Affinity(Source.COOKIE, "session"), "cookie: a=b; session={}; c=d"),
    ],
)
async def test_a_caller_stays_on_its_side_and_moves_one_way_only(
    router: Router, pair: Pair, affinity: Affinity, header: str
) -> None:
    before: set[str] = set()
    for percent in (0, 1, 10, 25, 50, 90, 100):
        service = replace(tagged(r1=100 - percent, r2=percent), affinity=affinity)
        await publish(router, service, *both(pair))
        sides = await side_of_users(router.real_port, header)
        assert await side_of_users(router.real_port, header) == sides, "the same caller went to both sides"
        on_canary = {user for user, side in sides.items() if side == "canary"}
        assert before <= on_canary, f"at {percent} % callers went back"
        low, high = interval(len(USERS), percent)
        assert low <= len(on_canary) <= high
        before = on_canary
    # And down again: the same callers as on the way up.
    await publish(router, replace(tagged(r1=75, r2=25), affinity=affinity), *both(pair))
    sides = await side_of_users(router.real_port, header)
    key, _, value = header.partition(": ")
    for user in USERS[:40]:
        assert await ask_grpc(router.real_port, (key.lower(), value.format(user))) == sides[user]
        # A tag is stronger.
        assert (
            await ask(router.real_port, f"{header.format(user)}\r\nKnative-Serving-Tag: prev\r\n") == "stable"
        )


async def test_who_sends_no_header_is_split_at_random(router: Router, pair: Pair) -> None:
    affinity = Affinity(Source.HEADER, "x-user-id")
    await publish(router, replace(entry("flights", r1=70, r2=30), affinity=affinity), *both(pair))
    count = 1000
    async with Client(router.real_port) as client:
        sides = Counter([(await client.request(f"{PATH}/v2"))[2].decode() for _ in range(count)])
        # One request id for all: that is no identity.
        same = "x-request-id: 11111111-1111-1111-1111-111111111111\r\n"
        with_id = Counter([(await client.request(PATH, headers=same))[2].decode() for _ in range(count)])
    low, high = interval(count, 30)
    assert low <= sides["canary"] <= high
    assert low <= with_id["canary"] <= high


async def test_three_revisions_get_their_shares_by_header(router: Router, pair: Pair) -> None:
    async with pods("third") as (third,):
        service = replace(
            entry("flights", r1=60, r2=30, r3=10), affinity=Affinity(Source.HEADER, "x-user-id")
        )
        await publish(router, service, *both(pair), backend("r3", third))
        sides = Counter((await side_of_users(router.real_port, "x-user-id: {}")).values())
        for name, percent in (("stable", 60), ("canary", 30), ("third", 10)):
            low, high = interval(len(USERS), percent)
            assert low <= sides[name] <= high


async def side_of_users(port: int, header: str) -> dict[str, str]:
    async with Client(port) as client:
        return {
            user: (await client.request(f"{PATH}/v2", headers=f"{header.format(user)}\r\n"))[2].decode()
            for user in USERS
        }
