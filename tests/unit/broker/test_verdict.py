"""What follows from a sink's answer."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.broker.verdict import Again, Answer, Failure, GivenUp, Taken, delay_s, error_attributes, judge
from glowplug.spec.eventing import Backoff, Delivery

NOW = 1_800_000_000.0
DELIVERY = Delivery(retry=3, backoff=Backoff.LINEAR, delay_s=2.0)
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "/s"}


@pytest.mark.parametrize("status", [200, 202, 204])
def test_taken(status: int) -> None:
    assert judge(DELIVERY, 1, Answer(status), NOW) == Taken()


@pytest.mark.parametrize("status", [0, 404, 408, 409, 429, 500, 502, 503, 599])
def test_tried_again(status: int) -> None:
    verdict = judge(DELIVERY, 2, Answer(status), NOW)
    assert isinstance(verdict, Again)
    assert (verdict.at, verdict.attempts) == (NOW + 4, 2)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 410, 413, 422])
def test_given_up_at_once(status: int) -> None:
    assert judge(DELIVERY, 1, Answer(status, {}, b"no"), NOW) == GivenUp(Failure(status, b"no"))


def test_given_up_after_the_last_retry() -> None:
    assert isinstance(judge(DELIVERY, 3, Answer(500), NOW), Again)
    assert isinstance(judge(DELIVERY, 4, Answer(500), NOW), GivenUp)
    no_answer = judge(Delivery(), 1, Answer(0, {}, b"nobody listens"), NOW)
    assert no_answer == GivenUp(Failure(500, b"dispatch error: nobody listens"))


def test_the_wait_grows() -> None:
    exponential = Delivery(backoff=Backoff.EXPONENTIAL, delay_s=0.2)
    assert [delay_s(exponential, retry) for retry in (1, 2, 3)] == [0.4, 0.8, 1.6]
    assert [delay_s(DELIVERY, retry) for retry in (1, 2, 3)] == [2, 4, 6]
    assert delay_s(exponential, 10_000) == 86_400


@pytest.mark.parametrize(
    ("status", "text", "most", "wait_s"),
    [
        (429, "7", 60.0, 7),
        (503, "7", 60.0, 7),
        (503, "700", 60.0, 60),
        (503, "1", 60.0, 2),
        (500, "7", 60.0, 2),
        (503, "7", None, 2),
        (503, "7", 0.0, 2),
        (503, "soon", 60.0, 2),
        (503, "-7", 60.0, 2),
        (503, "Fri, 15 Jan 2027 08:00:30 GMT", 60.0, 30),
    ],
)
def test_retry_after(status: int, text: str, most: float | None, wait_s: float) -> None:
    delivery = Delivery(retry=1, backoff=Backoff.LINEAR, delay_s=2.0, retry_after_max_s=most)
    verdict = judge(delivery, 1, Answer(status, {"retry-after": text}), NOW)
    assert isinstance(verdict, Again)
    assert verdict.at - NOW == pytest.approx(wait_s)


def test_answers_that_are_events() -> None:
    reply = judge(DELIVERY, 1, Answer(200, EVENT, b""), NOW)
    assert isinstance(reply, Taken) and reply.reply is not None
    assert reply.reply.attributes["id"] == "1"
    for headers, body in (
        ({}, b"ok"),
        ({**EVENT, "ce-id": ""}, b""),
        ({"content-type": "application/cloudevents-batch+json"}, b"[]"),
    ):
        verdict = judge(DELIVERY, 1, Answer(200, headers, body), NOW)
        assert isinstance(verdict, Again) and verdict.failure.code == 502


@given(st.binary(max_size=5000))
def test_what_a_dead_letter_says(said: bytes) -> None:
    found = error_attributes(Failure(422, said), "http://sink/")
    data = str(found["knativeerrordata"])
    assert len(data) <= 1024
    assert said.startswith(base64.b64decode(data))
    assert len(said) > 768 or base64.b64decode(data) == said
