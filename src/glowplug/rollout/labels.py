"""How good the predictions were: the losses of labelled requests, from the drift detector's page of metrics.

Labels come late, and a loss counts when its label comes: what is compared is what has become known over the same time.
On that page a label `revision` names the revision, or the id of its version (see `stamps`), as its events could tell.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
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
    """Another source's evidence with the losses added. `fetch` gives the page's text, `version_of` the id of what a
    revision (`namespace/name`) runs, "" where it has none."""

    def __init__(
        self,
        answers: Source,
        fetch: Callable[[], Awaitable[str]],
        version_of: Callable[[str], Awaitable[str]],
    ) -> None:
        self._answers, self._fetch, self._version_of = answers, fetch, version_of
        self._versions: dict[str, str] = {}
        self._before: dict[tuple[str, str], dict[str, Losses]] = {}

    @property
    def metrics(self) -> frozenset[str]:
        return self._answers.metrics | {LOSS}

    async def read(self, canary: str, stable: str) -> Evidence | NoEvidence:
        """As the other source's. Raises what `fetch` raises, before anything of that source is taken."""
        pair = (canary, stable)
        versions = {revision: await self._version(revision) for revision in pair}
        if versions[canary] == versions[stable]:
            # Changed while nobody stamped it. Compared with itself any model would pass; so nothing is known.
            versions = dict.fromkeys(pair, "")
        page = await self._fetch()
        evidence = await self._answers.read(canary, stable)
        if isinstance(evidence, NoEvidence) and pair in self._before:
            # What was counted meanwhile is in the next reading.
            return evidence
        now = losses(page, versions)
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

    async def _version(self, revision: str) -> str:
        """It never changes once there is one; the first answer is kept."""
        if revision not in self._versions:
            if len(self._versions) >= _MOST_PAIRS:
                self._versions.clear()
            self._versions[revision] = await self._version_of(revision)
        return self._versions[revision]


def losses(page: str, versions: Mapping[str, str]) -> dict[str, Losses]:
    """What a page in Prometheus' text format says of these revisions (`namespace/name`), each with its version's id."""
    found: dict[str, dict[str, float]] = {revision: {} for revision in versions}
    named = {
        f"{one.partition('/')[0]}/{id}": counters for one, counters in found.items() if (id := versions[one])
    }
    for line in page.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        labels = dict(_LABEL.findall(match[2]))
        name = f"{labels.get('namespace')}/{labels.get('revision')}"
        counters = found.get(name, named.get(name))
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
