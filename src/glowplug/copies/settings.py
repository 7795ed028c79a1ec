"""What is copied of a route's requests: values, for the script in Envoy and for a server that copies by itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum

_ALL = "all"


class Parts(Enum):
    """What is copied of an exchange."""

    ALL = ""
    REQUEST = "request"
    ANSWER = "answer"  # and of the request its headers


@dataclass(frozen=True)
class Settings:
    """`about` is what is said of a route's requests with each copy, in JSON.

    Of a request's headers those named in `headers` are copied, all if there are none.
    """

    about: str
    parts: Parts = Parts.ALL
    headers: tuple[str, ...] = ()

    @classmethod
    def of(cls, about: Mapping[str, str], parts: Parts = Parts.ALL, headers: Iterable[str] = ()) -> Settings:
        return cls(json.dumps(about, separators=(",", ":")), parts, tuple(dict.fromkeys(headers)))

    def to_script(self) -> str:
        """As `copy.lua` reads it."""
        return "\n".join((self.about, self.parts.value, " ".join(self.headers)))

    def to_header(self) -> str:
        """As a request carries it: printable ASCII."""
        return " ".join((self.about, self.parts.value or _ALL, *self.headers))

    @classmethod
    def from_header(cls, text: str) -> Settings:
        """What `to_header` wrote. Raises ValueError for anything else."""
        _, end = json.JSONDecoder().raw_decode(text)
        parts, *headers = text[end:].split() or [""]
        return cls(text[:end], Parts("" if parts == _ALL else parts or "none"), tuple(headers))


@dataclass(frozen=True)
class Taker:
    """Where a server's copies go. The `header` of a request carries its settings; its name is a secret.

    A body larger than `max_body_bytes` is not copied; of an answer's headers those in `answer_headers` are. In the
    folder `lost` each process counts what could not be sent.
    """

    header: str
    socket: str
    max_body_bytes: int
    answer_headers: tuple[str, ...]
    lost: str

    def __repr__(self) -> str:
        return f"Taker(socket={self.socket!r})"


def takers_text(takers: Iterable[Taker]) -> str:
    """For a process's environment."""
    return json.dumps([asdict(taker) for taker in takers], separators=(",", ":"))


def parse_takers(text: str) -> tuple[Taker, ...]:
    """What `takers_text` wrote. Raises ValueError or TypeError for anything else."""
    return tuple(
        Taker(**{**each, "answer_headers": tuple(each["answer_headers"])}) for each in json.loads(text)
    )
