"""What the judge says of a canary. Values.

A verdict carries the numbers that it was made from, so that conditions, events and CloudEvents can show them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Outcome(str, Enum):
    """`PASS`: within every margin, for certain. `FAIL`: outside of one, for certain. Else `INCONCLUSIVE`."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class GateResult:
    """One gate. `observed` and `compared` are the canary's and the stable revision's error rate, latency in seconds or
    loss; `limit` is the largest value that the gate allows the canary, given the stable one's.

    `requests` is how many of the canary's were looked at, `needed` how many it takes to decide if they go on like that
    (None: more will not decide it, the canary is as good as on the margin), and `minimum` how many it takes at best.
    `low` and `high` bound what the canary's value truly is, at every look together.
    """

    gate: str
    outcome: Outcome
    reason: str
    observed: float | None = None
    low: float | None = None
    high: float | None = None
    compared: float | None = None
    limit: float | None = None
    requests: int = 0
    needed: int | None = None
    minimum: int = 0


@dataclass(frozen=True)
class Verdict:
    """The whole: `reason` is one sentence for the user, `gates` in the order of the annotation.

    `is_urgent` where a guardrail failed, which need not wait for anything.
    """

    outcome: Outcome
    reason: str
    gates: tuple[GateResult, ...] = ()
    is_urgent: bool = False

    def as_json(self) -> dict[str, Any]:
        """For CloudEvents and status: plain JSON values."""
        return {
            "outcome": self.outcome.value,
            "reason": self.reason,
            "gates": [{**asdict(gate), "outcome": gate.outcome.value} for gate in self.gates],
        }
