"""`glowplug.dev/canary-affinity`: by what a caller is known, so that a split sends the same caller the same way. Pure.

`header:<name>` or `cookie:<name>`. While the percentages stay, equal values go to the same revision; when the canary's
grows, values move to it and none moves back. Who sends neither header nor cookie is split at random, as without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from glowplug.errors import Problem
from glowplug.spec import names
from glowplug.spec.validation import invalid

# A header's or a cookie's name: RFC 9110's token. Its length is ours: Envoy would take any.
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_EXPECTED = (
    "must be header:<name> or cookie:<name>, of what names the caller (for example header:x-user-id or "
    "cookie:session); remove the annotation for a random split"
)


class Source(Enum):
    """What the caller's name is taken from."""

    HEADER = "header"
    COOKIE = "cookie"


@dataclass(frozen=True)
class Affinity:
    """The header (in lower case) or the cookie whose value decides."""

    source: Source
    name: str


def parse(text: str) -> Affinity | None:
    """What the annotation's value means; None if it means nothing."""
    kind, _, name = text.strip().partition(":")
    if kind not in (source.value for source in Source) or not _NAME.fullmatch(name):
        return None
    source = Source(kind)
    # Names of headers know no case, those of cookies do.
    return Affinity(source, name.lower() if source is Source.HEADER else name)


def affinity_of(annotations: Mapping[str, str]) -> Affinity | None:
    """What these annotations ask for; None also where they ask for something that admission refuses."""
    return parse(annotations.get(names.CANARY_AFFINITY, ""))


def problems(annotations: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with the annotation, if it is there."""
    text = annotations.get(names.CANARY_AFFINITY)
    if text is not None and parse(text) is None:
        yield invalid(f"metadata.annotations[{names.CANARY_AFFINITY}]", text, _EXPECTED)
