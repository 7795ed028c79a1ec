"""Copies from Envoy's messages: whole ones, unwanted ones, cut ones, and what they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.shadow.messages import ABOUT, REQUEST, body_part, headers_part, trailers_part

from glowplug.copies.copies import Copies, GivenUp
from glowplug.copies.exchange import Exchange
from glowplug.copies.parts import PROCESS, parse_part
from glowplug.wire.http2 import status

START = {":path": PROCESS, "content-type": "application/grpc", **ABOUT}


class Keeper:
    """Wants everything, or nothing."""

    def __init__(self, is_wanting: bool = True) -> None:
        self.is_wanting = is_wanting
        self.exchanges: list[Exchange] = []
        self.lost: list[GivenUp] = []

    def wants(self, about: Mapping[str, str], request: Mapping[str, str]) -> bool:
        assert about == ABOUT and request[":method"] == "POST"
        return self.is_wanting

    def copied(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def given_up(self, about: Mapping[str, str], why: GivenUp) -> None:
        assert about == ABOUT
        self.lost.append(why)


class Stream:
    """As much of `wire.http2.Stream` as a handler uses."""

    def __init__(self) -> None:
        self.state: Any = None
        self.code: int | None = None

    def reply_error(self, code: int, text: str) -> None:
        if self.code is None:
            self.code = code


def begin(keeper: Keeper, *, body: int = 1000, held: int = 10_000) -> tuple[Copies, Stream]:
    copies = Copies(keeper, max_body_bytes=body, max_held_bytes=held)
    stream = Stream()
    copies.request(stream, START)  # type: ignore[arg-type]
    return copies, stream


def feed(copies: Copies, stream: Stream, *parts: bytes) -> None:
    for part in parts:
        copies.message(stream, part)  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.lists(st.binary(max_size=40), max_size=5))
def test_bodies_come_in_pieces(request: list[bytes], reply: list[bytes]) -> None:
    keeper = Keeper()
    copies, stream = begin(keeper)
    feed(copies, stream, headers_part(False, REQUEST))
    feed(copies, stream, *[body_part(False, piece) for piece in request], body_part(False, b"", is_last=True))
    feed(copies, stream, headers_part(True, {":status": "200", "x": "y"}))
    feed(copies, stream, *[body_part(True, piece) for piece in reply])
    assert not keeper.exchanges and stream.code is None
    feed(copies, stream, body_part(True, b".", is_last=True))
    (exchange,) = keeper.exchanges
    assert exchange.about == ABOUT
    assert (exchange.request.headers, exchange.request.body) == (REQUEST, b"".join(request))
    assert exchange.answer.headers == {":status": "200", "x": "y"}
    assert exchange.answer.body == b"".join(reply) + b"."
    assert stream.code == status.OK and copies.held_bytes == 0 and keeper.lost == []


def test_grpcs_status_is_in_the_trailers() -> None:
    keeper = Keeper()
    copies, stream = begin(keeper)
    feed(copies, stream, headers_part(False, REQUEST, is_last=True), headers_part(True, {":status": "200"}))
    feed(copies, stream, body_part(True, b"abc"), trailers_part({"grpc-status": "13"}))
    (exchange,) = keeper.exchanges
    assert exchange.answer.headers == {":status": "200", "grpc-status": "13"}


def test_what_is_not_wanted_is_ended_at_once() -> None:
    keeper = Keeper(is_wanting=False)
    copies, stream = begin(keeper)
    feed(copies, stream, headers_part(False, REQUEST))
    assert stream.code == status.OK
    # What was on the way.
    feed(copies, stream, body_part(False, b"x"), headers_part(True, {":status": "200"}, is_last=True))
    copies.reset(stream)  # type: ignore[arg-type]
    assert keeper.exchanges == [] and keeper.lost == []


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_large_body_is_given_up_as_soon_as_it_is_known(is_announced: bool) -> None:
    keeper = Keeper()
    copies, stream = begin(keeper, body=10)
    length = {"content-length": "11"} if is_announced else {}
    feed(copies, stream, headers_part(False, {**REQUEST, **length}))
    if not is_announced:
        feed(copies, stream, body_part(False, b"12345678"), body_part(False, b"901"))
    assert (keeper.lost, stream.code, copies.held_bytes) == ([GivenUp.TOO_LARGE], status.OK, 0)


def test_all_together_take_no_more_than_their_limit() -> None:
    keeper = Keeper()
    copies, first = begin(keeper, held=15)
    second = Stream()
    copies.request(second, START)  # type: ignore[arg-type]
    for stream in (first, second):
        feed(copies, stream, headers_part(False, REQUEST), body_part(False, b"1234567890"))
    assert (keeper.lost, first.code, second.code) == ([GivenUp.NO_ROOM], None, status.OK)
    assert copies.held_bytes == 10


@pytest.mark.parametrize("how", ["reset", "ended"])
def test_a_request_that_ends_before_its_answer(how: str) -> None:
    keeper = Keeper()
    copies, stream = begin(keeper)
    feed(copies, stream, headers_part(False, REQUEST), body_part(False, b"123"))
    getattr(copies, how)(stream)
    assert (keeper.lost, keeper.exchanges, copies.held_bytes) == ([GivenUp.CUT], [], 0)


def test_another_method_is_refused() -> None:
    copies, stream = Copies(Keeper(), max_body_bytes=1, max_held_bytes=1), Stream()
    copies.request(stream, {":path": "/x"})  # type: ignore[arg-type]
    feed(copies, stream, headers_part(False, REQUEST))
    assert stream.code == status.UNIMPLEMENTED


@given(st.binary(max_size=60))
def test_any_bytes_are_survived(data: bytes) -> None:
    keeper = Keeper(is_wanting=True)
    keeper.wants = lambda about, request: True  # type: ignore[method-assign]
    copies, stream = begin(keeper)
    feed(copies, stream, data)
    copies.reset(stream)  # type: ignore[arg-type]
    assert copies.held_bytes == 0


def test_a_header_that_comes_twice_is_joined() -> None:
    both = headers_part(False, {"a": "1", "b": "2"}).replace(b"\x01b", b"\x01a")
    part = parse_part(both)
    assert part is not None and part.headers == {"a": "1,2"}
