"""What a server writes of an exchange is what the reader of copies finds, in every mode and size."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.copies.copies import Copies, GivenUp
from glowplug.copies.encoding import PIECE_BYTES, encode
from glowplug.copies.exchange import Exchange, Message
from glowplug.copies.frames import take_frames
from glowplug.copies.settings import Parts, Settings, Taker, parse_takers, takers_text
from glowplug.spec import names

LIMIT = 3 * PIECE_BYTES
REQUEST = {":method": "POST", ":path": "/v2/models/m/infer", "ce-id": "1", "x-user": "ann\xe9"}
ANSWER = {":status": "200", "content-type": "application/json", "x-more": "1"}
WANTED = (":status", "content-type")
SIZES = (0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, LIMIT - 1, LIMIT)


class Taken:
    """Wants everything."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.lost: list[GivenUp] = []

    def wants(self, about: Mapping[str, str], request: Mapping[str, str]) -> bool:
        return True

    def copied(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def given_up(self, about: Mapping[str, str], why: GivenUp) -> None:
        self.lost.append(why)


def read(settings: Settings, request: Message, answer: Message) -> Taken:
    taken = Taken()
    copies = Copies(taken, max_body_bytes=LIMIT, max_held_bytes=2**28)
    frames = encode("1", settings, request, answer, max_body_bytes=LIMIT, answer_headers=WANTED)
    buffer = bytearray(b"".join(frames))
    for part in take_frames(buffer):
        copies.take(part, 0.0)
    assert not buffer and copies.held_bytes == 0
    return taken


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("other", (0, LIMIT))
def test_bodies_of_every_size(size: int, other: int) -> None:
    request, answer = Message(REQUEST, b"q" * size), Message(ANSWER, b"a" * other)
    (exchange,) = read(Settings.of({"service": "s"}), request, answer).exchanges
    assert (exchange.request.body, exchange.answer.body) == (request.body, answer.body)
    assert exchange.about == {"service": "s"}
    assert dict(exchange.request.headers) == {**REQUEST, "x-user": "ann\N{REPLACEMENT CHARACTER}"}
    assert dict(exchange.answer.headers) == {name: ANSWER[name] for name in WANTED}


@pytest.mark.parametrize(("request_size", "answer_size"), [(LIMIT + 1, 1), (1, LIMIT + 1)])
def test_what_is_too_large_is_said_to_be(request_size: int, answer_size: int) -> None:
    taken = read(
        Settings.of({"service": "s"}),
        Message(REQUEST, b"q" * request_size),
        Message(ANSWER, b"a" * answer_size),
    )
    assert taken.lost == [GivenUp.TOO_LARGE] and not taken.exchanges


def test_a_mode_copies_what_it_tells_of() -> None:
    request, answer = Message(REQUEST, b"qq"), Message(ANSWER, b"aaa")
    told = {names.COPY_REQUEST_ONLY: "true"}
    (exchange,) = read(Settings.of(told, Parts.REQUEST, ("ce-id", "none")), request, answer).exchanges
    assert (exchange.request.body, exchange.answer) == (b"qq", Message({}))
    assert dict(exchange.request.headers) == {"ce-id": "1"}
    # And a request too large to be copied has an answer that may not be.
    large = Message(REQUEST, b"q" * (LIMIT + 1))
    (exchange,) = read(Settings.of({"service": "s"}, Parts.ANSWER, ("ce-id",)), large, answer).exchanges
    assert (exchange.request.body, exchange.answer.body) == (b"", b"aaa")


def test_grpcs_status_comes_with_the_answer() -> None:
    headers = {":status": "200", "content-type": "application/grpc", "grpc-status": "3", "grpc-message": "no"}
    (exchange,) = read(Settings.of({"service": "s"}), Message(REQUEST), Message(headers)).exchanges
    assert dict(exchange.answer.headers) == headers


NAME = st.from_regex(r"[a-z0-9-]{1,9}", fullmatch=True)


@given(st.dictionaries(st.text(), st.text(), max_size=3), st.sampled_from(Parts), st.lists(NAME, max_size=3))
def test_settings_are_a_headers_value(about: dict[str, str], parts: Parts, headers: list[str]) -> None:
    settings = Settings.of(about, parts, headers)
    text = settings.to_header()
    assert Settings.from_header(text) == settings
    assert text.isascii() and text.isprintable() and text.strip() == text
    assert json.loads(settings.about) == about


@pytest.mark.parametrize("text", ["", "{", "{}", "{} some", "all {}"])
def test_what_are_no_settings_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError):
        Settings.from_header(text)


def test_takers_come_back_and_keep_their_secret() -> None:
    takers = (Taker("secret-name", "/s", 1, (":status",), "/lost"), Taker("other", "/t", 2, (), ""))
    assert parse_takers(takers_text(takers)) == takers
    assert "secret-name" not in repr(takers)
