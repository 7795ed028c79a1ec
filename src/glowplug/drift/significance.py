"""Is it more than chance: a p-value against days that were seen, and what many of them at once are worth.

A textbook's p-value takes rows as independent. Real ones come in storms and weekdays: a window of thousands is then
always significant, of nothing. Here the unit is the window. What windows of the training time measure against the rest
of it is roughly log-normal; a new one is judged by Student's t for a further draw from so few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_ITERATIONS = 300
_TINY = 1e-300


def t_survival(t: float, dof: float) -> float:
    """P(T > t) of Student's t, by the regularized incomplete beta function."""
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    square = t * t
    half = 0.5 * _beta_regularized(dof / 2, 0.5, dof / (dof + square), square / (dof + square))
    return half if t >= 0 else 1 - half


def benjamini_hochberg(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which hypotheses to reject so that of the rejected at most `rate` are expected to be true.

    The largest k with p(k) <= k/m * rate, and all smaller p-values. Source: Y. Benjamini, Y. Hochberg, Controlling the
    False Discovery Rate, J. R. Stat. Soc. B 57 (1995); also for positively dependent tests, as features' are:
    Y. Benjamini, D. Yekutieli, Ann. Stat. 29 (2001).
    """
    count = len(p_values)
    ordered = sorted(p_values)
    limit = max((p for k, p in enumerate(ordered, start=1) if p <= k / count * rate), default=-1.0)
    return [p <= limit for p in p_values]


def _beta_regularized(a: float, b: float, x: float, y: float) -> float:
    """I_x(a, b). Lentz's continued fraction: Numerical Recipes, 6.4; DLMF 8.17.22.

    `y` is 1 - x: where x is nearly 1 the difference would have lost it.
    """
    if x <= 0 or y <= 0:
        return 0.0 if x <= 0 else 1.0
    log_x, log_y = (math.log1p(-y), math.log(y)) if y < x else (math.log(x), math.log1p(-x))
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * log_x + b * log_y)
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, y) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, _inverse(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _ITERATIONS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = _inverse(1 + term * d)
            c = 1 + term / c
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _inverse(value: float) -> float:
    return 1 / (value if abs(value) > _TINY else _TINY)
