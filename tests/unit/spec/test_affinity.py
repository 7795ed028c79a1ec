from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec import affinity, inferenceservice, knativeservice, names
from glowplug.spec.affinity import Affinity, Source

KEY = f"metadata.annotations[{names.CANARY_AFFINITY}]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("header:x-user-id", Affinity(Source.HEADER, "x-user-id")),
        ("header:X-User-Id", Affinity(Source.HEADER, "x-user-id")),
        (" cookie:Session ", Affinity(Source.COOKIE, "Session")),
    ],
)
def test_a_header_or_a_cookie(text: str, expected: Affinity) -> None:
    assert affinity.parse(text) == expected
    assert list(affinity.problems({names.CANARY_AFFINITY: text})) == []


@pytest.mark.parametrize(
    "text",
    ["", "header", "header:", "x-user-id", "Header:x", "ip:1", "header:x y", "header:a:b", "header::path", "cookie:a=b",
     "cookie:a;b", "header:é", "header:" + "x" * 129],
)  # fmt: skip
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    assert affinity.affinity_of({names.CANARY_AFFINITY: text}) is None
    (problem,) = affinity.problems({names.CANARY_AFFINITY: text})
    assert problem.field == KEY
    assert "header:<name> or cookie:<name>" in problem.message
    assert "header:x-user-id" in problem.message


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    found = affinity.parse(text)
    refused = list(affinity.problems({names.CANARY_AFFINITY: text}))
    assert (found is None) == bool(refused)
    if found is not None:
        assert affinity.parse(f"{found.source.value}:{found.name}") == found


def test_without_the_annotation_there_is_none() -> None:
    assert affinity.affinity_of({}) is None
    assert list(affinity.problems({})) == []


def test_it_is_looked_at_on_both_kinds() -> None:
    notes = {names.CANARY_AFFINITY: "user"}
    model = {"modelFormat": {"name": "xgboost"}, "storageUri": "file:///m"}
    isvc = {"metadata": {"name": "x", "annotations": notes}, "spec": {"predictor": {"model": model}}}
    assert KEY in [problem.field for problem in inferenceservice.validate(isvc)]
    service = {"metadata": {"name": "x", "annotations": notes}, "spec": {"template": {}}}
    assert KEY in [problem.field for problem in knativeservice.validate_service(service)]
