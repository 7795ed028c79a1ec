"""Copies from their parts: whole ones, unwanted ones, cut ones, and what they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.copies.copies import Copies, GivenUp
from glowplug.copies.exchange import Exchange
from glowplug.copies.frames import Part, State
from glowplug.spec import names

ABOUT = {"service": "default/flights"}
REQUEST = {":path": "/v2/models/flights/infer"}
ANSWER = {":status": "200"}
MORE, LAST = State.MORE, State.LAST


class Keeper:
    """Wants everything, or nothing."""

    def __init__(self, is_wanting: bool = True) -> None:
        self.is_wanting = is_wanting
        self.exchanges: list[Exchange] = []
        self.lost: list[GivenUp] = []

    def wants(self, about: Mapping[str, str], request: Mapping[str, str]) -> bool:
        assert request == REQUEST
        return self.is_wanting

    def copied(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def given_up(self, about: Mapping[str, str], why: GivenUp) -> None:
        assert about == ABOUT
        self.lost.append(why)


def begin(keeper: Keeper, *, body: int = 1000, held: int = 1_000_000) -> Copies:
    return Copies(keeper, max_body_bytes=body, max_held_bytes=held, max_age_s=600.0)


def request(body: bytes = b"", state: State = LAST, id: str = "1", **more: Any) -> Part:
    return Part(id, False, state, more.pop("about", ABOUT), more.pop("headers", REQUEST), body)


def answer(body: bytes = b"", state: State = LAST, id: str = "1") -> Part:
    return Part(id, True, state, {}, ANSWER, body)


def feed(copies: Copies, *parts: Part, now: float = 0.0) -> None:
    for part in parts:
        copies.take(part, now)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.lists(st.binary(max_size=40), max_size=5))
def test_bodies_come_in_pieces(sent: list[bytes], reply: list[bytes]) -> None:
    keeper = Keeper()
    copies = begin(keeper)
    feed(copies, request(sent[0], MORE))
    feed(copies, *[Part("1", False, MORE, body=piece) for piece in sent[1:]], Part("1", False, LAST))
    feed(copies, *[answer(piece, MORE) for piece in reply])
    assert not keeper.exchanges
    feed(copies, Part("1", True, LAST, {}, {"grpc-status": "13"}, b"."))
    (exchange,) = keeper.exchanges
    assert exchange.about == ABOUT
    assert (exchange.request.headers, exchange.request.body) == (REQUEST, b"".join(sent))
    assert exchange.answer.headers == {**(ANSWER if reply else {}), "grpc-status": "13"}
    assert exchange.answer.body == b"".join(reply) + b"."
    assert exchange.began_at <= exchange.ended_at
    assert copies.held_bytes == 0 and keeper.lost == []


def test_of_requests_alone_none_waits_for_its_answer() -> None:
    keeper = Keeper()
    copies = begin(keeper)
    feed(copies, request(b"x", about={names.COPY_REQUEST_ONLY: "true"}))
    assert keeper.exchanges[0].request.body == b"x" and copies.held_bytes == 0


def test_what_is_not_wanted_or_not_known_is_left_alone() -> None:
    keeper = Keeper(is_wanting=False)
    copies = begin(keeper)
    feed(copies, request(b"x", MORE), Part("1", False, LAST), answer(), answer(id="of another life"))
    assert keeper.exchanges == [] and keeper.lost == [] and copies.held_bytes == 0


@pytest.mark.parametrize(
    "parts",
    [
        (request(b"", State.TOO_LARGE),),
        (request(b"12345678", MORE), Part("1", False, MORE, body=b"901")),
        (request(b"1"), answer(b"", State.TOO_LARGE)),
        (request(b"1"), answer(b"12345678901")),
    ],
)
def test_a_large_body_is_given_up_as_soon_as_it_is_known(parts: tuple[Part, ...]) -> None:
    keeper = Keeper()
    copies = begin(keeper, body=10)
    feed(copies, *parts)
    assert (keeper.lost, keeper.exchanges, copies.held_bytes) == ([GivenUp.TOO_LARGE], [], 0)
    feed(copies, answer())
    assert keeper.exchanges == []


def test_all_together_take_no_more_than_their_limit_and_the_oldest_go() -> None:
    keeper = Keeper()
    copies = begin(keeper, held=10_000)
    for number in range(100):
        feed(copies, request(b"x" * 500, id=str(number)))
        assert copies.held_bytes <= 10_000
    assert set(keeper.lost) == {GivenUp.NO_ROOM} and 90 < len(keeper.lost) < 100
    feed(copies, answer(id="0"), answer(id="99"))
    assert len(keeper.exchanges) == 1


def test_a_request_whose_answer_never_comes_is_given_up_when_it_is_too_old() -> None:
    keeper = Keeper()
    copies = begin(keeper)
    feed(copies, request(id="1"), now=0.0)
    feed(copies, request(id="2"), now=400.0)
    copies.expire(600.0)
    assert keeper.lost == []
    copies.expire(601.0)
    assert keeper.lost == [GivenUp.CUT]
    feed(copies, answer(id="1"), answer(id="2"))
    assert len(keeper.exchanges) == 1 and copies.held_bytes == 0
