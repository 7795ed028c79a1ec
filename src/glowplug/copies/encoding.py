"""An exchange → the frames that `frames` reads, as `copy.lua` writes them. Pure; for a server that copies by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from glowplug.copies.exchange import Message
from glowplug.copies.frames import State
from glowplug.copies.settings import Parts, Settings

# A frame's body at most, as in `copy.lua`: so that one finds room in a new socket whatever its headers.
PIECE_BYTES = 32 * 1024
GRPC_STATUS = ("grpc-status", "grpc-message")


def encode(
    id_: str,
    settings: Settings,
    request: Message,
    answer: Message,
    *,
    max_body_bytes: int,
    answer_headers: Iterable[str],
) -> list[bytes]:
    """The frames of the exchange with that id, which no other one to the same reader has.

    Headers are text of single bytes (latin-1).
    """
    head = [settings.about, *_named(request.headers, settings.headers or request.headers)]
    body = b"" if settings.parts is Parts.ANSWER else request.body
    frames = list(_side(id_, "q", head, body, max_body_bytes))
    if settings.parts is Parts.REQUEST or len(body) > max_body_bytes:
        return frames
    wanted = (*answer_headers, *GRPC_STATUS) if answer.is_grpc else answer_headers
    frames += _side(id_, "a", ["", *_named(answer.headers, wanted)], answer.body, max_body_bytes)
    return frames


def _named(headers: Mapping[str, str], wanted: Iterable[str]) -> Iterator[str]:
    for name in wanted:
        value = headers.get(name)
        if value is not None:
            yield name
            yield value


def _side(id_: str, side: str, head: Sequence[str], body: bytes, max_body_bytes: int) -> Iterator[bytes]:
    if len(body) > max_body_bytes:
        yield _frame(id_, side, State.TOO_LARGE, head, b"")
        return
    at = 0
    while len(body) - at >= PIECE_BYTES:
        yield _frame(id_, side, State.MORE, head, body[at : at + PIECE_BYTES])
        head = [""]
        at += PIECE_BYTES
    yield _frame(id_, side, State.LAST, head, body[at:] if at else body)


def _frame(id_: str, side: str, state: State, head: Sequence[str], body: bytes) -> bytes:
    texts = "\0".join((id_, side, state.value, *head)).encode("latin-1", "replace")
    return b"%08x%08x%s%s" % (len(texts), len(body), texts, body)
