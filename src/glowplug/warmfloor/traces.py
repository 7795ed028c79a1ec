"""Demands over time to try a floor on: three generated ones, and files.

A demand is the mean number of requests in progress that a second's arrivals make, one number a second. Generated
ones are seeded: the rate below, with Poisson arrivals of `service_s` each.

- diurnal: five days of two hours each. Nearly nothing at night, a steep morning, a dip at noon, a peak in the
  afternoon, a slow evening; days differ by up to 15 % in height and 3 minutes (of a day of 24 h: 36) in time.
- bursty: a quiet base, and bursts of ten times that for 60 s at times that nothing tells in advance.
- ramp: from 50 to 500 requests a second in 5 minutes, 5 minutes there, back in 5, 15 minutes of base, six times.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from glowplug.errors import ConfigError


class Generator(Protocol):
    """Makes a demand of requests that take `service_s` each."""

    def __call__(self, service_s: float, seed: int = ...) -> Demand: ...


DAY_S = 7200
_SEED = 7
_MAX_SECONDS = 10_000_000


@dataclass(frozen=True)
class Demand:
    """`work[i]`: request-seconds that arrive in second i. `season_s`: what it may repeat itself in."""

    name: str
    work: tuple[float, ...]
    season_s: float


def diurnal(service_s: float, seed: int = _SEED, days: int = 5) -> Demand:
    """Peak some 600 requests a second."""
    chance = random.Random(seed)
    rates: list[float] = []
    for _ in range(days):
        height, shift_s = chance.uniform(0.85, 1.15), chance.uniform(-180, 180)
        rates += [height * _day((second - shift_s) / DAY_S * 24) for second in range(DAY_S)]
    return _arrivals("diurnal", rates, service_s, DAY_S, chance)


def bursty(service_s: float, seed: int = _SEED, hours: int = 4) -> Demand:
    """50 requests a second, bursts of 500; on average every ten minutes."""
    chance = random.Random(seed)
    rates = [50.0] * (hours * 3600)
    at = chance.expovariate(1 / 600)
    while at < len(rates):
        for second in range(int(at), min(int(at) + 60, len(rates))):
            rates[second] = 500.0
        at += 60 + chance.expovariate(1 / 540)
    return _arrivals("bursty", rates, service_s, 3600, chance)


def ramp(service_s: float, seed: int = _SEED, times: int = 6) -> Demand:
    """50 to 500 requests a second, every half hour."""
    chance = random.Random(seed)
    up = [50 + 450 * second / 300 for second in range(300)]
    one = [*up, *[500.0] * 300, *reversed(up), *[50.0] * 900]
    return _arrivals("ramp", one * times, service_s, 1800, chance)


GENERATED: dict[str, Generator] = {"diurnal": diurnal, "bursty": bursty, "ramp": ramp}


def parse(lines: Iterable[str], name: str) -> Demand:
    """A file's demand: `SECONDS,DEMAND` a line, seconds rising, each demand until the next; a first line of words and
    empty lines are skipped. Raises ConfigError with all problems."""
    found: list[tuple[int, float]] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        parts = [part.strip() for part in line.split(",")]
        if not line.strip() or (not found and number == 1 and not _is_number(parts[0])):
            continue
        if len(parts) != 2 or not all(map(_is_number, parts)) or float(parts[1]) < 0 or float(parts[0]) < 0:
            problems.append(f'{name}:{number} "{line.strip()[:80]}", must be SECONDS,DEMAND, both 0 or more')
        elif found and float(parts[0]) <= found[-1][0]:
            problems.append(f"{name}:{number} seconds = {parts[0]}, must be more than in the line before")
        else:
            found.append((int(float(parts[0])), float(parts[1])))
    if len(found) < 2 and not problems:
        problems.append(f"{name} has {len(found)} lines of demand, must have at least 2")
    if found and found[-1][0] - found[0][0] > _MAX_SECONDS:
        problems.append(f"{name} spans {found[-1][0] - found[0][0]} s, must be {_MAX_SECONDS} s at most")
    if problems:
        raise ConfigError("\n".join(problems[:100]))
    work: list[float] = []
    for (start, demand), (end, _) in itertools.pairwise(found):
        work += [demand] * (end - start)
    return Demand(name, (*work, found[-1][1]), 86400.0)


def _day(hour: float) -> float:
    """Requests a second at an hour of the day, from 0.5 at night to 600 in the afternoon."""
    morning, evening = _logistic((hour - 8) / 0.35), 1 - _logistic((hour - 19) / 0.9)
    noon = 1 - 0.25 * math.exp(-(((hour - 12.5) / 0.8) ** 2))
    afternoon = 1 + 0.2 * math.exp(-(((hour - 15.5) / 1.5) ** 2))
    return 0.5 + 500 * morning * evening * noon * afternoon


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-max(min(x, 60.0), -60.0)))


def _arrivals(
    name: str, rates: list[float], service_s: float, season_s: float, chance: random.Random
) -> Demand:
    return Demand(name, tuple(_poisson(rate, chance) * service_s for rate in rates), season_s)


def _poisson(mean: float, chance: random.Random) -> int:
    """Knuth's method where it is short, the normal approximation where it is good."""
    if mean > 30:
        return max(round(chance.gauss(mean, math.sqrt(mean))), 0)
    limit, product, count = math.exp(-mean), chance.random(), 0
    while product > limit:
        product *= chance.random()
        count += 1
    return count


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
