"""When each request is due. Pure: a profile, a kind and a seed give the same times always.

Due times never depend on answers. A service that stalls does not make the load wait for it, so the requests that a
user would have sent meanwhile are there to be counted (Gil Tene, "How NOT to Measure Latency": coordinated omission).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from glowplug_loadtest.profiles import Profile

CONSTANT, POISSON = "constant", "poisson"
KINDS = (POISSON, CONSTANT)


def due_times(
    profile: Profile, kind: str, seed: int, *, index: int = 0, of: int = 1
) -> Iterator[tuple[int, float]]:
    """(number, seconds from the start), in order; of several senders each takes every `of`-th from `index` on.

    `constant`: evenly spaced at the profile's rate. `poisson`: independent users; a Poisson process of rate 1, drawn
    on the axis of requests due and mapped back to time, is one of the profile's rate.
    """
    drawn = random.Random(seed)
    total = profile.count
    due, number = (0.5 if kind == CONSTANT else drawn.expovariate(1.0)), 0
    while due < total:
        if number % of == index:
            yield number, profile.time_of(due)
        number += 1
        due += 1.0 if kind == CONSTANT else drawn.expovariate(1.0)
