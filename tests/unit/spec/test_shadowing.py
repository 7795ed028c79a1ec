"""The annotation `glowplug.dev/shadow`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec import inferenceservice, knativeservice, names, shadowing

KEY = f"metadata.annotations[{names.SHADOW}]"


@pytest.mark.parametrize(
    ("text", "percent"), [("0", 0), ("20", 20), (" 20% ", 20), ("0.5", 0.5), ("100", 100), ("100.0", 100)]
)
def test_a_percentage(text: str, percent: float) -> None:
    assert shadowing.parse(text) == percent
    assert list(shadowing.problems({names.SHADOW: text})) == []


@pytest.mark.parametrize("text", ["", "-1", "100.1", "101", "1e1", "nan", "inf", "true", "20 %x", ".5", "٥"])
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    assert shadowing.shadow_percent_of({names.SHADOW: text}) == 0
    (problem,) = shadowing.problems({names.SHADOW: text})
    assert problem.field == KEY
    assert "from 0 to 100" in problem.message and '"20"' in problem.message


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    is_refused = bool(list(shadowing.problems({names.SHADOW: text})))
    assert (shadowing.parse(text) is None) is is_refused
    assert 0 <= shadowing.shadow_percent_of({names.SHADOW: text}) <= 100


@pytest.mark.parametrize("validate", [inferenceservice.validate, knativeservice.validate_service])
def test_admission_looks_at_it(validate) -> None:
    obj = {"metadata": {"name": "x", "annotations": {names.SHADOW: "many"}}, "spec": {}}
    assert KEY in [problem.field for problem in validate(obj)]
    obj["metadata"]["annotations"][names.SHADOW] = "20"
    assert KEY not in [problem.field for problem in validate(obj)]
