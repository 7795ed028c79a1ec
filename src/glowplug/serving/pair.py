"""The pair lock's words inside the pod: what a server says to a request that is meant for another pair.

`glowplug.spec.pairs` says what a pair is, and stamps it into the pods.
"""

from __future__ import annotations

from glowplug.errors import InferenceError

REFUSED = 421  # Misdirected Request: "the server is not able to produce an authoritative response"
# In place of a pair: a question that every locked server answers with its refusal.
ANY = "?"
# KServe's tags for the newest ready revision, and for the one before it while traffic is split.
LATEST = "latest"
PREVIOUS = "prev"


class OtherPair(InferenceError):
    """Whoever was asked is of another pair, and has not touched the request."""

    def __init__(self, text: str, pair: str) -> None:
        super().__init__(text, code=REFUSED)
        self.pair = pair


class PartnersError(InferenceError):
    """What the partner itself answered, in which it says its pair."""


class NoPartner(InferenceError):
    """No revision of the predictor belongs to this transformer now."""

    def __init__(self, pair: str, met: str) -> None:
        super().__init__(
            f"no predictor of pair {pair!r} can be reached; {met}",
            hint="a new version is taking over; try again",
            code=503,
        )
