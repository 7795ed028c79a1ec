"""What the broker's ingress takes and refuses, over a real socket."""

from __future__ import annotations

import asyncio
import json
import pathlib
import shutil
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent
from local.broker_lab import BrokerLab, Sink, broker, headers, send, serving, trigger, until

from glowplug.broker.http_client import HttpClient
from glowplug.broker.verdict import Answer

STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
EVENT = {"specversion": "1.0", "id": "1", "type": "t", "source": "/s"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerLab]:
    lab = BrokerLab(tmp_path_factory.mktemp("broker"), broker(), max_body_bytes=2**20)
    lab.up()
    yield lab
    lab.end()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient(2**20)
    yield client
    client.close()


def written(lab: BrokerLab) -> int:
    return int(json.loads(lab.ask("events/default/default") or "{}")["last"])


def newest(lab: BrokerLab) -> dict[str, object]:
    page = lab.ask(f"events/default/default/after/{written(lab) - 1}") or ""
    event: dict[str, object] = json.loads(page)["event"]
    return event


async def test_the_sdks_forms_are_taken(lab: BrokerLab, client: HttpClient) -> None:
    attributes = {"id": "7", "type": "t", "source": "/s", "subject": "größe 1", "tenant": "x"}
    attributes["datacontenttype"] = "application/json"
    for write in (to_binary, to_structured):
        sent, body = write(CloudEvent(attributes, {"n": 1}))
        assert (await client.post(lab.url, sent, body, 30)).status == 202
        event = newest(lab)
        assert (event["id"], event["tenant"], event["data"]) == ("7", "x", {"n": 1})
        assert str(event["knativearrivaltime"]).endswith("Z")
    assert event["subject"] == "größe 1"


async def test_a_batch_is_taken_whole_or_not_at_all(lab: BrokerLab, client: HttpClient) -> None:
    before = written(lab)
    batch = [{**EVENT, "id": str(number), "data": number} for number in range(5)]
    assert (await client.post(lab.url, BATCH, json.dumps(batch).encode(), 30)).status == 202
    assert written(lab) == before + 5
    del batch[3]["source"]
    answer = await client.post(lab.url, BATCH, json.dumps(batch).encode(), 30)
    assert (answer.status, answer.body) == (400, b"event 3: source is missing\n")
    assert written(lab) == before + 5
    assert (await client.post(lab.url, BATCH, b"[]", 30)).status == 202


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"ce-id": ""}, 400, "id is empty"),
        ({"ce-type": None, "ce-source": None}, 400, "source, type are missing"),
        ({"ce-specversion": "0.2"}, 400, "specversion = '0.2'"),
        ({"ce-specversion": None}, 400, "specversion is missing"),
        ({"ce-time": "yesterday"}, 400, "time = 'yesterday'"),
        ({"ce-tenant_id": "x"}, 400, "'tenant_id' is no attribute"),
        ({"ce-tenant": "%ff"}, 400, "tenant is not UTF-8"),
        ({"ce-knativebrokerttl": "1"}, 400, "knativebrokerttl = 1"),
        ({"ce-specversion": None, "content-type": "application/cloudevents+avro"}, 415, "avro"),
    ],
)
async def test_what_is_malformed_is_named(
    lab: BrokerLab, client: HttpClient, changes: dict[str, str | None], status: int, said: str
) -> None:
    sent = {name: value for name, value in {**headers("1"), **changes}.items() if value is not None}
    answer = await client.post(lab.url, sent, b"{}", 30)
    assert (answer.status, said in answer.body.decode()) == (status, True), answer
    answer = await client.post(lab.url, headers("1"), b"{}", 30)
    assert answer.status == 202


