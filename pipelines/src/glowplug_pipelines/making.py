"""The steps as triggering asks for them: a trigger's window, a whole run of it, and what came of that."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from glowplug.spec.times import parse_time
from glowplug_pipelines import run
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.triggering.result import Made
from glowplug_pipelines.triggering.state import Running
from glowplug_pipelines.triggering.trigger import DATA, DRIFT, REQUESTED, Trigger
from glowplug_pipelines.workload import Progress


def make(settings: Settings, running: Running, progress: Progress) -> Made:
    """A `glowplug_pipelines.triggering.result.Steps`. Raises what `execute` raises.

    A person's request whose data say `pastGate: true` registers, and so deploys, also what the gate did not pass.
    """
    # Takes a second with scipy, which an event that is only skipped need not pay.
    from glowplug_pipelines.execution import execute

    asked = running.trigger
    trigger = run.Trigger(asked.type, asked.id, asked.source)
    request = run.Request(running.run, settings.model, settings.window.before(window_end(asked)), trigger)
    is_forced = asked.type == REQUESTED and asked.data.get("pastGate") is True
    finished = execute(settings, request, is_forced=is_forced, progress=progress)
    verdict = finished.verdict
    return Made(
        is_better=finished.version is not None,
        verdict=verdict.result.value,
        reason=verdict.reason,
        version=finished.version,
        card=finished.card,
    )


def window_end(trigger: Trigger) -> datetime:
    """Up to where a trigger says that there are data; else the moment when it was sent."""
    said: Any = None
    if trigger.type in (DATA, REQUESTED):
        said = trigger.data.get("to")
    elif trigger.type == DRIFT and isinstance(trigger.data.get("window"), Mapping):
        said = trigger.data["window"].get("to")
    moment = parse_time(said) if isinstance(said, str) else None
    return moment or datetime.fromtimestamp(trigger.at, tz=timezone.utc)
