from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec import autoscaling
from glowplug.spec.autoscaling import GROUP as G
from glowplug.spec.autoscaling_config import parse
from glowplug.spec.autoscaling_validation import problems, text, validate

PATH = f"metadata.annotations.{G}"


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"min-scale": "0", "max-scale": "0"},
        {"minScale": "2", "max-scale": "2", "activation-scale": "2"},
        {"class": f"kpa.{G}", "metric": "rps", "target": "0.5"},
        {"window": "1h", "scale-down-delay": "0s", "scale-to-zero-pod-retention-period": "1m500ms"},
        {"panic-window-percentage": "10.5", "panic-threshold-percentage": "200"},
        {"target-burst-capacity": "-1", "target-utilization-percentage": "70"},
        {"metric-aggregation-algorithm": "linear"},
    ],
)
def test_what_knative_takes(annotations: dict[str, str]) -> None:
    found = {f"{G}/{key}": value for key, value in annotations.items()}
    assert validate(found) == [] == list(problems(found))


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"min-scale": "-1"}, f"expected 0 <= -1 <= 2147483647: {PATH}/min-scale"),
        ({"minScale": "9999999999"}, f"expected 0 <= 9999999999 <= 2147483647: {PATH}/minScale"),
        ({"max-scale": "many"}, f"invalid value: many: {PATH}/max-scale"),
        (
            {"min-scale": "3", "max-scale": "2"},
            f"max-scale=2 is less than min-scale=3: {PATH}/max-scale, {PATH}/min-scale",
        ),
        ({"activation-scale": "1"}, f"activation-scale=1 must be greater than 1: {PATH}/activation-scale"),
        ({"window": "5s"}, f"expected 6s <= 5s <= 1h0m0s: {PATH}/window"),
        ({"window": "90.5s"}, f"must be specified with at most second precision: {PATH}/window"),
        ({"scaleDownDelay": "2h"}, f"expected 0s <= 2h <= 1h0m0s: {PATH}/scaleDownDelay"),
        ({"target": "0.001"}, f"target 0.001 should be at least 0.01: {PATH}/target"),
        ({"target-utilization-percentage": "101"}, f"expected 1 <= 101 <= 100: {PATH}/target-utilization-percentage"),
        ({"target-burst-capacity": "-2"}, f"invalid value: -2: {PATH}/target-burst-capacity"),
        ({"panic-threshold-percentage": "100"}, f"expected 110 <= 100 <= 1000: {PATH}/panic-threshold-percentage"),
        ({"metric": "cpu"}, f"invalid value: cpu: {PATH}/metric"),
        ({"initial-scale": "-1"}, f"invalid value: -1: {PATH}/initial-scale must be greater than 0"),
        ({"initial-scale": "0"}, f"invalid value: 0: {PATH}/initial-scale=0 not allowed by cluster"),
        ({"class": "x.knative.dev"}, f"invalid value: x.knative.dev: {PATH}/class"),
        (
            {"class": f"kpa.{G}", "metric-aggregation-algorithm": "best"},
            f"invalid value: best: {PATH}/metric-aggregation-algorithm",
        ),
        ({"window": "x", "target": "x"}, f"invalid value: x: {PATH}/target, {PATH}/window"),
    ],
)  # fmt: skip
def test_what_knative_refuses(annotations: dict[str, str], words: str) -> None:
    assert text(validate({f"{G}/{key}": value for key, value in annotations.items()})) == words


def test_the_clusters_settings_decide() -> None:
    zero = {f"{G}/initial-scale": "0"}
    assert validate(zero, parse({"allow-zero-initial-scale": "true"})) == []
    limited = parse({"max-scale-limit": "5", "max-scale": "5"})
    assert text(validate({f"{G}/max-scale": "6"}, limited)).startswith("expected 1 <= 6 <= 5")
    assert "max-scale=0 (unlimited), must be less than 5" in text(validate({f"{G}/max-scale": "0"}, limited))
    by_default_hpa = parse({"pod-autoscaler-class": autoscaling.HPA})
    assert validate({f"{G}/metric": "cpu"}, by_default_hpa) == []


def test_the_machine_has_no_other_autoscaler() -> None:
    for name in (autoscaling.HPA, "mine"):
        annotations = {f"{G}/class": name, f"{G}/metric": "cpu"}
        assert validate(annotations) == []
        [problem] = problems(annotations)
        assert (problem.field, problem.reason) == (f"{G}/class", "FieldValueNotSupported")
        assert "Knative's own autoscaler only" in problem.message


def test_all_problems_are_found_at_once() -> None:
    annotations = {f"{G}/window": "x", f"{G}/target": "x", f"{G}/min-scale": "x", f"{G}/metric": "x"}
    assert {problem.field for problem in problems(annotations)} == set(annotations)


KEYS = [key for annotation in autoscaling.ALL for key in (annotation.key, annotation.old_key) if key]


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=10) | st.integers().map(str)))
def test_any_text_is_answered(annotations: dict[str, str]) -> None:
    for problem in problems(annotations):
        assert problem.field.startswith(G)
        assert problem.message
    assert (text(validate(annotations)) == "") == (validate(annotations) == [])
