"""What a canary is held to: the annotation `glowplug.dev/rollout-gates` → frozen gates, all problems at once.

    gates  = gate *("," gate)
    gate   = "errors" "<=" ("+" NUMBER "%" / NUMBER "%")          of the requests
           / "p" QUANTILE "<=" (NUMBER "x" / ["+"] NUMBER UNIT)   latency; UNIT = "ms" / "s", p50, p99, p99.9, ...
           / "loss" "<=" (NUMBER "x" / ["+"] NUMBER)              the mean loss of labelled requests

`1.1x` is a ratio to the stable revision over the same time, `+…` a margin over it, and a bare number a ceiling which
holds whatever the stable revision does.

The defaults lie halfway between "the same" and what should never be promoted: one more failed request in a hundred, a
fifth slower. A margin at that very point would neither pass nor fail what is on it, however many requests there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from glowplug.errors import ConfigError

DEFAULT_GATES = "errors<=+0.5%, p50<=1.1x, p99<=1.1x"
ERRORS = "errors"
LATENCY = "latency"
LOSS = "loss"
# A ratio of latencies allows at least this much. The rarely used of two equal processes is slower by a millisecond or
# two, for want of warm caches.
LEAST_MARGIN_S = 0.005

_GATE = re.compile(
    r"(?P<metric>[a-z]+[0-9.]*)\s*<=\s*(?P<plus>\+?)(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>[a-z%]*)"
)
_QUANTILE = re.compile(r"p([0-9]{1,2}(\.[0-9]+)?)")
_SECONDS = {"s": 1.0, "ms": 0.001}
_EXPECTED = {
    ERRORS: "errors<=+0.5% or errors<=2%",
    LATENCY: "p99<=1.1x, p99<=+20ms or p99<=250ms",
    LOSS: "loss<=1.05x, loss<=+0.1 or loss<=0.3",
}


class Form(Enum):
    """How a limit follows from the stable revision."""

    RATIO = "ratio"
    MARGIN = "margin"
    CEILING = "ceiling"


@dataclass(frozen=True)
class Gate:
    """`text` as written. `limit` is a ratio, or a share of requests, seconds, or a loss. `quantile`, of latency, is
    between 0 and 1; a ratio of latencies allows at least `least_margin_s`."""

    text: str
    metric: str
    form: Form
    limit: float
    quantile: float = 0.0
    least_margin_s: float = LEAST_MARGIN_S

    def bound(self, stable: float) -> float:
        """The largest value that the canary may have beside this one of the stable revision."""
        if self.form is Form.RATIO:
            return max(self.limit * stable, stable + (self.least_margin_s if self.metric == LATENCY else 0.0))
        return self.limit + stable if self.form is Form.MARGIN else self.limit


Gates = tuple[Gate, ...]


def parse_gates(text: str) -> Gates:
    """The gates in the order written. Raises ConfigError with every problem and its position (the first is 1)."""
    gates: list[Gate] = []
    problems: list[str] = []
    start = 0
    for part in text.split(","):
        word = part.strip()
        position = start + (len(part) - len(part.lstrip()) if word else 0) + 1
        start += len(part) + 1
        found = _gate(word)
        if isinstance(found, str):
            problems.append(f"{word!r} at position {position}: {found}")
        elif any((g.metric, g.quantile, g.form) == (found.metric, found.quantile, found.form) for g in gates):
            problems.append(f"{word!r} at position {position}: there is such a gate before it")
        else:
            gates.append(found)
    if problems:
        raise ConfigError(
            f"gates {text!r}: {'; '.join(problems)}", hint=f"an example: {DEFAULT_GATES}, loss<=1.05x"
        )
    return tuple(gates)


def metrics_of(gates: Iterable[Gate]) -> frozenset[str]:
    """What has to be measured for these gates: of `errors`, `latency`, `loss`."""
    return frozenset(gate.metric for gate in gates)


def without_source(gates: Iterable[Gate], metrics: frozenset[str]) -> str:
    """What to tell the user of gates that nobody measures; empty where all can be judged."""
    blind = [gate for gate in gates if gate.metric not in metrics]
    if not blind:
        return ""
    measured = ", ".join(sorted(metrics)) or "nothing"
    asked = ", ".join(sorted({gate.metric for gate in blind}))
    names = ", ".join(gate.text for gate in blind)
    return f"gates without a metric source: {names} (need {asked}; the source measures {measured})"


def _gate(word: str) -> Gate | str:
    """The gate, or what is wrong with it."""
    if not word:
        return f"is empty, expected a gate such as {_EXPECTED[ERRORS]}"
    match = _GATE.fullmatch(word)
    if match is None:
        return "expected METRIC<=LIMIT, such as errors<=+0.5%, p99<=1.1x or loss<=1.05x"
    metric, quantile = _metric(match["metric"])
    if metric is None:
        return f"{match['metric']} is unknown, expected errors, p50, p99 (any p1 to p99.99) or loss"
    found = _limit(metric, bool(match["plus"]), float(match["number"]), match["unit"])
    return found if isinstance(found, str) else Gate(word.replace(" ", ""), metric, *found, quantile)


def _metric(word: str) -> tuple[str | None, float]:
    if word in (ERRORS, LOSS):
        return word, 0.0
    match = _QUANTILE.fullmatch(word)
    quantile = float(match[1]) / 100 if match else 0.0
    return (LATENCY, quantile) if 0.01 <= quantile <= 0.9999 else (None, 0.0)


def _limit(metric: str, is_margin: bool, number: float, unit: str) -> tuple[Form, float] | str:
    """The form and the limit, or what is wrong."""
    if unit == "x" and metric != ERRORS and not is_margin:
        return (
            (Form.RATIO, number) if 1 < number <= 1000 else f"{number:g}x is not above 1x and at most 1000x"
        )
    form = Form.MARGIN if is_margin else Form.CEILING
    if metric == ERRORS and unit == "%":
        return (form, number / 100) if 0 < number < 100 else f"{number:g}% is not above 0 % and below 100 %"
    if metric == LATENCY and unit in _SECONDS:
        return (form, number * _SECONDS[unit]) if number > 0 else "the limit is 0, expected more"
    if metric == LOSS and not unit:
        return (form, number) if number > 0 else "the limit is 0, expected more"
    written = f"{'+' if is_margin else ''}{number:g}{unit}"
    return f"{written} is no limit for {metric}, expected {_EXPECTED[metric]}"
