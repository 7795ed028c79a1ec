"""A whole run: every step in its order, resumed where an earlier process of the same run was stopped.

MLflow takes seconds to be imported and opened, and training does not need it: a thread does that meanwhile, and brings
the champion as soon as there are rows to ask it about. Another makes the profile while the challenger is evaluated and
judged: neither needs the other.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowplug.errors import StorageError
from glowplug.registry.models import ModelVersion, RegistryConfig, warm
from glowplug_pipelines import plots
from glowplug_pipelines.gate.verdict import Verdict
from glowplug_pipelines.run import Outcome, Request, Run, Status, open_run
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.steps import (
    GATE,
    REGISTER,
    champion,
    dataset,
    evaluation,
    gating,
    profiling,
    registering,
    training,
)
from glowplug_pipelines.workload import Progress, Workload, load_workload, silent


@dataclass(frozen=True)
class Finished:
    """What a run came to. `version` is None for a challenger that may not be deployed; `card` is Markdown."""

    run_id: str
    verdict: Verdict
    version: ModelVersion | None
    card: Path
    folder: Path


def execute(
    settings: Settings, request: Request, *, is_forced: bool = False, progress: Progress = silent
) -> Finished:
    """All steps of the run `request.id`; those that are done are not done again, and neither is a finished run.

    `is_forced` registers a challenger that did not pass, and says so in its tags. What goes wrong is raised and
    written into the run's status; the same call goes on from there. Raises `DataDirHeld` while another process has
    the run, `FeatureError` for data that no model can be made of, `StorageError` where a store does not answer.
    """
    with open_run(settings.work_dir, request) as run:
        finished = _finished(run, is_forced=is_forced)
        if finished is not None:
            return finished
        workload = load_workload(settings)
        gated, made = _to_the_gate(run, workload, settings, progress)
        registered = registering.register_challenger(
            run, workload, settings.registry, made, is_forced=is_forced, progress=progress
        )
        return conclude(run, gated, registered)


def conclude(run: Run, gated: Outcome, registered: Outcome) -> Finished:
    """Write the run's status: finished, with what it came to."""
    verdict = gating.verdict_of(gated)
    version = registering.version_of(registered, run.request.model)
    details: dict[str, Any] = {"verdict": verdict.result.value, "forced": registered.inputs["forced"]}
    if version is not None:
        details |= {"version": version.version, "storage_uri": version.storage_uri}
    run.report(Status("finished", REGISTER, verdict.reason, details=details))
    return Finished(run.request.id, verdict, version, gating.card_of(gated), run.folder)


def _finished(run: Run, *, is_forced: bool) -> Finished | None:
    gated, registered = run.outcome(GATE), run.outcome(REGISTER)
    if run.status.state != "finished" or gated is None or registered is None:
        return None
    version = registering.version_of(registered, run.request.model)
    if version is None and is_forced:
        return None
    return Finished(run.request.id, gating.verdict_of(gated), version, gating.card_of(gated), run.folder)


def _to_the_gate(
    run: Run, workload: Workload, settings: Settings, progress: Progress
) -> tuple[Outcome, registering.Made]:
    with (
        ThreadPoolExecutor(1, thread_name_prefix="registry") as beside,
        ThreadPoolExecutor(1, thread_name_prefix="profile") as pool,
    ):
        beside.submit(_open, settings.registry)
        built = dataset.build(run, workload, settings.window, progress)
        fetching = beside.submit(champion.fetch, run, settings.registry)
        trained = training.train(run, workload, built, progress)
        profiled = pool.submit(profiling.profile, run, workload, built, trained)
        progress("comparing with the champion", 0, 0)
        evaluated = evaluation.evaluate(run, workload, built, trained, fetching.result())
        gated = gating.decide(run, workload, settings.gate, built, trained, evaluated)
        return gated, registering.Made(built, trained, evaluated, profiled.result(), gated)


def _open(registry: RegistryConfig) -> None:
    plots.warm()
    # The step that needs it says so.
    with suppress(StorageError):
        warm(registry)
