"""How often a model may be retrained: the section `triggering` of a pipeline's YAML, read and checked. Values only.

triggering: {inferenceService: flights, coolDownMinutes: 60, runsPerDay: 8, leaseSeconds: 60, attempts: 3}
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from glowplug_pipelines.sections import Section
from glowplug_pipelines.settings import Settings

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LEASE_S = (1.0, 3600.0)


@dataclass(frozen=True)
class Rules:
    """Which model is meant, and when it may be retrained.

    A trigger within `cool_down_s` of a run's start is answered by that run. `runs_per_day` bounds the starts in any
    24 hours. A run whose process has not renewed its lease for `lease_s` is taken over; it is begun `attempts` times
    at most.
    """

    model: str
    inference_service: str
    namespace: str = "default"
    cool_down_s: float = 3600.0
    runs_per_day: int = 8
    lease_s: float = 60.0
    attempts: int = 3


def rules_of(settings: Settings) -> Rules:
    """The rules; the InferenceService has the model's name where none is given. Raises ConfigError, all problems."""
    section = Section(settings.triggering, "the settings", {(): 1}, ("triggering",))
    service = section.text("inferenceService", settings.model)
    if not _NAME.fullmatch(service):
        section.problem(
            "inferenceService", f"= {service!r}, must be lower-case letters, digits and -, up to 63"
        )
    default = Rules(settings.model, service)
    found = Rules(
        settings.model,
        service,
        settings.namespace,
        60 * section.number("coolDownMinutes", default.cool_down_s / 60, at_least=0),
        section.whole("runsPerDay", default.runs_per_day, at_least=1),
        section.number("leaseSeconds", default.lease_s, at_least=_LEASE_S[0], below=_LEASE_S[1]),
        section.whole("attempts", default.attempts, at_least=1),
    )
    section.finish()
    return found
