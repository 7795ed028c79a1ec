from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec.scaling import validate
from glowplug.spec.validation import duration_ns, go_float, go_int

G = "autoscaling.knative.dev"


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"other.dev/x": "y"},
        {f"{G}/min-scale": "0", f"{G}/max-scale": "0"},
        {f"{G}/minScale": "2", f"{G}/max-scale": "2", f"{G}/activation-scale": "2"},
        {f"{G}/class": f"kpa.{G}", f"{G}/metric": "rps", f"{G}/target": "0.5"},
        {
            f"{G}/window": "1h",
            f"{G}/scale-down-delay": "0s",
            f"{G}/scale-to-zero-pod-retention-period": "1m500ms",
        },
        {f"{G}/panic-window-percentage": "10.5", f"{G}/panic-threshold-percentage": "200"},
        {f"{G}/target-burst-capacity": "-1", f"{G}/target-utilization-percentage": "70"},
        {f"{G}/initial-scale": "0", f"{G}/metric-aggregation-algorithm": "linear"},
    ],
)
def test_what_knative_takes(annotations: dict[str, str]) -> None:
    assert list(validate(annotations)) == []


@pytest.mark.parametrize(
    ("annotations", "field", "message"),
    [
        ({"min-scale": "-1"}, "min-scale", "expected 0 <= -1 <= 2147483647"),
        ({"max-scale": "many"}, "max-scale", "invalid value: many"),
        ({"min-scale": "3", "max-scale": "2"}, "max-scale", "max-scale=2 is less than min-scale=3"),
        ({"min-scale": "9999999999"}, "min-scale", "expected 0 <= 9999999999"),
        ({"activation-scale": "1"}, "activation-scale", "activation-scale=1 must be greater than 1"),
        ({"activation-scale": "2", "max-scale": "1"}, "activation-scale", "max-scale=1 is less than"),
        ({"activation-scale": "2", "min-scale": "3"}, "activation-scale", "min-scale=3 is greater than"),
        ({"window": "5s"}, "window", "expected 6s <= 5s <= 1h0m0s"),
        ({"window": "90.5s"}, "window", "must be specified with at most second precision"),
        ({"window": "soon"}, "window", "invalid value: soon"),
        ({"scale-down-delay": "2h"}, "scale-down-delay", "expected 0s <= 2h <= 1h0m0s"),
        ({"target": "0.001"}, "target", "target 0.001 should be at least 0.01"),
        (
            {"target-utilization-percentage": "101"},
            "target-utilization-percentage",
            "expected 1 <= 101 <= 100",
        ),
        ({"target-burst-capacity": "-2"}, "target-burst-capacity", "invalid value: -2"),
        ({"panic-threshold-percentage": "100"}, "panic-threshold-percentage", "expected 110 <= 100 <= 1000"),
        ({"metric": "qps"}, "metric", "rps"),
        ({"metric": "cpu"}, "metric", "invalid value: cpu"),
        ({"metric-aggregation-algorithm": "best"}, "metric-aggregation-algorithm", "invalid value: best"),
        ({"initial-scale": "-1"}, "initial-scale", "must be greater than 0"),
        ({"class": f"hpa.{G}"}, "class", "Knative's own autoscaler only"),
        ({"class": "mine"}, "class", "invalid value: mine"),
    ],
)
def test_what_knative_refuses(annotations: dict[str, str], field: str, message: str) -> None:
    problems = list(validate({f"{G}/{key}": value for key, value in annotations.items()}))
    assert [problem.field for problem in problems] == [f"{G}/{field}"]
    assert message in problems[0].message


def test_all_problems_are_found_at_once() -> None:
    annotations = {f"{G}/window": "x", f"{G}/target": "x", f"{G}/min-scale": "x", f"{G}/metric": "x"}
    assert {problem.field for problem in validate(annotations)} == set(annotations)


@given(
    st.dictionaries(
        st.sampled_from(["min-scale", "maxScale", "window", "target", "metric", "class"]),
        st.text(max_size=10),
    )
)
def test_any_text_is_answered(values: dict[str, str]) -> None:
    for problem in validate({f"{G}/{key}": value for key, value in values.items()}):
        assert problem.field.startswith(G)
        assert problem.message


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1h30m", 5400 * 10**9), ("-1.5s", -1_500_000_000), ("0", 0), ("2ms3us", 2_003_000), (".5s", 500_000_000),
        ("", None), ("1", None), ("s", None), ("1d", None), ("1s ", None), ("999999999h", None), ("1 s", None),
    ],
)  # fmt: skip
def test_go_durations(text: str, ns: int | None) -> None:
    assert duration_ns(text) == ns


def test_go_numbers() -> None:
    assert (go_int("+7"), go_int("7.0"), go_int("1_0"), go_int("٣")) == (7, None, None, None)
    assert (go_float("1e3"), go_float("nan"), go_float("0x1p-2"), go_float("1.")) == (1000.0, None, None, 1.0)
