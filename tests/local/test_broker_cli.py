"""`glowplug events` against a real broker; only the API that serves its pages is stood in for."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from local.broker_lab import NAMESPACE, BrokerLab, Sink, broker, serving, trigger, until
from typer.testing import CliRunner

from glowplug.cli import events, kube
from glowplug.errors import NotFound


class Api:
    """The pages and the one object that the verbs ask for."""

    namespace = NAMESPACE

    def __init__(self, lab: BrokerLab) -> None:
        self._lab = lab

    @contextmanager
    def stream(self, path: str, params: Mapping[str, str]) -> Iterator[Any]:
        text = self._lab.ask(path.strip("/"))
        if text is None:
            raise NotFound("the server could not find the requested resource")
        yield SimpleNamespace(read=text.encode)

    def resource_named(self, name: str) -> kube.Resource:
        assert name == "brokers.eventing.knative.dev"
        return kube.Resource("eventing.knative.dev/v1", "Broker", "brokers", True)

    def get(self, path: str) -> dict[str, Any]:
        assert path.endswith("/namespaces/default/brokers/default")
        return {"status": {"address": {"url": self._lab.url}}}


@pytest.fixture
def lab(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerLab]:
    lab = BrokerLab(tmp_path, broker())
    lab.up()
    monkeypatch.setattr(kube, "connect", lambda *_: Api(lab))
    yield lab
    lab.end()


def glowplug(*words: str, stdin: bytes = b"") -> str:
    result = CliRunner().invoke(events.app, list(words), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_sent_seen_and_sent_again(lab: BrokerLab) -> None:
    id = glowplug("send", "--type", "a.b", "-d", "-", "-e", "tenant=x y", stdin=b'{"n":\n 1}').strip()
    glowplug("send", "--type", "c.d", "--id", "second")
    first, second = lines(glowplug("tail", "--no-follow", "--after", "0"))
    assert (first["number"], second["number"]) == (1, 2)
    assert (first["event"]["id"], first["event"]["tenant"], first["event"]["data"]) == (id, "x y", {"n": 1})
    assert (second["event"]["id"], "data" in second["event"]) == ("second", False)
    assert [each["number"] for each in lines(glowplug("tail", "--no-follow", "--type", "c.*"))] == [2]
    glowplug("replay", "--after", "0", "--before", "2")
    again = lines(glowplug("tail", "--no-follow", "--after", "2"))
    assert [each["event"]["id"] for each in again] == [id]
    assert again[0]["event"]["data"] == {"n": 1}


async def test_dead_letters(lab: BrokerLab) -> None:
    sink = Sink(lambda headers, body: b"HTTP/1.1 422 \r\ncontent-length: 7\r\n\r\nno such")
    loop = asyncio.get_running_loop()
    async with serving(sink):
        lab.ask(json.dumps(trigger("t", sink.url)))
        await loop.run_in_executor(None, glowplug, "send", "--type", "a", "--id", "1")
        (letter,) = await until(lambda: lines(glowplug("dead-letters")))
    assert (letter["trigger"], letter["code"], letter["reason"]) == ("t", 422, "no such")
    assert letter["event"]["id"] == "1"


def test_a_broker_that_there_is_not(lab: BrokerLab) -> None:
    with pytest.raises(NotFound, match="nothing is known of events"):
        glowplug("tail", "--no-follow", "--broker", "other")


def test_each_verb_has_an_example() -> None:
    for verb in ("send", "tail", "replay", "dead-letters"):
        assert f"Example: glowplug events {verb}" in glowplug(verb, "--help")
