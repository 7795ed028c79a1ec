"""What `demo retraining` came to: measured while it runs, told when it is over."""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glowplug.cli import output
from glowplug.errors import GlowplugError
from glowplug.registry import aliases
from glowplug.registry.models import RegistryConfig, resolve
from glowplug_flights import retraining_demo_door as door_events
from glowplug_flights.retraining_demo import Plan
from glowplug_flights.retraining_demo_door import Door, Passed
from glowplug_flights.retraining_demo_plot import Mark

_CHAMPION_S = 90.0
_BRIEF = 160


@dataclass
class Outcome:
    """What the loop came to. Errors are predicted less actual minutes, a flight each, in the order of `event_ms`."""

    plan: Plan
    event_ms: Any
    delays: Any
    errors: Any
    errors_without: Any
    marks: list[Mark]
    drift_to_canary_s: list[float]
    champion: str
    rejected: dict[str, str]
    gate_reason: str
    rollback_reason: str
    picture: pathlib.Path
    seconds: float
    features: Any = field(repr=False)

    @property
    def mae(self) -> float:
        return float(np.abs(self.errors).mean())

    @property
    def mae_without(self) -> float:
        return float(np.abs(self.errors_without).mean())

    def happened(self, what: str) -> list[Mark]:
        """The marks of one kind."""
        return [mark for mark in self.marks if mark.what == what]


@dataclass(frozen=True)
class Succession:
    """`champion`: a version's number; `rejected`: why others are not, by theirs."""

    champion: str
    rejected: dict[str, str]


def wait_succession(
    registry: RegistryConfig, name: str, first: str, deployed: Sequence[Passed], marks: Sequence[Mark]
) -> Succession:
    """Once the Jobs that move the aliases are through. Raises GlowplugError where they are not in time."""
    versions = [str(each.data["version"]) for each in deployed]
    ends = [mark.what for mark in marks if mark.what in ("promoted", "rolled back")]
    promoted = [version for version, end in zip(versions, ends, strict=False) if end == "promoted"]
    refused = [version for version, end in zip(versions, ends, strict=False) if end == "rolled back"]
    wanted = promoted[-1] if promoted else first
    limit = time.monotonic() + _CHAMPION_S
    while True:
        found = aliases.champion(registry, name)
        champion = found.version.version if found.version else ""
        rejected = {
            each: resolve(registry, name, each).tags.get(aliases.REJECTED_TAG, "") for each in refused
        }
        if champion == wanted and all(rejected.values()):
            return Succession(champion, rejected)
        if time.monotonic() > limit:
            raise GlowplugError(
                f"champion is version {champion or 'none'}, expected {wanted}; rejected: {rejected}",
                hint="the Jobs' logs say why: kubectl get jobs",
            )
        time.sleep(0.2)


def seconds_to_canary(door: Door, deployed: Sequence[Passed]) -> list[float]:
    """From each drift event to the first request of the canary that came of it."""
    found = []
    for each in deployed:
        id = (each.data.get("trigger") or {}).get("id")
        asked = [event for event in door.passed(door_events.DRIFT) if event.id == id]
        after = [at for at in door.first_request.values() if asked and at > each.wall]
        if after:
            found.append(min(after) - asked[0].wall)
    return found


def report(outcome: Outcome) -> None:
    change = 100 * (outcome.mae / outcome.mae_without - 1)
    print(
        f"\nmean absolute error over {len(outcome.errors):,} flights, minutes:\n"
        f"  {outcome.mae:6.2f}  with the loop\n"
        f"  {outcome.mae_without:6.2f}  without it\n"
        f"  {change:+.1f} %; champion is version {outcome.champion}"
    )
    promoted = outcome.happened("promoted")
    if promoted:
        after = outcome.event_ms > promoted[0].at_ms
        with_it, without = (
            float(np.abs(each[after]).mean()) for each in (outcome.errors, outcome.errors_without)
        )
        print(f"  {with_it:6.2f}  after the first promotion; {without:.2f} without it")
    for seconds in outcome.drift_to_canary_s:
        print(f"  {seconds:6.1f} s from the drift event to the first request of the canary")
    print(f"picture: {output.relative(outcome.picture)}")
    sys.stdout.flush()
    output.done(f"{outcome.seconds:.0f} s in all")


def brief(reason: str) -> str:
    """What comes first: a verdict may have a page of reasons."""
    return reason if len(reason) <= _BRIEF else f"{reason[:_BRIEF].rsplit(' ', 1)[0]} …"
