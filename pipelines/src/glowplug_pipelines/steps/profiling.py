"""The reference profile: what the window was like, for later days to be compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glowplug.drift.profile import PROFILE_FILE, Profile
from glowplug_pipelines.predictions import as_values
from glowplug_pipelines.run import Outcome, Run, write_bytes
from glowplug_pipelines.steps import PROFILE, dataset
from glowplug_pipelines.steps.training import MODEL_FOLDER
from glowplug_pipelines.workload import Workload


def profile(run: Run, workload: Workload, built: Outcome, trained: Outcome) -> Outcome:
    """Of all the window's labelled rows: the newest days are in it, and the held-out ones say what error to expect."""

    def make(folder: Path) -> dict[str, Any]:
        data = dataset.read(built)
        predictor = workload.load(trained.folder / MODEL_FOLDER)
        made = Profile.of(
            data.rows.features,
            data.rows.names,
            as_values(predictor.predict(data.rows.only(predictor.names))),
            data.rows.labels,
            started=data.split.start,
            ended=data.split.stop,
            at_ms=data.rows.event_ms,
            held_out=data.is_held_out,
            importance=predictor.importance,
        )
        write_bytes(folder / PROFILE_FILE, made.to_json())
        return {"rows": made.rows, "file": PROFILE_FILE}

    return run.step(PROFILE, {"dataset": built.digest, "train": trained.digest}, make)
