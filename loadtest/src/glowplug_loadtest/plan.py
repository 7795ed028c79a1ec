"""What one load test does: a value that goes from the command to the processes that send, as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from urllib.parse import urlsplit

from glowplug.errors import ConfigError
from glowplug_loadtest.arrivals import KINDS
from glowplug_loadtest.profiles import Profile, Segment

REST, GRPC = "rest", "grpc"
PROTOCOLS = (REST, GRPC)
REFERENCE, SHAPE = "reference", "shape"
CHECKS = (REFERENCE, SHAPE)


@dataclasses.dataclass(frozen=True)
class Plan:
    """`url` is the service's root, `host` the Host header where it is not the URL's own.

    `check` `reference`: before the load each distinct request is sent once, and its answer is what every later one
    must equal; `shape`: an answer must be well formed and finite, and nothing is sent ahead.
    """

    url: str
    model: str
    profile: Profile
    host: str = ""
    protocol: str = REST
    arrivals: str = KINDS[0]
    check: str = REFERENCE
    seed: int = 1
    workers: int = 1
    timeout_s: float = 30.0
    max_in_flight: int = 2000
    warm_up_s: float = 0.0

    @property
    def authority(self) -> str:
        """What the Host header (or `:authority`) says."""
        return self.host or urlsplit(self.url).netloc

    def problems(self) -> list[str]:
        """All that is wrong with it, as a user of the command line reads it."""
        parts = urlsplit(self.url)
        wrong = []
        if parts.scheme not in ("http", "https") or not parts.hostname:
            wrong.append(f"{self.url}: expected a URL such as http://127.0.0.1:8080/serving/default/flights")
        wrong += [
            f"{flag} {value}: expected {' or '.join(known)}"
            for flag, value, known in (
                ("--protocol", self.protocol, PROTOCOLS),
                ("--arrivals", self.arrivals, KINDS),
                ("--check", self.check, CHECKS),
            )
            if value not in known
        ]
        wrong += [
            f"{flag} {value:g}: expected at least {least:g}"
            for flag, value, least in (
                ("--workers", self.workers, 1),
                ("--timeout", self.timeout_s, 0.001),
                ("--max-in-flight", self.max_in_flight, self.workers),
                ("--warm-up", self.warm_up_s, 0),
            )
            if not (value >= least and math.isfinite(value))
        ]
        if self.warm_up_s >= self.profile.duration_s:
            wrong.append(
                f"--warm-up {self.warm_up_s:g}: the load lasts {self.profile.duration_s:g} s, nothing is left of it"
            )
        return wrong

    def checked(self) -> Plan:
        """Itself. Raises ConfigError with all its problems."""
        if wrong := self.problems():
            raise ConfigError("; ".join(wrong))
        return self


def write(plan: Plan, path: pathlib.Path) -> None:
    """As JSON."""
    path.write_text(json.dumps(dataclasses.asdict(plan), indent=2) + "\n")


def read(path: pathlib.Path) -> Plan:
    """What `write` wrote."""
    fields = json.loads(path.read_text())
    profile = fields.pop("profile")
    segments = tuple(Segment(**segment) for segment in profile.pop("segments"))
    return Plan(profile=Profile(segments=segments, **profile), **fields)
