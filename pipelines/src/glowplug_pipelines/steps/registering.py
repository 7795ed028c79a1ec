"""A challenger that passed becomes a version in the registry, alias `challenger`; another only where it is forced."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glowplug.drift.profile import PROFILE_FILE
from glowplug.registry.models import CHALLENGER, Candidate, ModelVersion, RegistryConfig, register
from glowplug.registry.signature import Signature
from glowplug_pipelines.gate.checks import Result
from glowplug_pipelines.run import Outcome, Run
from glowplug_pipelines.steps import REGISTER, dataset
from glowplug_pipelines.steps.champion import TRAINED_TO_TAG
from glowplug_pipelines.steps.gating import CARD_FOLDER
from glowplug_pipelines.steps.training import MODEL_FOLDER
from glowplug_pipelines.workload import Progress, Workload

RUN_TAG = "glowplug.dev/run"
VERDICT_TAG = "glowplug.dev/verdict"
FORCED_TAG = "glowplug.dev/forced"
DATA_TAG = "glowplug.dev/data-hash"
CODE_TAG = "glowplug.dev/code-hash"
SCHEMA_TAG = "glowplug.dev/schema-hash"
# Every version of a pipeline has these.
TAGS = (RUN_TAG, VERDICT_TAG, FORCED_TAG, DATA_TAG, CODE_TAG, SCHEMA_TAG, TRAINED_TO_TAG)


@dataclass(frozen=True)
class Made:
    """What the run's earlier steps came to."""

    built: Outcome
    trained: Outcome
    evaluated: Outcome
    profiled: Outcome
    gated: Outcome


def register_challenger(
    run: Run, workload: Workload, registry: RegistryConfig, made: Made, *, is_forced: bool, progress: Progress
) -> Outcome:
    """Raises `StorageError` where the registry does not answer."""
    verdict = made.gated.values["verdict"]
    is_wanted = verdict == Result.PASS.value or is_forced

    def make(folder: Path) -> dict[str, Any]:
        if not is_wanted:
            return {"version": None}
        directory = _assembled(folder / MODEL_FOLDER, made)
        candidate = _candidate(run, made, directory, workload.signature, is_forced=is_forced)
        version = register(registry, candidate, alias=CHALLENGER, progress=progress)
        # The registry has it; what it was copied from is in the folders of the earlier steps.
        shutil.rmtree(directory)
        return {
            "version": version.version,
            "storage_uri": version.storage_uri,
            "run_id": version.run_id,
            "tags": dict(version.tags),
        }

    inputs = {"gate": made.gated.digest, "profile": made.profiled.digest, "forced": is_forced}
    return run.step(REGISTER, inputs, make)


def version_of(outcome: Outcome, model: str) -> ModelVersion | None:
    values = outcome.values
    if values["version"] is None:
        return None
    return ModelVersion(model, values["version"], values["storage_uri"], values["run_id"], values["tags"])


def _assembled(directory: Path, made: Made) -> Path:
    """The model's directory: its own files, the profile and the card. The same outcomes give the same bytes."""
    shutil.copytree(made.trained.folder / MODEL_FOLDER, directory)
    shutil.copyfile(made.profiled.folder / PROFILE_FILE, directory / PROFILE_FILE)
    shutil.copytree(made.gated.folder / CARD_FOLDER, directory / CARD_FOLDER)
    return directory


def _candidate(run: Run, made: Made, directory: Path, signature: Signature, *, is_forced: bool) -> Candidate:
    data = dataset.read(made.built)
    values, seen = made.built.values, made.evaluated.values
    tags = {
        RUN_TAG: run.request.id,
        VERDICT_TAG: made.gated.values["verdict"],
        FORCED_TAG: str(is_forced).lower(),
        DATA_TAG: values["data_hash"],
        CODE_TAG: values["code_hash"],
        SCHEMA_TAG: values["schema_hash"],
        TRAINED_TO_TAG: data.split.gap.isoformat(),
        "glowplug.dev/compared-with": seen["reference"],
        "glowplug.dev/trigger": f"{run.request.trigger.type} {run.request.trigger.id}".strip(),
    }
    params = {"from": data.split.start.isoformat(), "to": data.split.stop.isoformat()}
    params |= {name: str(values[name]) for name in ("training", "held_out", "features")}
    return Candidate(
        name=run.request.model,
        directory=directory,
        metrics=_metrics(made.trained.values["metrics"], seen),
        params=params,
        tags=tags,
        signature=replace(signature, metadata={tag: tags[tag] for tag in (DATA_TAG, CODE_TAG, SCHEMA_TAG)}),
    )


def _metrics(trained: Mapping[str, float], seen: Mapping[str, Any]) -> dict[str, float]:
    metrics = {
        **trained,
        "loss": seen["loss"],
        "latency_ms": seen["latency_ms"],
        "size_bytes": seen["size_bytes"],
    }
    known = {name: seen[name] for name in ("reference_loss", "accuracy", "reference_accuracy")}
    return metrics | {name: value for name, value in known.items() if value is not None}
