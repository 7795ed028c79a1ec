from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ManifestError, Problem
from glowplug.spec import yamltext
from glowplug.spec.documents import format_path, load

FRAUD = """\
# a comment
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: fraud
  annotations:
    autoscaling.knative.dev/window: 1s
spec:
  predictor:
    model:
      env:
      - name: A
      - {name: B,
         value: c}
    minReplicas: -1
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data:
  k: v
  k: w
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("spec.predictor.minReplicas", 15),
        ("spec.predictor.model.env[1].value", 14),
        ("spec.predictor.model.env[0].name", 12),
        ("spec.predictor.model.env[7].name", 11),
        ("metadata.annotations[autoscaling.knative.dev/window]", 7),
        ("metadata.annotations.autoscaling.knative.dev/window", 7),
        ("metadata.labels", 4),
        ("spec.predictor.maxReplicas", 9),
        ("nothing.of.this", 2),
        ("", 2),
    ],
)
def test_a_field_is_found_on_its_line_or_its_parents(field: str, line: int) -> None:
    assert load(FRAUD, "fraud.yaml")[0].line_of(field) == line


def test_a_problem_is_described_with_file_and_line() -> None:
    document = load(FRAUD, "fraud.yaml")[0]
    described = document.describe(Problem("spec.predictor.minReplicas", "must be 0 or more"))
    assert described == "fraud.yaml:15 spec.predictor.minReplicas: must be 0 or more"


def test_a_key_written_twice_is_told_and_the_first_counts() -> None:
    document = load(FRAUD, "fraud.yaml")[1]
    assert document.object["data"] == {"k": "v"}
    assert [document.describe(problem) for problem in document.problems] == [
        "fraud.yaml:21 data.k: Duplicate value: written again on line 22"
    ]


def test_lists_are_opened_up_and_keep_their_lines() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: A\n- apiVersion: v1\n  kind: B\n  x: 1\n"
    first, second = load(text, "f.yaml")
    assert (first.object["kind"], first.line) == ("A", 4)
    assert second.line_of("x") == 8


def test_json_is_yaml() -> None:
    assert load('{"apiVersion": "v1", "kind": "A", "a": [1, 1.5, true, null, "x"]}', "f")[0].object["a"] == [
        1, 1.5, True, None, "x",
    ]  # fmt: skip


def test_scalars_are_read_as_kubernetes_reads_them() -> None:
    text = (
        "apiVersion: v1\nkind: A\na: 012\nb: 12:30:00\nc: 2026-01-31\nd: yes\ne: off\nf: '1'\ng: 1e3\nh: ~\n"
        "i: 0x1F\nj: 0o17\nk: y\n1: x\ntrue: z\nl: 1.\nm: -.5\nn: !!str 5\no: 1_000\np: 0b11\n'<<': q\n"
    )
    obj = load(text, "f")[0].object
    assert {key: obj[key] for key in "abcdefghijklmnop"} == {
        "a": 10, "b": "12:30:00", "c": "2026-01-31", "d": True, "e": False, "f": "1", "g": 1000.0, "h": None,
        "i": 31, "j": 15, "k": "y", "l": 1.0, "m": -0.5, "n": "5", "o": 1000, "p": 3,
    }  # fmt: skip
    assert (obj["1"], obj["true"], obj["<<"]) == ("x", "z", "q")


def test_anchors_and_merges() -> None:
    text = "apiVersion: v1\nkind: A\nx: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], a: 0}\n"
    assert load(text, "f")[0].object["z"] == {"a": 0, "b": 2, "c": 4}


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a: [1,\n", "f.yaml:2:1", "did not find expected node"),
        ("kind: A\nspec:\n\tx: 1\n", "f.yaml:3:1", "spaces"),
        ("a: b: c\n", "f.yaml:1:5", "mapping values"),
        ("image: {{ .Values.image }}\n", "f.yaml:1:9", "quote"),
        ("a: \x07\n", "f.yaml:1:4", "#x0007"),
        ("a: .nan\n", "f.yaml:1:4", "JSON"),
        ("a: !!binary aGk=\n", "f.yaml:1:4", "tag"),
        ("a: !!python/object:os.system x\n", "f.yaml:1:4", "tag"),
        ("a: 99999999999999999999\n", "f.yaml:1:4", "too large"),
        ("a: 1e999\n", "f.yaml:1:4", "too large"),
        ("a: *b\n", "f.yaml:1:4", "anchor"),
        ("a: &a [*a]\n", "f.yaml:1:8", "anchor"),
        ("? [a]\n: b\n", "f.yaml:1:3", "plain text"),
        ("- 1\n", "f.yaml:1", "a list"),
        ("just text\n", "f.yaml:1", "just text"),
        ("\n\nkind: A\n", "f.yaml:3", "apiVersion"),
        ("apiVersion: v1\n", "f.yaml:1", "kind"),
        ("[" * 5000, "f.yaml:1:", "nested"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, where: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load(text, "f.yaml")
    assert caught.value.message.startswith(where)
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_empty_documents_are_left_out() -> None:
    assert load("---\n# nothing\n---\n---\n", "f") == []


def test_a_billion_laughs_is_refused_soon() -> None:
    lines = ["apiVersion: v1", "kind: A", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    started = time.monotonic()
    with pytest.raises(ManifestError, match="more than 500000 values"):
        load("\n".join(lines), "f")
    assert time.monotonic() - started < 10


def test_merges_count_against_the_same_bound() -> None:
    lines = ["apiVersion: v1", "kind: A", "a0: &a0 {x: 1}"]
    lines += [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}" for level in range(1, 12)]
    with pytest.raises(ManifestError, match="more than 500000 values"):
        load("\n".join(lines), "f")


def test_a_text_of_any_size_is_not_read() -> None:
    with pytest.raises(ManifestError, match="at most"):
        load("a" * (yamltext.MAX_TEXT + 1), "f")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        for document in load(text, "f"):
            json.dumps(document.object, allow_nan=False)
    except ManifestError as error:
        assert error.message.startswith("f:")


_texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
_numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), _json), st.booleans())
def test_what_is_dumped_is_loaded(value: dict[str, Any], is_flow: bool) -> None:
    obj = {"apiVersion": "v1", "kind": "A", **value}
    text = yaml.safe_dump(obj, allow_unicode=True, default_flow_style=is_flow, sort_keys=False)
    assert _same(load(text, "f")[0].object, obj)


def _same(one: Any, other: Any) -> bool:
    """Equal, but for the last digit of floats whose text YAML writes in another form."""
    if isinstance(one, float) or isinstance(other, float):
        return bool(one == other or math.isclose(float(one), float(other)))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def test_paths_are_written_as_kubernetes_writes_them() -> None:
    assert format_path(("spec", "containers", 0, "env", 2, "name")) == "spec.containers[0].env[2].name"


@pytest.mark.parametrize("text", ["0o", "0x", "0b", "0x_", "0o_", "-0b_"])
def test_a_prefix_without_a_digit_is_a_text(text: str) -> None:
    (document,) = load(f"apiVersion: v1\nkind: A\na: {text}\n", "f")
    assert document.object["a"] == text
