"""Evidence that may be looked at every second and stays honest: e-values for shares, quantiles and means. Decisions.

Bets against a hypothesis: each request multiplies a capital that under the hypothesis does not grow on average, so the
chance that it ever reaches 1/alpha is at most alpha, whenever and however often one looks (Ville 1939). Here the bet
that a share is at most p is, for an odds ratio r > 1, r**y / (1 + p (r - 1)) for a request with outcome y, 0 or 1: the
likelihood ratio of Robbins' and Wald's tests. It is a product over requests, so counts are all that is needed, and a
mixture over a few ratios (`_RATIOS`) serves small and large effects alike. By convexity it holds for any y within
0..1, hence for counts that are interpolated within the buckets of a histogram, and it needs no more than that each
request's chance, given those before, is at most p (Waudby-Smith, Ramdas 2023, "Estimating means of bounded random
variables by betting").

Two sides: what the stable revision's share or quantile is, nobody knows. For each value x that it may have, the
capital of the bet against x (from the stable side's requests) times that of the bet against x plus the margin (from
the canary's) is a capital against both; the hypothesis falls when no x is left. That is universal inference
(Wasserman, Ramdas, Balakrishnan 2020) in the manner of the safe tests of Turner, Ly, Grünwald 2024 and the quantile
tests of Howard, Ramdas 2022, which Netflix judges its canaries by (Lindon, Sanden, Shirikian 2022). It takes the
stable side's uncertainty into account, is exact for any number of requests, and needs that the stable revision's own
share does not drift much within a step.

Everything is in natural logarithms of capital; compare with ln(1/alpha).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from glowplug.rollout.evidence import Moments

# Odds ratios that are bet on, in equal parts: the smallest finds what is near the margin with many requests, the
# largest is for ten or a hundred times the errors.
_RATIOS = (1.05, 1.1, 1.2, 1.4, 1.8, 2.5, 4.0, 8.0, 20.0, 100.0)
UP = tuple((math.log(ratio), ratio - 1) for ratio in _RATIOS)
DOWN = tuple((-math.log(ratio), 1 / ratio - 1) for ratio in _RATIOS)
# What is not bet of the two sides' capital: the least of them is the floor that `least` counts on.
STABLE_KEPT = 0.5
LEAST_KEPT = CANARY_KEPT = 0.1
_CELLS = 16
_HALVINGS = 14
# Before so many labelled requests a mean is not looked at: its interval is of the central limit theorem.
MINIMUM_LABELS = 100
# Where the interval of a mean is tightest relative to its size: about a thousand requests.
_RHO_SQUARED = 0.01


def above(count: float, total: float, share: float) -> float:
    """The capital against "the share is at most `share`", after `count` of `total`. Falls as `share` grows."""
    return _mean_exp([count * log - total * math.log1p(share * more) for log, more in UP])


def below(count: float, total: float, share: float) -> float:
    """The capital against "the share is at least `share`". Grows with `share`."""
    if share >= 1:
        share = 1 - 1e-12
    return _mean_exp([count * log - total * math.log1p(share * more) for log, more in DOWN])


def hedged(capital: float, kept: float) -> float:
    """The capital of which the share `kept` was not bet: what is lost has a floor, at the price of ln(1 - kept)."""
    bet, rest = capital + math.log(1 - kept), math.log(kept)
    return max(bet, rest) + math.log1p(math.exp(-abs(bet - rest)))


def least(
    rising: Callable[[float], float],
    falling: Callable[[float], float],
    low: float,
    high: float,
    enough: float,
) -> float:
    """The least of `rising(x)` + `falling(x)` for x within `low`..`high`, from below; or `enough` where it is more.

    Neither may fall below ln(`LEAST_KEPT`). By cells, each with the smallest value that either has within it.
    """
    # Outside of these one of the two is enough, whatever the other is.
    by_itself = enough - math.log(LEAST_KEPT)
    first = _boundary(lambda x: falling(x) >= by_itself, low, high)[0]
    last = _boundary(lambda x: rising(x) < by_itself, low, high)[1]
    if first >= last:
        return enough
    points = [first + (last - first) * cell / _CELLS for cell in range(_CELLS + 1)]
    up = [rising(x) for x in points]
    down = [falling(x) for x in points]
    return min(enough, min(u + d for u, d in zip(up, down[1:], strict=False)))


def highest_refuted(capital: Callable[[float], float], low: float, high: float, alpha: float) -> float:
    """The largest x whose falling `capital` refutes it, that is, a lower confidence bound."""
    return _boundary(lambda x: capital(x) >= math.log(1 / alpha), low, high)[0]


def lowest_refuted(capital: Callable[[float], float], low: float, high: float, alpha: float) -> float:
    """The smallest x whose rising `capital` refutes it, that is, an upper confidence bound."""
    return _boundary(lambda x: capital(x) < math.log(1 / alpha), low, high)[1]


def _boundary(is_before: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """The x up to which `is_before` is true and from which on it is false, between two numbers close together."""
    if not is_before(low):
        return low, low
    if is_before(high):
        return high, high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_before(middle) else (low, middle)
    return low, high


@lru_cache(256)
def fewest(share: float, alpha: float) -> int:
    """The number of requests, none of which counted, from which `below` shows that the share is less."""
    high = 1
    while below(0, high, share) < math.log(1 / alpha):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if below(0, middle, share) >= math.log(1 / alpha) else (middle, high)
    return high


def mean_radius(canary: Moments, stable: Moments, ratio: float, alpha: float) -> float:
    """How far `canary.mean` - `ratio` * `stable.mean` may be from the truth, on one side.

    The one-sided asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024 ("Time-uniform
    central limit theory"): at every look together the error is about alpha, once there are `MINIMUM_LABELS`.
    """
    n = canary.count
    variance = _variance(canary) / n + (ratio * ratio * _variance(stable) / stable.count if ratio else 0.0)
    spread = n * _RHO_SQUARED + 1
    return math.sqrt(variance * 2 * spread / (spread - 1) * math.log1p(math.sqrt(spread) / (2 * alpha)))


def _variance(moments: Moments) -> float:
    return moments.squares / max(moments.count - 1, 1)


def _mean_exp(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(sum([math.exp(log - top) for log in logs]) / len(logs))
