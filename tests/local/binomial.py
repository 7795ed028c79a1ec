"""What a fair split may look like: the interval that a share falls into 999 times of 1,000."""

from __future__ import annotations

from math import exp, lgamma, log


def interval(count: int, percent: int) -> tuple[int, int]:
    """The exact central 99.9 % interval of a binomial of `count` trials of `percent`; both ends belong to it."""
    if percent in (0, 100):
        return count * percent // 100, count * percent // 100
    p, tail = percent / 100, 0.0005
    mass = [
        exp(lgamma(count + 1) - lgamma(k + 1) - lgamma(count - k + 1) + k * log(p) + (count - k) * log(1 - p))
        for k in range(count + 1)
    ]
    low, below = 0, mass[0]
    while below <= tail:
        low += 1
        below += mass[low]
    high, above = count, mass[count]
    while above <= tail:
        high -= 1
        above += mass[high]
    return low, high
