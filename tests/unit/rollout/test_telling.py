"""Conditions, KServe's settings, and CloudEvents to a sink."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from glowplug.errors import ConfigError
from glowplug.rollout import conditions, platform
from glowplug.rollout.sink import CloudEvent, Sink, moment
from glowplug.rollout.state import Member, Phase, State
from glowplug.rollout.verdict import Outcome, Verdict
from glowplug.spec.names import ROLLOUT_KEYS

MEMBERS = {"predictor": Member("f-1", "f-1", "f-2")}


@pytest.mark.parametrize(
    ("state", "status", "reason", "message"),
    [
        (State(Phase.STARTING, MEMBERS, 0), "True", "Starting", "f-2 is not ready, f-1 has all requests"),
        (State(Phase.PROGRESSING, MEMBERS, 10), "True", "Progressing", "f-2 is to have 10 %, f-1 the rest"),
        (State(Phase.PROGRESSING, MEMBERS, 10, hold="why"), "True", "Held", "f-2 is to have 10 %, f-1 the rest; why"),
        (State(Phase.PROGRESSING, MEMBERS, 10, is_paused=True), "True", "Paused", "f-2 is to have 10 %, f-1 the rest"),
        (State(Phase.PROMOTED, MEMBERS), "False", "Promoted", "f-2 has all requests"),
        (State(Phase.ROLLED_BACK, MEMBERS, 0, hold="why"), "False", "RolledBack", "f-1 has all requests; why"),
    ],
)  # fmt: skip
def test_conditions_say_how_far_it_is(state: State, status: str, reason: str, message: str) -> None:
    (found,) = conditions.conditions_of(state)
    assert found == {"type": "RolloutProgressing", "status": status, "reason": reason, "message": message}


def test_other_conditions_stay_and_times_are_kept() -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    state = State(Phase.PROGRESSING, MEMBERS, 10, verdict=Verdict(Outcome.INCONCLUSIVE, "90 requests"))
    first = conditions.merged([ready], conditions.conditions_of(state), 0.0)
    assert [each["type"] for each in first] == ["Ready", "RolloutHealthy", "RolloutProgressing"]
    assert first[0] == ready
    later = conditions.merged(first, conditions.conditions_of(state), 60.0)
    assert later == first
    failed = State(Phase.ROLLED_BACK, MEMBERS, 0, verdict=Verdict(Outcome.FAIL, "10 % errors"))
    after = {each["type"]: each for each in conditions.merged(first, conditions.conditions_of(failed), 60.0)}
    assert after["RolloutHealthy"]["lastTransitionTime"] == "1970-01-01T00:01:00Z"
    assert conditions.merged(first, [], 60.0) == [ready]


def test_long_messages_fit() -> None:
    state = State(Phase.ROLLED_BACK, MEMBERS, 0, hold="x" * 5000)
    assert len(conditions.conditions_of(state)[0]["message"]) == 1024


def test_kserve_must_keep_the_annotations_out_of_revisions() -> None:
    kept = {"serviceAnnotationDisallowedList": ["a/b", *ROLLOUT_KEYS]}
    platform.check({"data": {"inferenceService": json.dumps(kept)}})
    for data in (
        {},
        {"inferenceService": "{}"},
        {"inferenceService": '{"serviceAnnotationDisallowedList": null}'},
    ):
        with pytest.raises(ConfigError) as raised:
            platform.check({"data": data})
        assert all(key in raised.value.message and key in raised.value.hint for key in ROLLOUT_KEYS)
    partial = {"serviceAnnotationDisallowedList": ["a/b", *ROLLOUT_KEYS[1:]]}
    with pytest.raises(ConfigError) as raised:
        platform.check({"data": {"inferenceService": json.dumps(partial)}})
    assert f"lacks {ROLLOUT_KEYS[0]};" in raised.value.message
    assert '"a/b"' in raised.value.hint
    with pytest.raises(ConfigError, match="is not JSON"):
        platform.check({"data": {"inferenceService": "{"}})


class Receiver:
    """Answers with each of `answers`, the last one for ever; an exception is a connection that fails."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers: Iterator[int | Exception] = iter(answers)
        self.answer: int | Exception = 202
        self.got: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.answer = next(self.answers, self.answer)
        if isinstance(self.answer, Exception):
            raise self.answer
        self.got.append(request)
        return httpx2.Response(self.answer)


@contextlib.asynccontextmanager
async def sending(receiver: Receiver, patience_s: float = 60.0) -> AsyncIterator[Sink]:
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(receiver)) as http:
        sink = Sink("http://sink.example/", http, patience_s, pause_s=0.001)
        task = asyncio.create_task(sink.run())
        yield sink
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def settled(sink: Sink, id: str) -> None:
    async def wait() -> None:
        while not sink.is_settled(id):  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), 20)


def event(id: str = "1", **data: Any) -> CloudEvent:
    return CloudEvent(id, "/here", "dev.glowplug.rollout.promoted", "f", moment(0.5), data)


async def test_an_event_arrives_in_binary_form() -> None:
    receiver = Receiver(202)
    async with sending(receiver) as sink:
        sink.offer(event(reason="besser, ü"))
        sink.offer(event())
        await settled(sink, "1")
    (request,) = receiver.got
    assert request.headers["ce-type"] == "dev.glowplug.rollout.promoted"
    assert request.headers["ce-specversion"] == "1.0"
    assert (request.headers["ce-id"], request.headers["ce-subject"]) == ("1", "f")
    assert request.headers["ce-time"] == "1970-01-01T00:00:00.500Z"
    assert json.loads(request.content) == {"reason": "besser, ü"}


@pytest.mark.parametrize("trouble", [500, 503, 429, 404, httpx2.ConnectError("refused")])
async def test_what_may_go_better_later_is_tried_again(trouble: int | Exception) -> None:
    receiver = Receiver(trouble, trouble, 202)
    async with sending(receiver) as sink:
        sink.offer(event())
        await settled(sink, "1")
    assert receiver.answer == 202


async def test_a_password_in_an_address_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(500, httpx2.ConnectError("refused"), 400)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(receiver)) as http:
        sink = Sink("http://me:secret@sink.example:8/here?key=secret", http, 0.02, pause_s=0.001)
        task = asyncio.create_task(sink.run())
        sink.offer(event())
        await settled(sink, "1")
        receiver.answers = iter([500] * 1000)
        sink.offer(event("2"))
        await settled(sink, "2")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert "http://sink.example:8/here refuses" in caplog.text
    assert "http://sink.example:8/here answers 500" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("trouble", [400, httpx2.ConnectError("refused")])
async def test_what_does_not_go_is_given_up_and_holds_nothing_up(trouble: int | Exception) -> None:
    receiver = Receiver(trouble)
    async with sending(receiver, patience_s=0.02) as sink:
        sink.offer(event())
        sink.offer(event("2"))
        assert not sink.is_settled("2")
        await settled(sink, "2")
        assert sink.is_settled("1")
