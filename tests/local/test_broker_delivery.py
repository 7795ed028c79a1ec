"""What triggers get: a real broker, real sinks that hang, refuse, come and go, or answer with events."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import time
from collections.abc import AsyncIterator

import pytest
from local.broker_lab import BrokerLab, Sink, broker, send, serving, trigger, until

from glowplug.broker.http_client import HttpClient

DEAD = {"backoffPolicy": "linear", "backoffDelay": "PT0.05S"}


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient(2**20)
    yield client
    client.close()


async def test_a_hanging_sink_holds_nobody_up(tmp_path: pathlib.Path, client: HttpClient) -> None:
    hanging, quick = Sink(lambda headers, body: None), Sink()
    async with serving(hanging, quick):
        lab = BrokerLab(tmp_path, broker(), trigger("slow", hanging.url), trigger("quick", quick.url))
        lab.up()
        for number in range(200):
            assert (await send(client, lab.url, str(number))).status == 202
        await quick.until(lambda sink: len(sink.counted) == 200)
        # The slow one has as many at a time as it may have, and the rest waits on the disk.
        await hanging.until(lambda sink: sink.active == 32)
        assert lab.metric("backlog_events", trigger="slow") == 200
        assert lab.metric("oldest_undelivered_seconds", trigger="slow") > 0
        assert set(quick.counted.values()) == {1}
        lab.end()


async def test_a_refused_event_is_a_dead_letter_at_once(tmp_path: pathlib.Path, client: HttpClient) -> None:
    answer = b"HTTP/1.1 422 \r\ncontent-length: 10\r\n\r\nno such id"
    sink, dead = Sink(lambda headers, body: answer), Sink()
    async with serving(sink, dead):
        delivery = {"retry": 5, "deadLetterSink": {"uri": dead.url}, **DEAD}
        lab = BrokerLab(tmp_path, broker(**delivery), trigger("t", sink.url))
        lab.up()
        await send(client, lab.url, "1", b'{"x": 1}', tenant="a b")
        await dead.until(lambda sink: len(sink.got) == 1)
        assert len(sink.got) == 1
        got = dead.got[0]
        assert got["ce-knativeerrorcode"] == "422"
        assert got["ce-knativeerrordest"] == sink.url
        assert base64.b64decode(got["ce-knativeerrordata"]) == b"no such id"
        assert (got["ce-id"], got["ce-tenant"], dead.bodies[0]) == ("1", "a%20b", b'{"x": 1}')
        assert lab.metric("events_dead_lettered_total") == 1
        assert lab.metric("events_retried_total") == 0
        lab.end()


async def test_without_a_sink_dead_letters_are_kept(tmp_path: pathlib.Path, client: HttpClient) -> None:
    sink = Sink(lambda headers, body: 400)
    async with serving(sink):
        lab = BrokerLab(tmp_path, broker(), trigger("t", sink.url))
        lab.up()
        await send(client, lab.url, "1", b"[1]")
        letter = json.loads(await until(lambda: lab.ask("dead-letters/default/default")))
        assert (letter["trigger"], letter["code"], letter["destination"]) == ("t", 400, sink.url)
        assert (letter["event"]["id"], letter["event"]["data"]) == ("1", [1])
        assert lab.metric("backlog_events") == 0
        lab.end()


async def test_one_schedule_of_retries(tmp_path: pathlib.Path, client: HttpClient) -> None:
    """As many attempts as the delivery says, each after its wait, and then the dead-letter sink, once."""
    sink, dead = Sink(lambda headers, body: 503), Sink()
    async with serving(sink, dead):
        delivery = {"retry": 3, "backoffPolicy": "exponential", "backoffDelay": "PT0.1S"}
        lab = BrokerLab(
            tmp_path, broker(**delivery, deadLetterSink={"uri": dead.url}), trigger("t", sink.url)
        )
        lab.up()
        await send(client, lab.url, "1")
        await dead.until(lambda sink: len(sink.got) == 1)
        assert len(sink.got) == 4
        waits = [later - sooner for sooner, later in zip(sink.at, sink.at[1:], strict=False)]
        for wait, least in zip(waits, (0.2, 0.4, 0.8), strict=True):
            assert wait >= least * 0.98
        assert dead.got[0]["ce-knativeerrorcode"] == "503"
        assert lab.metric("events_retried_total") == 3
        lab.end()


async def test_a_sink_that_comes_back_gets_everything(tmp_path: pathlib.Path, client: HttpClient) -> None:
    sink = Sink()
    async with serving(sink):
        lab = BrokerLab(
            tmp_path,
            broker(retry=50, backoffPolicy="linear", backoffDelay="PT0.02S"),
            trigger("t", sink.url),
        )
        lab.up()
    # Nobody listens there now.
    for number in range(50):
        assert (await send(client, lab.url, str(number))).status == 202
    refused = 0

    def flapping(headers: dict[str, str], body: bytes) -> int:
        nonlocal refused
        refused += 1
        return 202 if refused % 3 == 0 else 429

    sink.behaviour = flapping
    async with serving(sink):
        await until(lambda: lab.metric("events_delivered_total") == 50)
        assert len(sink.counted) == 50
        assert lab.metric("backlog_events") == 0
        assert lab.metric("events_dead_lettered_total") == 0
    lab.end()


async def test_a_retry_survives_a_kill(tmp_path: pathlib.Path, client: HttpClient) -> None:
    """The count of attempts goes on where it was: 3 in all, however often the broker is killed in between."""
    sink, dead = Sink(lambda headers, body: 500), Sink()
    async with serving(sink, dead):
        lab = BrokerLab(
            tmp_path,
            broker(
                retry=2,
                backoffPolicy="linear",
                backoffDelay="PT0.5S",
                deadLetterSink={"uri": dead.url},
            ),
            trigger("t", sink.url),
        )
        lab.up()
        await send(client, lab.url, "1")
        for attempts in (1, 2):
            await sink.until(lambda sink, so_many=attempts: len(sink.got) >= so_many)
            await until(lambda: lab.metric("events_retried_total") == 1)
            lab.kill()
            lab.up()
        await dead.until(lambda sink: len(sink.got) == 1)
        assert len(sink.got) == 3
        lab.end()


async def test_retry_after_is_honoured_within_its_bound(tmp_path: pathlib.Path, client: HttpClient) -> None:
    answers = [b"HTTP/1.1 429 \r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n", 202]
    sink = Sink(lambda headers, body: answers.pop(0))
    async with serving(sink):
        delivery = {"retry": 1, "backoffDelay": "PT0.01S", "backoffPolicy": "linear", "retryAfterMax": "PT1S"}
        lab = BrokerLab(tmp_path, broker(**delivery), trigger("t", sink.url))
        lab.up()
        await send(client, lab.url, "1")
        await sink.until(lambda sink: len(sink.got) == 2)
        assert sink.at[1] - sink.at[0] >= 0.98
        lab.end()


async def test_an_ordered_trigger_delivers_one_by_one(tmp_path: pathlib.Path, client: HttpClient) -> None:
    tries: dict[str, int] = {}

    def refusing_some_once(headers: dict[str, str], body: bytes) -> int:
        id = headers["ce-id"]
        tries[id] = tries.get(id, 0) + 1
        return 503 if int(id) % 5 == 0 and tries[id] == 1 else 202

    sink = Sink(refusing_some_once)
    async with serving(sink):
        lab = BrokerLab(
            tmp_path,
            broker(retry=3, backoffPolicy="linear", backoffDelay="PT0.05S"),
            trigger("t", sink.url, ordered=True),
        )
        lab.up()
        for number in range(30):
            await send(client, lab.url, str(number))
        await sink.until(lambda sink: len(sink.got) == 36)
        assert sink.most_active == 1
        taken = [id for index, id in enumerate(sink.ids) if int(id) % 5 or sink.ids[:index].count(id) == 1]
        assert taken == [str(number) for number in range(30)]
        # Nothing came between an event and its second attempt.
        for number in range(0, 30, 5):
            at = sink.ids.index(str(number))
            assert sink.ids[at + 1] == str(number)
        lab.end()


async def test_replies_are_events_and_loops_end(tmp_path: pathlib.Path, client: HttpClient) -> None:
    """The sink answers each event with one more; the hop limit ends it, and the last is a dead letter."""

    def echo(headers: dict[str, str], body: bytes) -> bytes:
        number = int(headers["ce-id"]) + 1
        return (
            f"HTTP/1.1 200 \r\nce-specversion: 1.0\r\nce-id: {number}\r\nce-type: echo\r\nce-source: /echo\r\n"
            "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        ).encode()

    sink, dead = Sink(echo), Sink()
    async with serving(sink, dead):
        lab = BrokerLab(
            tmp_path, broker(deadLetterSink={"uri": dead.url}), trigger("t", sink.url), hop_limit=10
        )
        lab.up()
        await send(client, lab.url, "0")
        await dead.until(lambda sink: len(sink.got) == 1)
        assert sink.ids == [str(number) for number in range(10)]
        assert dead.ids == ["9"]
        assert dead.got[0]["ce-knativeerrorcode"] == "400"
        assert all("ce-knativebrokerttl" not in got for got in sink.got)
        assert lab.metric("replies_total") == 10
        lab.end()


async def test_an_answer_that_is_no_event_is_a_failure(tmp_path: pathlib.Path, client: HttpClient) -> None:
    sink = Sink(lambda headers, body: b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok")
    dead = Sink()
    async with serving(sink, dead):
        lab = BrokerLab(
            tmp_path, broker(retry=1, deadLetterSink={"uri": dead.url}, **DEAD), trigger("t", sink.url)
        )
        lab.up()
        await send(client, lab.url, "1")
        await dead.until(lambda sink: len(sink.got) == 1)
        assert len(sink.got) == 2
        assert dead.got[0]["ce-knativeerrorcode"] == "502"
        lab.end()


async def test_no_answer_in_time_is_tried_again(tmp_path: pathlib.Path, client: HttpClient) -> None:
    behaviours = [None, 202]
    sink = Sink(lambda headers, body: behaviours.pop(0))
    async with serving(sink):
        lab = BrokerLab(tmp_path, broker(retry=1, timeout="PT0.3S", **DEAD), trigger("t", sink.url))
        lab.up()
        await send(client, lab.url, "1")
        await sink.until(lambda sink: len(sink.got) == 2)
        assert sink.at[1] - sink.at[0] >= 0.3
        lab.end()


async def test_filters_and_triggers_that_come_and_go(tmp_path: pathlib.Path, client: HttpClient) -> None:
    every, some, late = Sink(), Sink(), Sink()
    async with serving(every, some, late):
        wanted = [{"cesql": "type LIKE 'order.%' AND int(size) > 3"}]
        lab = BrokerLab(
            tmp_path, broker(), trigger("every", every.url), trigger("some", some.url, filters=wanted)
        )
        lab.up()
        await send(client, lab.url, "1", type="order.placed", size="4")
        await send(client, lab.url, "2", type="order.placed", size="3")
        await send(client, lab.url, "3", type="other", size="9")
        await every.until(lambda sink: len(sink.got) == 3)
        lab.ask(json.dumps(trigger("late", late.url)))
        await send(client, lab.url, "4", type="order.paid", size="5")
        await late.until(lambda sink: len(sink.got) == 1)
        await some.until(lambda sink: len(sink.got) == 2)
        assert (late.ids, some.ids) == (["4"], ["1", "4"])
        lab.ask("remove/default/every")
        await send(client, lab.url, "5", type="order.paid", size="5")
        await late.until(lambda sink: len(sink.got) == 2)
        assert "5" not in every.ids
        lab.end()


async def test_what_came_while_a_sink_was_away_is_delivered_after_a_stop(
    tmp_path: pathlib.Path, client: HttpClient
) -> None:
    """A clean stop waits for what is under way and repeats nothing."""
    sink = Sink(delay_s=0.3)
    async with serving(sink):
        lab = BrokerLab(tmp_path, broker(), trigger("t", sink.url))
        lab.up()
        for number in range(100):
            await send(client, lab.url, str(number))
        await sink.until(lambda sink: sink.active > 0)
        started = time.monotonic()
        await asyncio.get_running_loop().run_in_executor(None, lab.end)
        assert time.monotonic() - started < 30
        lab.up()
        await sink.until(lambda sink: len(sink.counted) == 100)
        assert set(sink.counted.values()) == {1}
        lab.end()
