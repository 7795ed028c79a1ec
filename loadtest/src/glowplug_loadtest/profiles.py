"""Load profiles: how many requests a second are due at which time. Pure.

A profile is a row of segments in which the rate is a straight line. Its integral, the number of requests due up to a
time, is a row of parabolas, so that both directions (`due_until`, `time_of`) are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from glowplug.errors import ConfigError


@dataclass(frozen=True)
class Segment:
    """`duration_s` seconds in which the rate goes from `start_rps` to `end_rps` requests a second."""

    duration_s: float
    start_rps: float
    end_rps: float

    @property
    def count(self) -> float:
        """Requests that are due in it."""
        return self.duration_s * (self.start_rps + self.end_rps) / 2

    def until(self, t: float) -> float:
        """Requests due in its first `t` seconds."""
        return self.start_rps * t + (self.end_rps - self.start_rps) * t * t / (2 * self.duration_s)

    def time_of(self, count: float) -> float:
        """The inverse of `until`, 0 <= count <= self.count."""
        # s·t² + r·t = count with s = (end - start) / 2d; this form of the root holds for s = 0 too.
        half_slope = (self.end_rps - self.start_rps) / (2 * self.duration_s)
        root = math.sqrt(max(self.start_rps**2 + 4 * half_slope * count, 0.0))
        return min(2 * count / (self.start_rps + root), self.duration_s) if count else 0.0


@dataclass(frozen=True)
class Profile:
    """A named row of segments."""

    name: str
    segments: tuple[Segment, ...]
    says: str = ""

    @property
    def duration_s(self) -> float:
        return sum(segment.duration_s for segment in self.segments)

    @property
    def count(self) -> float:
        """Requests that are due in all."""
        return sum(segment.count for segment in self.segments)

    def rate_at(self, t: float) -> float:
        """Requests a second at `t`; 0 before it begins and after it has ended. At a step the later one holds."""
        for segment in self.segments if t >= 0 else ():
            if t < segment.duration_s:
                return segment.start_rps + (segment.end_rps - segment.start_rps) * t / segment.duration_s
            t -= segment.duration_s
        return 0.0

    def due_until(self, t: float) -> float:
        """How many requests are due up to `t`."""
        due = 0.0
        for segment in self.segments:
            if t <= 0:
                break
            due += segment.until(min(t, segment.duration_s))
            t -= segment.duration_s
        return due

    def time_of(self, count: float) -> float:
        """When `count` requests are due: the inverse of `due_until`; infinite beyond the profile's count."""
        begun = 0.0
        for segment in self.segments:
            if count <= segment.count and segment.count > 0:
                return begun + segment.time_of(count)
            count -= segment.count
            begun += segment.duration_s
        return math.inf

    def steps_up(self) -> tuple[float, ...]:
        """The times at which the rate jumps up."""
        found, begun, before = [], 0.0, math.inf
        for segment in self.segments:
            if segment.start_rps > before:
                found.append(begun)
            begun += segment.duration_s
            before = segment.end_rps
        return tuple(found)

    def scaled(self, scale: float, time_scale: float) -> Profile:
        """Every rate times `scale`, every duration times `time_scale`. Raises ConfigError where one is not above 0."""
        wrong = [
            f"{flag} {value:g}: expected a number above 0"
            for flag, value in (("--scale", scale), ("--time-scale", time_scale))
            if not (value > 0 and math.isfinite(value))
        ]
        if wrong:
            raise ConfigError("; ".join(wrong))
        segments = tuple(
            Segment(each.duration_s * time_scale, each.start_rps * scale, each.end_rps * scale)
            for each in self.segments
        )
        return Profile(self.name, segments, self.says)

    def first(self, duration_s: float) -> Profile:
        """The profile's first `duration_s` seconds, or all of it where it is shorter."""
        if not duration_s > 0:
            raise ConfigError(f"--duration {duration_s:g}: expected a number of seconds above 0")
        kept: list[Segment] = []
        for segment in self.segments:
            length = min(segment.duration_s, duration_s)
            if length <= 0:
                break
            slope = (segment.end_rps - segment.start_rps) / segment.duration_s
            kept.append(Segment(length, segment.start_rps, segment.start_rps + slope * length))
            duration_s -= length
        return Profile(self.name, tuple(kept), self.says)


STEADY = Profile("steady", (Segment(300, 100, 100),), "100 requests a second for 5 minutes")
BURSTY = Profile(
    "bursty",
    (Segment(60, 100, 100), Segment(60, 1000, 1000), Segment(180, 100, 100)),
    "100 requests a second for 5 minutes, 1000 from 60 to 120 s",
)
RAMP = Profile("ramp", (Segment(300, 50, 500),), "from 50 to 500 requests a second within 5 minutes")
PROFILES = {profile.name: profile for profile in (STEADY, BURSTY, RAMP)}


def profile_named(name: str) -> Profile:
    """One of PROFILES; ConfigError lists them where there is none of that name."""
    if name not in PROFILES:
        raise ConfigError(f'no profile is named "{name}"', hint=f"there are: {', '.join(PROFILES)}")
    return PROFILES[name]
