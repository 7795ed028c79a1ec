"""One trigger's deliveries on a real log; the sink is a function."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from glowplug.broker.config import BrokerConfig
from glowplug.broker.courier import Courier
from glowplug.broker.log_thread import LogThread
from glowplug.broker.recent import Recent
from glowplug.broker.records import CursorState, Entry, Page
from glowplug.broker.verdict import Answer
from glowplug.spec.eventing import Backoff, Delivery, Destination, TriggerSpec
from glowplug.wire.events import CloudEvent

BROKER = ("default", "b")
KEY = ("default", "b", "t")
TRIGGER = TriggerSpec("default", "t", "b", Destination(uri="http://sink/"))


class Home:
    """A Broker whose destinations are URLs, and whose replies are kept."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.replies: list[tuple[CloudEvent, int]] = []
        self.has_address = True

    def address(self, destination: Destination) -> str | None:
        return destination.uri if self.has_address else None

    async def take_reply(self, event: CloudEvent, ttl: int) -> bool:
        self.replies.append((event, ttl))
        return True


class Sink:
    """Answers as `behaviour` says."""

    def __init__(self, behaviour: Callable[[str], Awaitable[Answer]]) -> None:
        self.behaviour = behaviour
        self.ids: list[str] = []

    async def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Answer:
        self.ids.append(headers["ce-id"])
        return await self.behaviour(headers["ce-id"])


class Bench:
    """A courier at work."""

    def __init__(self, log: LogThread, config: BrokerConfig, home: Home, sink: Sink) -> None:
        self.log, self.home, self.sink = log, home, sink
        self.recent = Recent(0, 10, 2**20)
        self.courier = Courier(TRIGGER, config, log, self.recent, home, sink)
        self._next = 1

    async def accept(self, count: int) -> None:
        for _ in range(count):
            attributes = {"id": str(self._next), "specversion": "1.0", "type": "t", "source": "/s"}
            entry = Entry.of(1.0, 9, CloudEvent(attributes))
            self._next += 1
            await self.log.write(lambda log, one=entry: log.append(BROKER, [one]))  # type: ignore[misc]
            (record,) = await self.log.read(
                lambda log, after=self._next - 2: log.page(BROKER, after, Page(1, 1))  # type: ignore[misc]
            )
            self.recent.add([record])
            self.courier.wake()

    async def state(self) -> CursorState:
        return await self.log.read(lambda log: log.cursor(KEY))

    async def until(self, holds: Callable[[CursorState], bool]) -> CursorState:
        with anyio.fail_after(30):
            while not holds(state := await self.state()):  # noqa: ASYNC110 - a file tells nobody
                await anyio.sleep(0.005)
        return state


@asynccontextmanager
async def working(
    folder: pathlib.Path, sink: Sink, delivery: Delivery | None = None, **config: int
) -> AsyncIterator[Bench]:
    log = LogThread(folder / "events.db", 0)
    await log.open()
    home = Home(delivery or Delivery(retry=3, backoff=Backoff.LINEAR, delay_s=0.01))
    bench = Bench(log, BrokerConfig(folder, **config), home, sink)  # type: ignore[arg-type]
    bench.courier.register()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.courier.run)
            yield bench
            tasks.cancel_scope.cancel()
    finally:
        await log.close()


async def taken(id: str) -> Answer:
    return Answer(202)


async def test_a_slow_event_holds_the_position_back_only_a_little(tmp_path: pathlib.Path) -> None:
    """It is written down by itself, and its note goes when it is over."""
    release = asyncio.Event()

    async def slow_first(id: str) -> Answer:
        if id == "1":
            await release.wait()
        return Answer(202)

    async with working(tmp_path, Sink(slow_first), window_events=5, concurrency=3) as bench:
        await bench.accept(40)
        state = await bench.until(lambda state: state.position == 40)
        assert state.pending == 1
        assert bench.courier.gauges(2.0).backlog == 1
        release.set()
        await bench.until(lambda state: state.pending == 0)
        assert sorted(bench.sink.ids, key=int) == [str(number) for number in range(1, 41)]
        assert bench.courier.gauges(2.0).backlog == 0


async def test_what_breaks_within_begins_again(tmp_path: pathlib.Path) -> None:
    is_broken = True

    async def breaking(id: str) -> Answer:
        nonlocal is_broken
        if id == "3" and is_broken:
            is_broken = False
            raise RuntimeError("on purpose")
        return Answer(202)

    async with working(tmp_path, Sink(breaking)) as bench:
        await bench.accept(5)
        await bench.until(lambda state: state.position == 5)
        assert {"1", "2", "3", "4", "5"} == set(bench.sink.ids)


async def test_without_an_address_it_is_tried_again(tmp_path: pathlib.Path) -> None:
    async with working(tmp_path, Sink(taken), Delivery(retry=1000, delay_s=0.0)) as bench:
        bench.home.has_address = False
        await bench.accept(1)
        await bench.until(lambda state: state.pending == 1)
        assert bench.sink.ids == []
        bench.home.has_address = True
        await bench.until(lambda state: state.pending == 0)
        assert bench.sink.ids == ["1"]


async def test_retries_do_not_pile_up_in_memory(tmp_path: pathlib.Path) -> None:
    """Hundreds that wait for their time are on the disk, each once, and come when it is due."""
    is_up = False

    async def down_then_up(id: str) -> Answer:
        return Answer(202 if is_up else 503)

    delivery = Delivery(retry=1000, backoff=Backoff.LINEAR, delay_s=0.05)
    async with working(tmp_path, Sink(down_then_up), delivery, page_events=16, concurrency=8) as bench:
        await bench.accept(200)
        await bench.until(lambda state: state.pending == 200 and state.position == 200)
        is_up = True
        await bench.until(lambda state: state.pending == 0)
        assert set(bench.sink.ids) == {str(number) for number in range(1, 201)}
        assert bench.courier.counts.delivered == 200


async def test_a_reply_goes_back_with_the_hops_that_are_left(tmp_path: pathlib.Path) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "r", "ce-type": "t", "ce-source": "/r"}

    async def replying(id: str) -> Answer:
        return Answer(200, headers, b"x")

    async with working(tmp_path, Sink(replying)) as bench:
        await bench.accept(1)
        await bench.until(lambda state: state.position == 1)
        ((event, ttl),) = bench.home.replies
        assert (event.text("id"), event.data, ttl) == ("r", b"x", 9)
