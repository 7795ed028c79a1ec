"""The gate's verdict on the run's evidence, and the card that tells it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from glowplug_pipelines import card
from glowplug_pipelines.gate.verdict import Verdict, judge
from glowplug_pipelines.run import Outcome, Run
from glowplug_pipelines.settings import GateSettings
from glowplug_pipelines.steps import GATE, evaluation
from glowplug_pipelines.workload import Workload

CARD_FOLDER = "card"


def decide(
    run: Run, workload: Workload, settings: GateSettings, built: Outcome, trained: Outcome, evaluated: Outcome
) -> Outcome:
    def make(folder: Path) -> dict[str, Any]:
        seen = evaluation.evidence(workload, built, evaluated)
        verdict = judge(seen, settings)
        directory = folder / CARD_FOLDER
        directory.mkdir()
        facts = card.Facts(run.request, built.values, trained.values, evaluated.values, workload.unit)
        card.write(directory, facts, seen, verdict)
        return verdict.to_json()

    inputs = {"evaluate": evaluated.digest, "gate": asdict(settings)}
    return run.step(GATE, inputs, make)


def verdict_of(outcome: Outcome) -> Verdict:
    return Verdict.from_json(outcome.values)


def card_of(outcome: Outcome) -> Path:
    """The Markdown file."""
    return outcome.folder / CARD_FOLDER / card.CARD_FILE
