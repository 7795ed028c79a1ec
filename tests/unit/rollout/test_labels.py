"""Losses of labelled requests: from the detector's page into the judge's evidence."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.rollout import labels
from glowplug.rollout.assessment import Assessment
from glowplug.rollout.evidence import Evidence, NoEvidence, Sample
from glowplug.rollout.gates import ERRORS, LOSS, parse_gates
from glowplug.rollout.judge import judge
from glowplug.rollout.labels import LOSSES, PREDICTIONS, SQUARES, LabelledSource, Losses
from glowplug.rollout.state import Member
from glowplug.rollout.verdict import Outcome

NEW, OLD = "default/new", "default/old"
# By revision, where its events tell no revision.
VERSIONS = {NEW: "v2"}
LOSS_VALUES = st.lists(st.floats(0, 100), max_size=30)


class Answers:
    """A source that has always counted a request of each."""

    metrics = frozenset({ERRORS})

    def __init__(self, *, blind: Sequence[int] = ()) -> None:
        self._blind, self.reads = blind, 0

    async def read(self, canary: str, stable: str) -> Evidence | NoEvidence:
        self.reads += 1
        return NoEvidence("no answers") if self.reads in self._blind else Evidence(Sample(1), Sample(1))


def page(new: Sequence[float], old: Sequence[float] = ()) -> str:
    lines = ["# TYPE glowplug_labelled_predictions_total counter"]
    for revision, found in (("new", new), ("old", old)):
        told = f'{{namespace="default",inferenceservice="f",revision="{revision}"}}'
        lines.append(f"{PREDICTIONS}{told} {len(found)}")
        lines.append(f"{LOSSES}{told} {sum(found)!r}")
        lines.append(f"{SQUARES}{told} {sum(loss * loss for loss in found)!r}")
    return "\n".join(lines)


def readings(pages: Sequence[str | Exception], answers: Answers) -> list[Evidence | NoEvidence | Exception]:
    left = iter(pages)

    async def fetch() -> str:
        found = next(left)
        if isinstance(found, Exception):
            raise found
        return found

    async def version_of(revision: str) -> str:
        return VERSIONS.get(revision, "")

    async def all_of_them() -> list[Evidence | NoEvidence | Exception]:
        source, found = LabelledSource(answers, fetch, version_of), []
        assert source.metrics == {ERRORS, LOSS}
        for _ in pages:
            try:
                found.append(await source.read(NEW, OLD))
            except OSError as error:
                found.append(error)
        return found

    return asyncio.run(all_of_them())


@given(LOSS_VALUES, LOSS_VALUES)
def test_what_came_in_between_is_counted(before: list[float], after: list[float]) -> None:
    first, second = readings([page(before), page([*before, *after])], Answers())
    assert isinstance(first, Evidence)
    assert first.canary.loss.count == 0
    assert isinstance(second, Evidence)
    loss = second.canary.loss
    assert loss.count == len(after)
    assert second.canary.requests == 1
    if after:
        mean = statistics.fmean(after)
        assert loss.mean == pytest.approx(mean, abs=1e-6)
        assert loss.squares == pytest.approx(sum((one - mean) ** 2 for one in after), abs=1e-3)


def test_losses_are_counted_by_revision_or_by_the_version_that_it_is_stamped_with() -> None:
    stamped = page([1.0], [5.0]).replace('revision="new"', 'revision="v2"')
    strange = page([9.0]).replace('namespace="default"', 'namespace="other"')
    found = labels.losses(f"{stamped}\n{strange}", {NEW: "v2", OLD: ""})
    assert found == {NEW: Losses(1, 1.0, 1.0), OLD: Losses(1, 5.0, 25.0)}
    _, read = readings([stamped, stamped.replace("} 1", "} 2")], Answers())
    assert isinstance(read, Evidence)
    assert read.canary.loss.count == 1


def test_a_version_is_not_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERSIONS, OLD, "v2")
    stamped = [page([1.0] * count).replace('revision="new"', 'revision="v2"') for count in (1, 400)]
    _, read = readings(stamped, Answers())
    assert isinstance(read, Evidence)
    assert (read.canary.loss.count, read.stable.loss.count) == (0, 0)
    assert judge(parse_gates("loss<=1.2x"), read, read, steps=1).outcome is Outcome.INCONCLUSIVE


def test_counters_that_fell_began_anew() -> None:
    _, second = readings([page([5.0] * 9), page([1.0, 3.0])], Answers())
    assert isinstance(second, Evidence)
    assert (second.canary.loss.count, second.canary.loss.mean) == (2, 2.0)


def test_nothing_is_lost_while_the_answers_are_not_known() -> None:
    found = readings([page([]), page([1.0]), page([1.0, 3.0])], Answers(blind=[2]))
    assert isinstance(found[1], NoEvidence)
    assert isinstance(found[2], Evidence)
    assert found[2].canary.loss.count == 2


def test_without_the_page_the_answers_are_not_taken() -> None:
    answers = Answers()
    found = readings([page([]), OSError("gone"), page([2.0])], answers)
    assert isinstance(found[1], OSError)
    assert answers.reads == 2
    assert isinstance(found[2], Evidence)
    assert found[2].canary.loss.count == 1


def test_a_worse_model_fails_its_gate_and_an_equal_one_passes() -> None:
    gates = parse_gates("loss<=1.2x")
    same, worse = [8.0, 12.0] * 400, [13.0, 17.0] * 400
    for losses, outcome in ((same, Outcome.PASS), (worse, Outcome.FAIL)):
        _, evidence = readings([page([]), page(losses, same)], Answers())
        assert isinstance(evidence, Evidence)
        assert judge(gates, evidence, NoEvidence("not asked"), steps=1).outcome is outcome


def test_only_the_predictor_of_a_rollout_that_asks_for_it_needs_labels() -> None:
    asked: list[frozenset[str]] = []

    def new_source(metrics: frozenset[str]) -> Answers:
        asked.append(metrics)
        return Answers()

    members = {name: Member(f"{name}-2", f"{name}-1") for name in ("predictor", "transformer")}
    for text in ("errors<=+1%, loss<=1.2x", "errors<=+1%"):
        assessment = Assessment("default", new_source, blind_after_s=60.0)
        asyncio.run(assessment.read(members, parse_gates(text), 0.0))
    assert asked == [{ERRORS, LOSS}, {ERRORS}, {ERRORS}, {ERRORS}]
