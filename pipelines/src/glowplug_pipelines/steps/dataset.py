"""The training set: the window's rows with features as known then, checked for what no model can be made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import FeatureError
from glowplug_pipelines.rows import Bools, Rows, milliseconds, read_rows, write_rows
from glowplug_pipelines.run import Outcome, Run
from glowplug_pipelines.settings import Span, WindowSettings
from glowplug_pipelines.steps import DATASET
from glowplug_pipelines.workload import Progress, Workload, code_hash


@dataclass(frozen=True)
class Split:
    """The window cut by time: fit | validation | gap | held out."""

    start: datetime
    validation: datetime
    gap: datetime
    holdout: datetime
    stop: datetime

    @classmethod
    def of(cls, span: Span, window: WindowSettings) -> Split:
        holdout = span.stop - timedelta(days=window.holdout_days)
        gap = holdout - timedelta(hours=window.gap_hours)
        return cls(span.start, gap - timedelta(days=window.validation_days), gap, holdout, span.stop)

    def to_json(self) -> dict[str, str]:
        return {name: moment.isoformat() for name, moment in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, str]) -> Split:
        return cls(**{name: datetime.fromisoformat(text) for name, text in values.items()})


@dataclass(frozen=True)
class Dataset:
    """What the step made, read back: only rows with a label."""

    rows: Rows
    split: Split

    @property
    def is_held_out(self) -> Bools:
        return np.asarray(self.rows.event_ms >= milliseconds(self.split.holdout))

    @property
    def fit(self) -> Rows:
        return self.rows.between(self.split.start, self.split.validation)

    @property
    def validation(self) -> Rows:
        return self.rows.between(self.split.validation, self.split.gap)

    @property
    def training(self) -> Rows:
        return self.rows.between(self.split.start, self.split.gap)

    @property
    def held_out(self) -> Rows:
        return self.rows.between(self.split.holdout, self.split.stop)


def build(run: Run, workload: Workload, window: WindowSettings, progress: Progress) -> Outcome:
    """Raises `FeatureError`: an empty or too small window, labels that are missing, a source that has changed."""
    span = run.request.span
    inputs = {
        "from": span.start.isoformat(),
        "to": span.stop.isoformat(),
        "window": asdict(window),
        "schema_hash": workload.schema_hash,
        "code_hash": code_hash(workload),
    }

    def make(folder: Path) -> dict[str, Any]:
        rows = workload.rows(span, progress)
        split = Split.of(span, window)
        counts = _checked(rows, split, span, window)
        known = rows.where(rows.is_labelled)
        write_rows(known, folder)
        return {
            **counts,
            "data_hash": known.digest(),
            "schema_hash": workload.schema_hash,
            "code_hash": inputs["code_hash"],
            "features": len(rows.names),
            "split": split.to_json(),
        }

    return run.step(DATASET, inputs, make)


def read(outcome: Outcome) -> Dataset:
    """Raises `FeatureError` where the files are gone."""
    return Dataset(read_rows(outcome.folder), Split.from_json(outcome.values["split"]))


def _checked(rows: Rows, split: Split, span: Span, window: WindowSettings) -> dict[str, int]:
    hint = "a longer or another window, or wait for more data"
    if len(rows) == 0:
        raise FeatureError(f"the window {span} has no rows", hint=hint)
    labelled = int(rows.is_labelled.sum())
    if labelled == 0:
        raise FeatureError(
            f"none of the {len(rows)} rows of the window {span} has a label",
            hint="do the labels arrive? training goes on when they do",
        )
    if labelled < window.min_labelled_share * len(rows):
        raise FeatureError(
            f"{labelled} of the {len(rows)} rows of the window {span} have a label, "
            f"must be {100 * window.min_labelled_share:g} % or more",
            hint="wait for the labels, or lower window.minLabelledShare",
        )
    data = Dataset(rows.where(rows.is_labelled), split)
    counts = {"training": len(data.training), "held_out": len(data.held_out)}
    for name, least in (("training", window.min_training_rows), ("held_out", window.min_holdout_rows)):
        if counts[name] < least:
            raise FeatureError(
                f"the window {span} has {counts[name]} {name.replace('_', '-')} rows with a label, "
                f"must be {least} or more",
                hint=hint,
            )
    parts = {"fit": len(data.fit), "validation": len(data.validation)}
    empty = [name for name, count in parts.items() if count == 0]
    if empty:
        raise FeatureError(f"the window {span} has no rows to {empty[0]} with", hint=hint)
    return {"rows": len(rows), "labelled": labelled, **counts, **parts}
