"""The model card: what the gate saw and decided, in Markdown with plots, stored beside the model.

It is also the text of the commit that deploys the model, so the verdict comes first and the Markdown stands alone.
The same facts give the same bytes: the card is part of the content that the registry knows a version by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowplug_pipelines import plots
from glowplug_pipelines.gate.checks import Check, SliceDifference
from glowplug_pipelines.gate.evidence import Evidence
from glowplug_pipelines.gate.verdict import Verdict
from glowplug_pipelines.run import Request

CARD_FILE = "card.md"
_SHOWN_SLICES = 10
_MARKS = {"pass": "passed", "fail": "**failed**", "inconclusive": "**inconclusive**"}


@dataclass(frozen=True)
class Facts:
    """What the steps before the gate came to, as they wrote it."""

    request: Request
    built: Mapping[str, Any]
    trained: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    unit: str


def write(directory: Path, facts: Facts, evidence: Evidence, verdict: Verdict) -> None:
    """`card.md` and its plots into `directory`, which exists."""
    pictures = [] if evidence.unjudged else plots.draw(directory, evidence, verdict)
    text = "\n".join(_lines(facts, evidence, verdict, pictures)) + "\n"
    (directory / CARD_FILE).write_text(text, encoding="utf-8")


def _lines(
    facts: Facts, evidence: Evidence, verdict: Verdict, pictures: list[plots.Picture]
) -> Iterator[str]:
    request = facts.request
    yield f"# {request.model}: {verdict.result.value}"
    yield ""
    yield f"{verdict.reason}."
    yield ""
    yield f"Run `{request.id}`, asked for by `{request.trigger.type}` {request.trigger.id}".rstrip()
    yield ""
    yield "## Checks"
    yield ""
    yield "| check | result | |"
    yield "| --- | --- | --- |"
    yield from (_check(each) for each in verdict.checks)
    yield ""
    yield from _data(facts)
    yield from _slices(verdict.slices, evidence)
    yield from _calibration(verdict)
    for picture in pictures:
        yield f"![{picture.caption}]({picture.file})"
        yield ""
        yield f"*{picture.caption}.*"
        yield ""
    yield from _limits(facts, evidence)


def _check(check: Check) -> str:
    return f"| {check.name} | {_MARKS[check.result.value]} | {check.reason.replace('|', '/')} |"


def _data(facts: Facts) -> Iterator[str]:
    built, split = facts.built, facts.built["split"]
    yield "## Data and model"
    yield ""
    yield "| | |"
    yield "| --- | --- |"
    yield f"| training | {built['training']:,} rows, {_day(split['start'])} to {_day(split['gap'])} |"
    yield f"| of these for early stopping | {built['validation']:,} rows from {_day(split['validation'])} on |"
    yield f"| held out | {built['held_out']:,} rows, {_day(split['holdout'])} to {_day(split['stop'])} |"
    yield f"| without a label | {built['rows'] - built['labelled']:,} rows, left out |"
    yield f"| features | {built['features']}, schema `{built['schema_hash']}` |"
    if facts.evaluated["accuracy"] is not None:
        yield f"| accuracy, held out | {_accuracies(facts.evaluated)} |"
    yield f"| data, code | `{built['data_hash']}`, `{built['code_hash']}` |"
    for name, value in sorted(facts.trained["metrics"].items()):
        yield f"| {name} | {value:.6g} |"
    yield ""


def _accuracies(evaluated: Mapping[str, Any]) -> str:
    beside = evaluated["reference_accuracy"]
    own = f"{100 * evaluated['accuracy']:.1f} %"
    return own if beside is None else f"{own}, {evaluated['reference']} {100 * beside:.1f} %"


def _slices(differences: tuple[SliceDifference, ...], evidence: Evidence) -> Iterator[str]:
    if not differences:
        return
    yield "## Slices"
    yield ""
    shown = min(len(differences), _SHOWN_SLICES)
    yield (
        f"Loss beside that of {evidence.reference}, the worst {shown} of {len(differences)}; "
        "the bounds hold for all of them together."
    )
    yield ""
    yield "| slice | rows | difference | at least |"
    yield "| --- | ---: | ---: | ---: |"
    for each in differences[:_SHOWN_SLICES]:
        yield (
            f"| {each.name} {each.value} | {each.rows:,} "
            f"| {each.percent.mean:+.1f} % | {each.percent.low:+.1f} % |"
        )
    yield ""


def _calibration(verdict: Verdict) -> Iterator[str]:
    for check in verdict.checks:
        quantiles = check.numbers.get("residual_quantiles")
        if quantiles:
            yield "## Residuals"
            yield ""
            yield "| quantile | label - prediction |"
            yield "| --- | ---: |"
            yield from (f"| {100 * float(level):g} % | {value:+.2f} |" for level, value in quantiles.items())
            yield ""


def _limits(facts: Facts, evidence: Evidence) -> Iterator[str]:
    yield "## What this does not say"
    yield ""
    yield "- Intervals rest on whole days drawn anew, and on how alike days in a row were taken to be;"
    yield "  weeks that are unlike the held-out ones are in none of them."
    yield "- Latency is that of one row in the model alone, without a server or features."
    seen = facts.evaluated["seen_by_champion"]
    if seen:
        yield f"- {evidence.reference} may have been trained on {seen:,} of the held-out rows, which flatters it."


def _day(moment: str) -> str:
    return moment[:16].replace("T", " ")
