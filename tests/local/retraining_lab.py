"""A tiny pipeline: steps of a moment that write a model's file and register it, told by the test how to go."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from glowplug.registry.models import CHALLENGER, Candidate, RegistryConfig, register
from glowplug.wire.events import CloudEvent
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.triggering.result import Made
from glowplug_pipelines.triggering.state import Running
from glowplug_pipelines.workload import Progress

DRIFT = "dev.glowplug.drift.detected"
REQUESTED = "dev.glowplug.retraining.requested"


def settings(
    folder: pathlib.Path,
    triggering: Mapping[str, Any] | None = None,
    deploying: Mapping[str, Any] | None = None,
    registry: pathlib.Path | None = None,
) -> Settings:
    """Of the model `flights`, with all that it writes below `folder`, but for a registry that is shared."""
    return Settings(
        "flights",
        "local.retraining_lab:None",
        "",
        RegistryConfig.local(registry or folder / "mlflow"),
        folder / "runs",
        triggering=triggering or {},
        deploying=deploying or {},
    )


def event(type: str, id: str, data: Mapping[str, Any] | None = None, source: str = "/test") -> CloudEvent:
    """One about the model `flights`."""
    attributes = {"specversion": "1.0", "type": type, "source": source, "id": id}
    attributes["datacontenttype"] = "application/json"
    return CloudEvent(attributes, json.dumps({"model": "flights", **(data or {})}).encode())


def steps(
    during: Callable[[Running, Progress], None] = lambda running, progress: None, *, is_better: bool = True
) -> Callable[[Settings, Running, Progress], Made]:
    """Steps that register a file with the run's id in it, after `during`."""

    def make(settings: Settings, running: Running, progress: Progress) -> Made:
        during(running, progress)
        if not is_better:
            return Made(False, "fail", "the challenger is no better")
        folder = settings.work_dir / running.run
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.txt").write_text(running.run)
        card = settings.work_dir / f"{running.run}.md"
        card.write_text("# Model card\n")
        version = register(settings.registry, Candidate(settings.model, folder), alias=CHALLENGER)
        return Made(True, "pass", "the challenger is better", version, card)

    return make


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = 60.0) -> Any:
    """What `condition()` gives once it is true."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {deadline_s:.0f} s for {what}"
        time.sleep(0.02)
    return found