async def test_where_there_is_no_broker(lab: BrokerLab, client: HttpClient) -> None:
    root = lab.url.rpartition("/")[0]
    assert (await send(client, f"{root}/other", "1")).status == 404
    assert (await send(client, root, "1")).status == 404
    assert _raw(lab, b"GET /default/default HTTP/1.1\r\nhost: x\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert b"allow: POST" in _raw(lab, b"OPTIONS /default/default HTTP/1.1\r\nhost: x\r\n\r\n")


async def test_a_large_body_is_refused_before_it_is_read(lab: BrokerLab, client: HttpClient) -> None:
    size = 64 * 2**20
    answer = _raw(
        lab,
        b"POST /default/default HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
        % size,
    )
    assert answer.startswith(b"HTTP/1.1 413 ") and b"expected at most 1048576" in answer
    before = lab.memory_mib()
    # A client that sends it all the same reads the refusal behind it.
    assert (await client.post(lab.url, headers("1"), bytes(size), 60)).status == 413
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    head = b"POST /default/default HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await asyncio.get_running_loop().run_in_executor(
        None, _raw, lab, head + chunk * 64 + b"0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert lab.memory_mib() < before + 16
    assert (await send(client, lab.url, "1")).status == 202


async def test_no_http_is_answered_and_closed(lab: BrokerLab, client: HttpClient) -> None:
    assert _raw(lab, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    long = b"POST / HTTP/1.1\r\nx: " + b"x" * 70_000 + b"\r\n\r\n"
    assert _raw(lab, long).startswith(b"HTTP/1.1 431 ")
    both = (
        b"POST /default/default HTTP/1.1\r\nhost: x\r\n" + b"ce-id: 1\r\n" * 2 + b"content-length: 0\r\n\r\n"
    )
    assert b"id is given twice" in _raw(lab, both)
    assert (await send(client, lab.url, "1")).status == 202


async def test_a_full_disk_loses_nothing(tmp_path: pathlib.Path, client: HttpClient) -> None:
    """Events are refused with 507 while there is no room, and what was accepted is delivered after."""
    sink = Sink()
    lab = BrokerLab(tmp_path, broker(), history_events=0)
    lab.file_limit = 6 * 2**20
    lab.up()
    accepted: list[str] = []
    refused: list[Answer] = []
    async with serving(sink):
        lab.ask(json.dumps(trigger("t", sink.url)))
        sink.behaviour = lambda headers, body: None
        for number in range(400):
            answer = await send(client, lab.url, str(number), bytes(64 * 1024))
            if answer.status == 202:
                accepted.append(str(number))
            else:
                refused.append(answer)
        assert {answer.status for answer in refused} == {507}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert b"what was accepted is safe" in refused[0].body
        assert 20 < len(accepted) < 200
        lab.kill()
        lab.file_limit = 0
        lab.up()
        sink.behaviour = lambda headers, body: 202
        lab.ask(json.dumps(trigger("t", sink.url)))
        await sink.until(lambda sink: set(accepted) <= set(sink.ids))
        assert (await send(client, lab.url, "more")).status == 202
        lab.end()


async def test_a_reserve_is_left_for_what_is_delivered(tmp_path: pathlib.Path, client: HttpClient) -> None:
    free = shutil.disk_usage(tmp_path).free
    lab = BrokerLab(tmp_path, broker(), reserve_bytes=2 * free)
    lab.up()
    answer = await send(client, lab.url, "1")
    assert (answer.status, b"MiB are left on the disk" in answer.body) == (507, True)
    lab.end()


async def test_the_log_is_trimmed(tmp_path: pathlib.Path, client: HttpClient) -> None:
    sink = Sink()
    async with serving(sink):
        lab = BrokerLab(tmp_path, broker(), trigger("t", sink.url), history_events=10)
        lab.up()
        for number in range(100):
            await send(client, lab.url, str(number))
        await sink.until(lambda sink: len(sink.got) == 100)

        def kept() -> list[int]:
            page = lab.ask("events/default/default/after/0") or ""
            return [json.loads(line)["number"] for line in page.splitlines()]

        await until(lambda: kept() == list(range(91, 101)))
        lab.end()


def _raw(lab: BrokerLab, data: bytes) -> bytes:
    """The whole answer to what was written."""
    with socket.create_connection(("127.0.0.1", lab.port), timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))
