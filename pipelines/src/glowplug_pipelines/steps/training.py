"""The challenger: the workload's model, trained on the window but for what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glowplug_pipelines.run import Outcome, Run
from glowplug_pipelines.steps import TRAIN, dataset
from glowplug_pipelines.workload import Progress, Workload

MODEL_FOLDER = "model"


def train(run: Run, workload: Workload, built: Outcome, progress: Progress) -> Outcome:
    def make(folder: Path) -> dict[str, Any]:
        data = dataset.read(built)
        directory = folder / MODEL_FOLDER
        directory.mkdir()
        metrics = workload.train(data.fit, data.validation, directory, progress)
        return {"metrics": dict(metrics)}

    return run.step(TRAIN, {"dataset": built.digest}, make)
