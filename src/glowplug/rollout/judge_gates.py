"""What one gate's evidence is worth: the capital won against "within the margin" and against "beyond it". Decisions.

An e-value for each of the two hypotheses (see `sequential`), so that a gate can fail, pass, or neither. Latencies are
known by buckets; within a bucket they count as evenly spread, as Prometheus' `histogram_quantile` has it, and above
the last bound as spread up to twice that. The statements are exact for the quantiles that are read that way.

Slow requests come together: a pod that stalls for a second slows all that it has. Requests that are not independent
count for less: their number is divided by how much more readings differ from each other than independent requests
would (the dispersion of quasi-likelihood, Wedderburn 1974). That part is an estimate, as good as there are readings.
Errors are counted one by one, since a burst of them must be acted on.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from glowplug.rollout.evidence import Evidence, Histogram, Moments
from glowplug.rollout.gates import ERRORS, LATENCY, Form, Gate
from glowplug.rollout.sequential import (
    CANARY_KEPT,
    MINIMUM_LABELS,
    STABLE_KEPT,
    above,
    below,
    fewest,
    hedged,
    highest_refuted,
    least,
    lowest_refuted,
    mean_radius,
)

# One second's stall must not look like all that there is. A Prometheus has three scrapes in the judge's last seconds.
_FEWEST_READINGS = 3
# Bounds closer than that are not worth a word.
_FINE = 1.25


class Comparison(Protocol):
    """A gate with its evidence. Values are in the gate's unit: a share, seconds, a loss."""

    @property
    def requests(self) -> int:
        """The canary's."""

    def observed(self) -> tuple[float, float] | None:
        """What the canary's and the stable revision's value look like; None if one of them has nothing."""

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Between what the canary's value is, with an error of `alpha` on each side over all looks."""

    def is_worse(self, alpha: float, factor: float = 1.0) -> float:
        """How much the capital against "within the margin" is over what `alpha` asks for; below 0 it is not enough.
        With `factor` times the requests of either side, each alike."""

    def is_within(self, alpha: float, factor: float = 1.0) -> float:
        """The same against "beyond the margin"."""

    def minimum(self, alpha: float) -> int:
        """The canary's requests that `is_within` takes at best: none of them bad, the stable revision known."""


def compare(gate: Gate, evidence: Evidence) -> Comparison:
    """The gate's comparison over this evidence."""
    canary, stable = evidence.canary, evidence.stable
    if gate.metric == ERRORS:
        return _Errors(gate, canary.errors, canary.requests, stable.errors, stable.requests)
    if gate.metric == LATENCY:
        return _Quantile(gate, Tail.of(canary.latency), Tail.of(stable.latency))
    return _Loss(gate, canary.loss, stable.loss)


def coarse_bucket(gate: Gate, evidence: Evidence, stable: float, limit: float) -> tuple[float, float] | None:
    """The bucket, in seconds, that has both the stable revision's latency and the limit in it: within it, what is
    beyond the limit cannot be told from what is not."""
    if gate.metric != LATENCY or gate.form is Form.CEILING:
        return None
    bounds = evidence.canary.latency.bounds_s
    number = bisect_right(bounds, stable)
    if number == 0 or number == len(bounds) or bounds[number] <= max(limit, _FINE * bounds[number - 1]):
        return None
    return bounds[number - 1], bounds[number]


