"""The profiles as locust's LoadTestShapes.

A shape's number of users is one: it is not users that make an open loop's load but the schedule, which the one user
works off with as many greenlets as it takes.
"""

from __future__ import annotations

import types

from locust import LoadTestShape

from glowplug_loadtest import profiles
from glowplug_loadtest.profiles import Profile


class ProfileShape(LoadTestShape):
    """Lasts as long as its profile, and then until the user has said that the last answer is there."""

    abstract = True
    profile: Profile

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_over = False

    def tick(self) -> tuple[int, float] | None:
        """Asked by locust once a second."""
        return None if self.is_over else (1, 1.0)


class Steady(ProfileShape):
    """100 requests a second for 5 minutes."""

    profile = profiles.STEADY


class Bursty(ProfileShape):
    """100 requests a second with a tenfold spike from 60 to 120 s."""

    profile = profiles.BURSTY


class Ramp(ProfileShape):
    """50 to 500 requests a second within 5 minutes."""

    profile = profiles.RAMP


SHAPES: dict[str, type[ProfileShape]] = {each.profile.name: each for each in (Steady, Bursty, Ramp)}


def shape_of(profile: Profile) -> type[ProfileShape]:
    """The shape of the profile's name, with this profile: scaled or cut."""
    base = SHAPES[profile.name]
    made: type[ProfileShape] = types.new_class(
        base.__name__, (base,), exec_body=lambda namespace: namespace.update(profile=profile)
    )
    return made
