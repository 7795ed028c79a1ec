"""A request and its answer, as copies of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """Headers (names in lower case; HTTP/2's `:path`, `:status` ... among them) and the body as it was sent.

    The trailers are among the headers.
    """

    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_grpc(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/grpc")


@dataclass(frozen=True, slots=True)
class Exchange:
    """`about` is what the route said of the request: see `router.copies`.

    Times are seconds since the epoch: when the request was seen, and when the last of its answer was.
    """

    about: Mapping[str, str]
    request: Message
    answer: Message
    began_at: float = 0.0
    ended_at: float = 0.0
