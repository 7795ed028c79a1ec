"""Challenger and reference on the same held-out rows: what they predict, what they lose, how fast they are.

The reference is the champion. Where there never was one it is the workload's naive baseline. Where there is one that
cannot be asked, taken away by hand or trained on features that are no longer there, nothing can be compared.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import FeatureError, StorageError
from glowplug.registry.aliases import Presence
from glowplug_pipelines.gate.evidence import Cost, Evidence
from glowplug_pipelines.predictions import accuracy, are_of_classes, calibrated
from glowplug_pipelines.rows import Float64s, Rows
from glowplug_pipelines.run import Outcome, Run
from glowplug_pipelines.steps import EVALUATE, dataset
from glowplug_pipelines.steps.training import MODEL_FOLDER
from glowplug_pipelines.workload import Predictor, Workload

NAIVE = "the naive baseline"
_TIMED_ROWS = 100
_PREDICTIONS = "predictions.npz"


@dataclass(frozen=True)
class _Reference:
    name: str
    predictions: Float64s
    predictor: Predictor | None = None
    unjudged: str = ""


def evaluate(run: Run, workload: Workload, built: Outcome, trained: Outcome, fetched: Outcome) -> Outcome:
    def make(folder: Path) -> dict[str, Any]:
        data = dataset.read(built)
        held_out = data.held_out
        challenger = workload.load(trained.folder / MODEL_FOLDER)
        predictions = _predict(challenger, held_out)
        reference = _reference(workload, fetched, data.training, held_out)
        columns = {
            "predictions": predictions,
            "losses": workload.losses(predictions, held_out.labels),
            "reference_predictions": reference.predictions,
            # Where there is nothing to compare with there is nothing that a workload could make of it.
            "reference_losses": workload.losses(reference.predictions, held_out.labels)
            if not reference.unjudged
            else reference.predictions,
        }
        np.savez(folder / _PREDICTIONS, **columns)
        latencies = _latencies([challenger, reference.predictor], held_out)
        return {
            "reference": reference.name,
            "unjudged": reference.unjudged,
            "loss": float(columns["losses"].mean()),
            "reference_loss": _finite(columns["reference_losses"].mean()),
            "accuracy": accuracy(predictions, held_out.labels),
            "reference_accuracy": accuracy(reference.predictions, held_out.labels),
            "latency_ms": latencies[0],
            "reference_latency_ms": latencies[1] if reference.predictor else None,
            "size_bytes": _size(trained.folder / MODEL_FOLDER),
            "seen_by_champion": _seen(fetched, held_out),
        }

    inputs = {"dataset": built.digest, "train": trained.digest, "champion": fetched.digest}
    return run.step(EVALUATE, inputs, make)


def evidence(workload: Workload, built: Outcome, evaluated: Outcome) -> Evidence:
    """What the gate decides on, from the files of the run."""
    held_out = dataset.read(built).held_out
    values = evaluated.values
    reference_ms = values["reference_latency_ms"]
    with np.load(evaluated.folder / _PREDICTIONS) as columns:
        predicted = columns["predictions"]
        said, came = calibrated(predicted, held_out.labels)
        reference_said, reference_came = calibrated(columns["reference_predictions"], held_out.labels)
        return Evidence(
            labels=came,
            predictions=said,
            losses=columns["losses"],
            reference_labels=reference_came,
            reference_predictions=reference_said,
            reference_losses=columns["reference_losses"],
            event_ms=held_out.event_ms,
            slices={name: held_out.slices[name] for name in workload.slices},
            cost=Cost(values["latency_ms"], values["size_bytes"]),
            reference=values["reference"],
            reference_cost=None if reference_ms is None else Cost(reference_ms, 0),
            unit=workload.unit,
            unjudged=values["unjudged"],
            of_classes=are_of_classes(predicted),
        )


def _reference(workload: Workload, fetched: Outcome, training: Rows, held_out: Rows) -> _Reference:
    nothing = np.full(len(held_out), np.nan)
    if fetched.values["presence"] == Presence.NONE_YET.value:
        return _Reference(NAIVE, workload.naive(training, held_out))
    name = f"champion {fetched.values['version'] or fetched.values['last']}"
    if fetched.values["presence"] == Presence.TAKEN_AWAY.value:
        reason = (
            f"{name} was taken away by hand: there is no alias champion to compare with; "
            "name one: glowplug pipelines promote VERSION"
        )
        return _Reference(name, nothing, unjudged=reason)
    try:
        predictor = workload.load(fetched.folder / MODEL_FOLDER)
        return _Reference(name, _predict(predictor, held_out), predictor)
    except (FeatureError, StorageError) as error:
        reason = f"{name} cannot be asked about the held-out rows: {error.message}"
        return _Reference(name, nothing, unjudged=reason)


def _predict(predictor: Predictor, rows: Rows) -> Float64s:
    """Its own features among the rows', by name: a model may know fewer than there are now."""
    return np.asarray(predictor.predict(rows.only(predictor.names)), dtype=np.float64)


def _latencies(predictors: list[Predictor | None], rows: Rows) -> list[float]:
    """Median milliseconds of a single row, the predictors by turns so that a busy computer is busy for all."""
    took: list[list[float]] = [[] for _ in predictors]
    for row in range(min(_TIMED_ROWS, len(rows))):
        for predictor, times in zip(predictors, took, strict=True):
            if predictor is not None:
                single = rows.where(slice(row, row + 1)).only(predictor.names)
                started = time.perf_counter()
                predictor.predict(single)
                times.append(1000 * (time.perf_counter() - started))
    return [statistics.median(times) if times else 0.0 for times in took]


def _seen(fetched: Outcome, held_out: Rows) -> int:
    """Of how many held-out rows the champion may have known the labels: they flatter it."""
    if not fetched.values["trained_to"]:
        return 0
    trained_to = np.datetime64(fetched.values["trained_to"].removesuffix("+00:00"), "ms").astype(np.int64)
    return int((held_out.event_ms < trained_to).sum())


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
