"""How good the predictions were: the losses of labelled requests, from the drift detector's page of metrics.

Labels come late, and a loss counts when its label comes: what is compared is what has become known over the same time.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from glowplug.rollout.evidence import Evidence, Moments, NoEvidence
from glowplug.rollout.gates import LOSS
from glowplug.rollout.sources import Source

PREDICTIONS = "glowplug_labelled_predictions_total"
LOSSES = "glowplug_labelled_loss_total"
SQUARES = "glowplug_labelled_loss_squares_total"
_LINE = re.compile(rf"({PREDICTIONS}|{LOSSES}|{SQUARES})\{{([^}}]*)\}} (\S+)", re.ASCII)
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
_MOST_PAIRS = 256


@dataclass(frozen=True)
class Losses:
    """A revision's counters: how many predictions had a label, the sum of their losses, and of the losses squared."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0


class LabelledSource:
    """Another source's evidence with the losses added. `fetch` gives the page's text."""

    def __init__(self, answers: Source, fetch: Callable[[], Awaitable[str]]) -> None:
        self._answers, self._fetch = answers, fetch
        self._before: dict[tuple[str, str], dict[str, Losses]] = {}

    @property
    def metrics(self) -> frozenset[str]:
        return self._answers.metrics | {LOSS}

    async def read(self, canary: str, stable: str) -> Evidence | NoEvidence:
        """As the other source's. Raises what `fetch` raises, before anything of that source is taken."""
        page = await self._fetch()
        evidence = await self._answers.read(canary, stable)
        pair = (canary, stable)
        if isinstance(evidence, NoEvidence) and pair in self._before:
            # What was counted meanwhile is in the next reading.
            return evidence
        now = losses(page, pair)
        before = self._before.pop(pair, now)
        self._before[pair] = now
        if len(self._before) > _MOST_PAIRS:
            del self._before[next(iter(self._before))]
        if isinstance(evidence, NoEvidence):
            return evidence
        return Evidence(
            replace(evidence.canary, loss=_grown(before[canary], now[canary])),
            replace(evidence.stable, loss=_grown(before[stable], now[stable])),
        )


def losses(page: str, revisions: Iterable[str]) -> dict[str, Losses]:
    """What a page in Prometheus' text format says of these revisions (`namespace/name`)."""
    found: dict[str, dict[str, float]] = {revision: {} for revision in revisions}
    for line in page.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        labels = dict(_LABEL.findall(match[2]))
        counters = found.get(f"{labels.get('namespace')}/{labels.get('revision')}")
        if counters is not None:
            counters[match[1]] = counters.get(match[1], 0.0) + float(match[3])
    return {
        revision: Losses(each.get(PREDICTIONS, 0.0), each.get(LOSSES, 0.0), each.get(SQUARES, 0.0))
        for revision, each in found.items()
    }


def _grown(before: Losses, now: Losses) -> Moments:
    """What came in between; counters that fell began anew."""
    if now.count < before.count:
        before = Losses()
    count = round(now.count - before.count)
    if count <= 0:
        return Moments()
    mean = (now.total - before.total) / count
    return Moments(count, mean, max(now.squares - before.squares - count * mean * mean, 0.0))
