"""Go's float64 arithmetic where Python's differs: no exceptions, NaN and infinities go on, int32 has 32 bits.

The autoscaler's numbers can reach these edges (a division by a tiny target, a burst of 10¹² requests), and there its
decision must still be the one that Knative makes on amd64, the platform of its releases.
"""

from __future__ import annotations

import math

_INT32_MIN = -(2**31)


def ceil(number: float) -> float:
    """`math.Ceil`: NaN and infinities are their own."""
    return float(math.ceil(number)) if math.isfinite(number) else number


def floor(number: float) -> float:
    """`math.Floor`."""
    return float(math.floor(number)) if math.isfinite(number) else number


def maximum(a: float, b: float) -> float:
    """`math.Max`: NaN wins over everything but +Inf."""
    if math.inf in (a, b):
        return math.inf
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def minimum(a: float, b: float) -> float:
    """`math.Min`: NaN wins over everything but -Inf."""
    if -math.inf in (a, b):
        return -math.inf
    return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)


def divide(a: float, b: float) -> float:
    """IEEE 754 division: by zero it is an infinity, or NaN for 0/0."""
    if b != 0:
        return a / b
    if a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def to_int32(number: float) -> int:
    """`int32(f)` on amd64: the fraction is cut off; what does not fit, and NaN, becomes the smallest int32."""
    if not math.isfinite(number):
        return _INT32_MIN
    cut = math.trunc(number)
    return cut if _INT32_MIN <= cut < 2**31 else _INT32_MIN


def to_sixth_digit(number: float) -> float:
    """Rounds to six digits after the point, halves away from zero, as Knative rounds its averages."""
    scaled = number * 1e6
    if not math.isfinite(scaled):
        return scaled / 1e6
    cut = math.trunc(scaled)
    if abs(scaled - cut) >= 0.5:
        cut += 1 if scaled > 0 else -1
    return float(cut) / 1e6


def power(base: float, exponent: float) -> float:
    """`math.Pow` for a base in [0, 1] and an exponent of 0 or more.

    Go multiplies squares where C's library computes a correctly rounded result; they may differ in the last bit.
    """
    if exponent == 0 or base == 1:
        return 1.0
    if exponent == 1 or base == 0:
        return base
    if exponent == 0.5:
        return math.sqrt(base)
    whole, fraction = math.floor(exponent), exponent - math.floor(exponent)
    result = 1.0
    if fraction > 0.5:
        whole, fraction = whole + 1, fraction - 1
    if fraction != 0:
        result = math.exp(fraction * math.log(base))
    result_exponent = 0
    factor, factor_exponent = math.frexp(base)
    while whole:
        if factor_exponent < -4096:
            # Too small for any float64, and squaring it makes it smaller.
            return 0.0
        if whole & 1:
            result *= factor
            result_exponent += factor_exponent
        factor *= factor
        factor_exponent *= 2
        if factor < 0.5:
            factor += factor
            factor_exponent -= 1
        whole >>= 1
    return math.ldexp(result, result_exponent)


def to_int64(number: float) -> int:
    """`int64(f)` on amd64: the fraction is cut off; what does not fit, and NaN, becomes the smallest int64."""
    if not math.isfinite(number):
        return -(2**63)
    cut = math.trunc(number)
    return cut if -(2**63) <= cut < 2**63 else -(2**63)