@dataclass(frozen=True)
class _Errors:
    gate: Gate
    canary_errors: int
    requests: int
    stable_errors: int
    stable_requests: int

    def observed(self) -> tuple[float, float] | None:
        if not self.requests or not (self.stable_requests or self.gate.form is Form.CEILING):
            return None
        return self.canary_errors / self.requests, self.stable_errors / max(self.stable_requests, 1)

    def bounds(self, alpha: float) -> tuple[float, float]:
        count, total = self.canary_errors, self.requests
        return (
            highest_refuted(lambda share: above(count, total, share), 0.0, count / total, alpha)
            if count
            else 0.0,
            lowest_refuted(lambda share: below(count, total, share), count / total, 1.0, alpha),
        )

    def is_worse(self, alpha: float, factor: float = 1.0) -> float:
        enough = math.log(1 / alpha)
        count, total = self.canary_errors * factor, self.requests * factor
        if self.gate.form is Form.CEILING:
            return above(count, total, self.gate.limit) - enough
        stable = self.stable_errors * factor, self.stable_requests * factor
        return (
            least(
                lambda share: hedged(below(*stable, share), STABLE_KEPT),
                lambda share: hedged(above(count, total, min(share + self.gate.limit, 1.0)), CANARY_KEPT),
                0.0,
                1.0,
                enough,
            )
            - enough
        )

    def is_within(self, alpha: float, factor: float = 1.0) -> float:
        enough = math.log(1 / alpha)
        count, total = self.canary_errors * factor, self.requests * factor
        if self.gate.form is Form.CEILING:
            return below(count, total, self.gate.limit) - enough
        stable = self.stable_errors * factor, self.stable_requests * factor
        return (
            least(
                lambda share: hedged(below(count, total, share + self.gate.limit), CANARY_KEPT),
                lambda share: hedged(above(*stable, share), STABLE_KEPT),
                0.0,
                1.0 - self.gate.limit,
                enough,
            )
            - enough
        )

    def minimum(self, alpha: float) -> int:
        return fewest(self.gate.limit, alpha)


@dataclass(frozen=True)
class Tail:
    """How many requests took longer than each bound, 0 and twice the last bound among them; in so many readings, with
    this spread (see `Histogram`)."""

    bounds_s: tuple[float, ...]
    counts: tuple[float, ...]
    readings: int = 0
    spread: tuple[float, ...] = ()

    @staticmethod
    def of(histogram: Histogram) -> Tail:
        """Of a histogram, which may have no bounds."""
        if not histogram.bounds_s:
            return Tail((0.0,), (0.0,))
        total = sum(histogram.counts)
        over = [total - within for within in accumulate(histogram.counts)]
        bounds = (0.0, *histogram.bounds_s, 2 * histogram.bounds_s[-1])
        spread = (float(total), *histogram.spread, 0.0) if histogram.readings else ()
        return Tail(bounds, (total, *over), histogram.readings, spread)

    @property
    def total(self) -> float:
        return self.counts[0]

    def at(self, place: float) -> float:
        """How many are above a place: its whole part is the number of a bound, the rest a way to the next."""
        number = int(place)
        if number >= len(self.counts) - 1:
            return self.counts[-1]
        return self.counts[number] + (place - number) * (self.counts[number + 1] - self.counts[number])

    def seconds(self, place: float) -> float:
        """The latency at a place."""
        number = int(place)
        if number >= len(self.bounds_s) - 1:
            return self.bounds_s[-1]
        return self.bounds_s[number] + (place - number) * (self.bounds_s[number + 1] - self.bounds_s[number])

    def over(self, seconds: float) -> float:
        """How many took longer."""
        number = bisect_right(self.bounds_s, seconds) - 1
        if number >= len(self.bounds_s) - 1:
            return self.counts[-1]
        start, end = self.bounds_s[number], self.bounds_s[number + 1]
        return self.at(number + (seconds - start) / (end - start))

    def dispersion(self, seconds: float) -> float:
        """How many times as much as with independent requests the share above `seconds` varies between readings; at
        least 1, and 1 where nothing is known of readings. Where there are few, each is worth one request."""
        if not self.readings or not self.total:
            return 1.0
        if self.readings < _FEWEST_READINGS:
            return self.total / self.readings
        # At the bound below, where there are more.
        number = min(max(bisect_right(self.bounds_s, seconds) - 1, 1), len(self.bounds_s) - 2)
        share = self.counts[number] / self.total
        if not 0 < share < 1:
            return 1.0
        varied = self.spread[number] - self.counts[number] * share
        return max(varied / ((self.readings - 1) * share * (1 - share)), 1.0)

    def quantile(self, quantile: float) -> float:
        """The latency which that share of the requests does not exceed."""
        rest = self.total * (1 - quantile)
        number = next((n for n, count in enumerate(self.counts) if count <= rest), len(self.counts) - 1)
        if number == 0:
            return 0.0
        before, after = self.counts[number - 1], self.counts[number]
        return self.seconds(number - 1 + (before - rest) / (before - after))


