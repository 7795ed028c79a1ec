"""The figures, the picture and the page, from records that were made up."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import re

import numpy as np
import pytest

from glowplug.errors import ConfigError
from glowplug.wire.tensors import InferResponse, Tensor
from glowplug_loadtest import answers, plan, records, report
from glowplug_loadtest.figures import as_json, figures_of
from glowplug_loadtest.plan import Plan
from glowplug_loadtest.profiles import Profile, Segment
from glowplug_loadtest.records import UNSENT, Record
from glowplug_loadtest.replicas import Sample, held_of, scale_of_autoscalers, scale_of_pods, time_until_ready
from glowplug_loadtest.thresholds import parse

PROFILE = Profile("bursty", (Segment(10, 10, 10),))
PLAN = Plan("http://127.0.0.1:80/serving/default/m", "m", PROFILE, warm_up_s=2.0)
SAMPLES = [Sample(-1, 1, 1), Sample(0, 1, 1, 0), Sample(3, 4, 1, 7), Sample(5, 4, 4, 0), Sample(20, 9, 9, 99)]


def record(due_s: float, seconds: float, error: str = "") -> Record:
    return Record(due_s, due_s + 0.001, due_s + seconds, error)


def some() -> list[Record]:
    """100 requests of 10 ms; those of the warm-up take 5 s; one fails at 5 s, one is never sent."""
    found = [record(number / 10, 5.0 if number < 20 else 0.01) for number in range(100)]
    found[50] = record(5.0, 0.002, "HTTP 503: <nobody>")
    found[60] = Record(6.0, None, 40.0, UNSENT)
    return found


def test_the_warm_up_is_left_out_of_the_figures_and_not_of_the_picture() -> None:
    figures = figures_of(PLAN, "m", some(), SAMPLES, parse(["p99<20ms", "errors<1%"]))
    total = figures.total
    assert (total["requests"], total["answered"], total["failed"], total["unsent"]) == (80, 78, 2, 1)
    assert total["latency_ms"]["max"] == pytest.approx(10)
    assert total["over_percent"]["200"] == pytest.approx(2.5)
    assert total["errors"] == {"HTTP 503: <nobody>": 1, UNSENT: 1}
    assert total["sender"]["lag_p99_ms"] == pytest.approx(1)
    assert [verdict.is_met for verdict in figures.verdicts] == [True, False]
    assert np.nanmax(figures.series.percentiles_ms[99.0]) == pytest.approx(5000)
    assert figures.series.due_rps.sum() * figures.series.width_s == pytest.approx(100)


def test_what_waits_is_what_is_due_and_not_done() -> None:
    figures = figures_of(PLAN, "m", some(), SAMPLES, [])
    series = figures.series
    # The twenty of the warm-up and one of those after it; at the end the one that was never sent.
    assert (series.waiting[0], series.waiting.max(), series.waiting[-1]) == (
        pytest.approx(series.width_s * 10),
        21,
        1,
    )
    assert series.t[-1] + series.width_s >= 40


def test_latency_counts_from_the_due_time() -> None:
    late = Record(1.0, 3.0, 3.1, "")
    figures = figures_of(dataclasses.replace(PLAN, warm_up_s=0), "m", [late], [], [])
    assert figures.total["latency_ms"]["p50"] == pytest.approx(2100)
    assert figures.total["sender"] == {"lag_p99_ms": pytest.approx(2000), "late_percent": 100}


def test_replicas_are_those_seen_during_the_load() -> None:
    replicas = figures_of(PLAN, "m", some(), SAMPLES, []).total["replicas"]
    assert replicas == {
        "ready_least": 1, "ready_most": 4, "desired_most": 4, "replica_seconds": 5, "held_most": 7,
    }  # fmt: skip
    assert [time_until_ready(SAMPLES, since, 4) for since in (3.5, 6)] == [1.5, 0.0]
    assert time_until_ready(SAMPLES, 0, 10) is None


@pytest.mark.parametrize("samples", [SAMPLES, []])
def test_the_page_needs_no_other_file_and_lets_no_answer_become_markup(
    samples: list[Sample], tmp_path: pathlib.Path
) -> None:
    figures = figures_of(PLAN, "m", some(), samples, parse(["p99<20ms", "errors<1%"]))
    page = report.write(figures, tmp_path).read_text()
    assert "<svg" in page
    assert "HTTP 503: &lt;nobody&gt;" in page
    assert "<nobody>" not in page
    assert not re.search(r'(src|href)="(?!#)', page)
    assert ("✓ p99&lt;20ms" in page, "✗ errors&lt;1%" in page) == (True, True)
    assert ("Replicas are not shown" in page) is not samples
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "figures.json").read_text(), parse_constant=pytest.fail)
    assert written["thresholds"][1] == {
        "threshold": "errors<1%",
        "measured": pytest.approx(2.5),
        "met": False,
    }


def test_a_test_without_one_request_has_a_page_too(tmp_path: pathlib.Path) -> None:
    figures = figures_of(PLAN, "m", [], [], parse(["p99<20ms"]), is_interrupted=True)
    assert "interrupted" in report.write(figures, tmp_path).read_text()
    assert as_json(figures)["latency_ms"]["p99"] is None
    assert figures.missed


def test_records_and_plans_are_read_as_they_were_written(tmp_path: pathlib.Path) -> None:
    halves = [some()[::2], some()[1::2]]
    paths = [tmp_path / f"{index}.csv" for index in range(2)]
    for half, path in zip(halves, paths, strict=True):
        records.write(half, path)
    assert [each.error for each in records.read(paths)] == [each.error for each in some()]
    found = records.columns(records.read(paths))
    assert found.due_s == pytest.approx(np.arange(100) / 10)
    assert math.isnan(found.sent_s[60])
    plan.write(PLAN, tmp_path / "plan.json")
    assert plan.read(tmp_path / "plan.json") == PLAN


def test_all_problems_of_a_plan_are_told_at_once() -> None:
    wrong = Plan("flights", "m", PROFILE, "", "soap", "burst", "none", 1, 0, 0, 0, 10)
    with pytest.raises(ConfigError) as error:
        wrong.checked()
    for words in ("flights: expected a URL", "--protocol soap", "--arrivals burst", "--check none", "--workers 0",
                  "--timeout 0", "--warm-up 10"):  # fmt: skip
        assert words in error.value.message


def test_answers_are_compared_by_name_shape_and_values() -> None:
    def outputs(data: list[float], name: str = "y", shape: tuple[int, ...] = (2,)) -> answers.Outputs:
        tensor = Tensor(name, "FP32", shape, np.array(data, dtype=np.float32))
        return answers.outputs_of(InferResponse("m", (tensor,)))

    right = outputs([1.0, 2.0])
    assert answers.difference(right, outputs([1.0, 2.00001])) == ""
    assert "other values" in answers.difference(right, outputs([1.0, 2.1]))
    assert "another name" in answers.difference(right, outputs([1.0, 2.0], "z"))
    assert "shape" in answers.difference(right, outputs([1.0, 2.0], "y", (1, 2)))
    text = (("y", "BYTES", (1,), [b"a"]),)
    assert answers.difference(text, (("y", "BYTES", (1,), [b"b"]),))
    with pytest.raises(Exception, match="finite"):
        outputs([math.nan, 1.0])


def test_replicas_from_autoscalers_from_pods_and_what_is_held() -> None:
    autoscalers = [{"status": {"desiredScale": -1}}, {"status": {"desiredScale": 3, "actualScale": 2}}, {}]
    assert scale_of_autoscalers(autoscalers) == (3, 2)
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    pods = [
        {"metadata": {}, "status": ready},
        {"metadata": {}, "status": {}},
        {"metadata": {"deletionTimestamp": "now"}, "status": ready},
    ]
    assert scale_of_pods(pods) == (2, 1)
    page = "".join(
        f'glowplug_activator_held{{namespace="{namespace}",revision="{revision}"}} {count}\n'
        for namespace, revision, count in (
            ("default", "m-predictor-00001", 3), ("default", "m-transformer-00002", 4),
            ("other", "m-predictor-00001", 50), ("default", "m-predictor-2-predictor-00001", 60),
        )
    )  # fmt: skip
    assert held_of(page, "default", "m") == 7
