"""`glowplug.dev/shadow`: the share of requests that the newest ready revision is tried on unseen. Pure.

A number of percent, 0 to 100, decimals allowed. It concerns requests that go to another revision: while the newest has
less than all traffic, that share of what the others answer is sent to it too, and its answers are compared and thrown
away. A Knative cluster knows no such thing: there the annotation has no effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from glowplug.errors import Problem
from glowplug.spec import names
from glowplug.spec.validation import invalid

# Of one body, a request's or an answer's; what is larger is not tried.
MAX_BODY_BYTES = 1024 * 1024

_NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?", re.ASCII)
_EXPECTED = (
    'must be a number of percent from 0 to 100, such as "20" or "0.5": that share of the requests is also sent to the '
    "newest revision while it has less than all traffic; remove the annotation for none"
)


def parse(text: str) -> float | None:
    """The percentage; None if the text is none."""
    text = text.strip().removesuffix("%")
    percent = float(text) if _NUMBER.fullmatch(text) else -1.0
    return percent if 0 <= percent <= 100 else None


def shadow_percent_of(annotations: Mapping[str, str]) -> float:
    """What these annotations ask for; 0 also where they ask for something that admission refuses."""
    return parse(annotations.get(names.SHADOW, "0")) or 0.0


def problems(annotations: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with the annotation, if it is there."""
    text = annotations.get(names.SHADOW)
    if text is not None and parse(text) is None:
        yield invalid(f"metadata.annotations[{names.SHADOW}]", text, _EXPECTED)