@dataclass(frozen=True)
class _Quantile:
    gate: Gate
    canary: Tail
    stable: Tail

    @property
    def requests(self) -> int:
        return int(self.canary.total)

    @property
    def share(self) -> float:
        return 1 - self.gate.quantile

    def observed(self) -> tuple[float, float] | None:
        if not self.canary.total or not (self.stable.total or self.gate.form is Form.CEILING):
            return None
        stable = self.stable.quantile(self.gate.quantile) if self.stable.total else 0.0
        return self.canary.quantile(self.gate.quantile), stable

    def bounds(self, alpha: float) -> tuple[float, float]:
        tail, total, share = self.canary, self.canary.total, self.share
        end = float(len(tail.bounds_s) - 1)
        return (
            tail.seconds(highest_refuted(lambda place: above(tail.at(place), total, share), 0.0, end, alpha)),
            tail.seconds(lowest_refuted(lambda place: below(tail.at(place), total, share), 0.0, end, alpha)),
        )

    def is_worse(self, alpha: float, factor: float = 1.0) -> float:
        return self._capital(above, below, alpha, factor, is_canary_rising=False)

    def is_within(self, alpha: float, factor: float = 1.0) -> float:
        return self._capital(below, above, alpha, factor, is_canary_rising=True)

    def minimum(self, alpha: float) -> int:
        return fewest(self.share, alpha)

    def _capital(
        self,
        of_canary: Callable[[float, float, float], float],
        of_stable: Callable[[float, float, float], float],
        alpha: float,
        factor: float,
        *,
        is_canary_rising: bool,
    ) -> float:
        enough = math.log(1 / alpha)
        canary, stable, share, gate = self.canary, self.stable, self.share, self.gate
        at = stable.quantile(gate.quantile) if stable.total else 0.0
        counts = factor / max(canary.dispersion(seconds) for seconds in {at, gate.bound(at)})
        stable_counts = factor / stable.dispersion(at)
        total, stable_total = canary.total * counts, stable.total * stable_counts
        if gate.form is Form.CEILING:
            return of_canary(canary.over(gate.limit) * counts, total, share) - enough

        def canaries(place: float) -> float:
            count = canary.over(gate.bound(stable.seconds(place))) * counts
            return hedged(of_canary(count, total, share), CANARY_KEPT)

        def stables(place: float) -> float:
            return hedged(of_stable(stable.at(place) * stable_counts, stable_total, share), STABLE_KEPT)

        rising, falling = (canaries, stables) if is_canary_rising else (stables, canaries)
        return least(rising, falling, 0.0, float(len(stable.bounds_s) - 1), enough) - enough


@dataclass(frozen=True)
class _Loss:
    gate: Gate
    canary: Moments
    stable: Moments

    @property
    def requests(self) -> int:
        return self.canary.count

    @property
    def ratio(self) -> float:
        """What the stable revision's mean counts beside the canary's."""
        return {Form.RATIO: self.gate.limit, Form.MARGIN: 1.0, Form.CEILING: 0.0}[self.gate.form]

    def observed(self) -> tuple[float, float] | None:
        if not self.canary.count or not (self.stable.count or self.gate.form is Form.CEILING):
            return None
        return self.canary.mean, self.stable.mean

    def bounds(self, alpha: float) -> tuple[float, float]:
        if self.canary.count < 2:
            return -math.inf, math.inf
        radius = mean_radius(self.canary, Moments(), 0.0, alpha)
        return self.canary.mean - radius, self.canary.mean + radius

    def is_worse(self, alpha: float, factor: float = 1.0) -> float:
        return self._margins(self._excess(), alpha, factor)

    def is_within(self, alpha: float, factor: float = 1.0) -> float:
        return self._margins(-self._excess(), alpha, factor)

    def minimum(self, alpha: float) -> int:
        return MINIMUM_LABELS

    def _excess(self) -> float:
        return self.canary.mean - self.gate.bound(self.stable.mean)

    def _margins(self, excess: float, alpha: float, factor: float) -> float:
        canary, stable = _scaled(self.canary, factor), _scaled(self.stable, factor)
        fewest_labels = min(canary.count, stable.count if self.ratio else canary.count)
        if fewest_labels < MINIMUM_LABELS:
            return -math.inf
        return excess - mean_radius(canary, stable, self.ratio, alpha)


def _scaled(moments: Moments, factor: float) -> Moments:
    return Moments(round(moments.count * factor), moments.mean, moments.squares * factor)
