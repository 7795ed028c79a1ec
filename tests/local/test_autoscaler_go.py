"""The autoscaler's decisions beside those of Knative's Go code, on random questions.

Each run asks the same questions; GLOWPLUG_SEED=<number> asks others. Knative's code runs in virtual time. The
reconciler's answers are recorded ones unless GLOWPLUG_KNATIVE=reconciler.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import pathlib
import random
from dataclasses import asdict
from typing import Any

import pytest
from local import autoscaler_knative as knative

from glowplug.autoscaler import maximum, parameters, replay, scaler, status, trace
from glowplug.autoscaler.buckets import LinearBuckets, WeightedBuckets
from glowplug.spec import autoscaling, autoscaling_validation, gonumbers
from glowplug.spec import autoscaling_config as settings
from glowplug.spec.load import RequestMeter

pytestmark = pytest.mark.timeout(900)  # the first build compiles Kubernetes' types

G = autoscaling.GROUP
KEYS = [key for found in autoscaling.ALL for key in (found.key, found.old_key) if key]


@pytest.fixture(scope="module")
def program() -> pathlib.Path:
    return knative.build()


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(f"{os.environ.get('GLOWPLUG_SEED', '1')} {request.node.name}")


def ns(seconds: float) -> int:
    return int(seconds * 10**9)


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def exact(number: float) -> str:
    return gonumbers.float_text(number)


def test_decisions(program: pathlib.Path, chance: random.Random, tmp_path: pathlib.Path) -> None:
    traces = [knative.trace(chance) for _ in range(800)]
    questions = [{"kind": "trace", "spec": spec, "ticks": ticks} for spec, ticks in traces]
    seen: collections.Counter[str] = collections.Counter()
    for (spec, ticks), theirs in zip(traces, knative.ask(program, questions, tmp_path), strict=True):
        found = trace.parse([json.dumps(spec), *map(json.dumps, ticks)], "trace")
        ours = [json.loads(line) for line in replay.json_lines(replay.replay(found))]
        for tick, our, their in zip(ticks, ours, theirs, strict=True):
            reason = our.pop("reason")
            assert our == {"t": tick["t"], **their}, f"{spec}\n{ticks}\nat {tick}: {reason}"
            seen.update(word for word in EDGES if word in reason)
    assert not [word for word in EDGES if seen[word] < 20], seen


EDGES = (
    "no data", "panic begins", "panic goes on for", "panic ends", "panic keeps", "scale-down-delay", "activation-scale",
    "max-scale-up-rate", "max-scale-down-rate",
)  # fmt: skip


# Each: the first line's differences from PLAIN, and ticks as (t, ready, stable, panic) or (t, ready).
PLAIN = {
    "target": 7, "total": 10, "max_scale_up_rate": 1000, "max_scale_down_rate": 2, "panic_threshold": 2,
    "stable_window_s": 60, "scale_down_delay_s": 0, "target_burst_capacity": 211, "activation_scale": 0,
    "reachable": True, "initial_ready": 0,
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], list[tuple[float, ...]]]] = {
    "panic ends a nanosecond after the window": (
        {"stable_window_s": 6},
        [(0, 1, 70, 70), (6, 10, 7, 7), (6.000000001, 10, 7, 7), (8, 10, 0, 0)],
    ),
    "fed panic lasts longer": (
        {"stable_window_s": 6},
        [(0, 1, 70, 70), (4, 1, 7, 14), (8, 9, 7, 7), (12, 9, 7, 7)],
    ),
    "several ready pods at the start, no data": (
        {"initial_ready": 5},
        [(2, 5), (4, 5, 1, 1), (60, 5, 1, 1), (61, 5, 1, 1)],
    ),
    "one ready pod at the start": ({"initial_ready": 1}, [(2, 1, 0, 0)]),
    "delay of two buckets": (
        {"scale_down_delay_s": 4},
        [(1.9, 9, 63, 7), (2, 9, 7, 7), (3.9, 5, 7, 7), (4, 5, 7, 7), (5.9, 5, 7, 7), (6, 5, 7, 7)],
    ),
    "two decisions in a bucket of the delay": (
        {"scale_down_delay_s": 1},
        [(0, 4, 21, 21), (1, 4, 14, 14), (2, 4, 14, 14)],
    ),
    "no delay for an unreachable revision": (
        {"scale_down_delay_s": 30, "reachable": False},
        [(0, 9, 63, 63), (2, 9, 7, 7), (4, 9, 0, 0)],
    ),
    "activation scale from zero, and not at zero": (
        {"activation_scale": 3},
        [(0, 0, 0.1, 0), (2, 0, 0, 0.1), (4, 3, 0, 0)],
    ),
    "activation scale against the rate": (
        {"activation_scale": 9, "max_scale_up_rate": 2},
        [(0, 1, 7, 7), (2, 9, 70, 70)],
    ),
    "a rate that would not let it grow": (
        {"max_scale_up_rate": 1.1},
        [(0, 2, 21, 21), (2, 0, 100, 100)],
    ),
    "no burst": ({"target_burst_capacity": 0}, [(0, 3, 10, 1e12)]),
    "boundless burst": ({"target_burst_capacity": -1}, [(0, 3, 10, 1e12)]),
    "excess beyond 32 bits": ({"target_burst_capacity": 1}, [(0, 3, 10, 1e12)]),
}


def test_edge_cases(program: pathlib.Path, tmp_path: pathlib.Path) -> None:
    keys = ("t", "ready", "stable", "panic")
    questions = []
    for changes, rows in CASES.values():
        ticks = [
            dict(zip(keys, row, strict=False)) | ({"no_data": True} if len(row) == 2 else {}) for row in rows
        ]
        questions.append({"kind": "trace", "spec": {**PLAIN, **changes}, "ticks": ticks})
    answers = knative.ask(program, questions, tmp_path)
    for name, question, theirs in zip(CASES, questions, answers, strict=True):
        lines = [json.dumps(question["spec"]), *map(json.dumps, question["ticks"])]
        ours = [json.loads(line) for line in replay.json_lines(replay.replay(trace.parse(lines, name)))]
        assert [{key: our[key] for key in theirs[0]} for our in ours] == theirs, name


def test_windows(program: pathlib.Path, chance: random.Random, tmp_path: pathlib.Path) -> None:
    questions = [knative.window(chance) for _ in range(600)]
    for question, theirs in zip(questions, knative.ask(program, questions, tmp_path), strict=True):
        shape = question["window"]
        is_weighted = shape["algorithm"] == "weighted"
        kind = WeightedBuckets if is_weighted else LinearBuckets
        ours = kind(ns(shape["window_s"]), ns(shape["granularity_s"]))
        clock_ns = 0
        for op, their in zip(question["ops"], theirs, strict=True):
            now_ns = knative.EPOCH_NS + ns(op["t"])
            clock_ns = max(clock_ns, now_ns)
            if op["do"] == "record":
                ours.record(now_ns, op["value"])
            elif op["do"] == "resize":
                ours.resize(ns(op["value"]), clock_ns)
            average, is_empty = their.split()
            assert ours.is_empty(now_ns) == (is_empty == "true"), (question, op)
            wanted, got = float(average), ours.average(now_ns)
            # The weights' roots are the C library's, whose last bit may differ between computers.
            assert same(got, wanted) or (is_weighted and got == pytest.approx(wanted, rel=1e-13)), (
                question,
                op,
            )


def test_the_delay_window(program: pathlib.Path, chance: random.Random, tmp_path: pathlib.Path) -> None:
    questions = [knative.maximum(chance) for _ in range(300)]
    for question, theirs in zip(questions, knative.ask(program, questions, tmp_path), strict=True):
        window, ours = (
            maximum.window(ns(question["window"]["window_s"]), question["window"]["granularity_s"]),
            [],
        )
        for op in question["ops"]:
            window = window.recorded(knative.EPOCH_NS + ns(op["t"]), op["value"])
            ours.append(window.current)
        assert ours == theirs, question


def test_the_request_meter(program: pathlib.Path, chance: random.Random, tmp_path: pathlib.Path) -> None:
    questions = [knative.meter(chance) for _ in range(300)]
    for question, theirs in zip(questions, knative.ask(program, questions, tmp_path), strict=True):
        ours, reports = RequestMeter(knative.EPOCH_NS), []
        for op in question["ops"]:
            now_ns = knative.EPOCH_NS + ns(op["t"])
            if op["do"] == "report":
                found = ours.report(now_ns)
                reports.append([exact(found.concurrency), exact(found.requests)])
            elif op["do"] == "in":
                ours.request_in(now_ns)
            else:
                ours.request_out(now_ns)
        # Knative's says too how much of each came through the activator, where that is a proxy.
        assert reports == [[concurrency, requests] for concurrency, _, requests, _ in theirs], question


def test_annotations(program: pathlib.Path, chance: random.Random, tmp_path: pathlib.Path) -> None:
    questions = [
        {
            "kind": "annotations",
            "annotations": knative.annotations(chance, KEYS, share=chance.choice([0.05, 0.15, 0.5])),
            "config": chance.choice(
                [{}, {"allow-zero-initial-scale": "true"}, {"max-scale-limit": "5", "max-scale": "5"},
                 {"pod-autoscaler-class": "hpa.autoscaling.knative.dev"}]
            ),
        }
        for _ in range(3000)
    ]  # fmt: skip
    refused = 0
    for question, theirs in zip(questions, knative.ask(program, questions, tmp_path), strict=True):
        config = settings.parse(question["config"])
        ours = autoscaling_validation.text(autoscaling_validation.validate(question["annotations"], config))
        assert ours == theirs["text"], question
        refused += ours != ""
    assert 1000 < refused < 2900


def test_the_config_map(program: pathlib.Path, chance: random.Random, tmp_path: pathlib.Path) -> None:
    questions = []
    for _ in range(3000):
        data = knative.config(chance, settings.KEYS, share=chance.choice([0.05, 0.2]), are_good=False)
        questions.append({"kind": "config", "config": data})
    refused = 0
    for question, theirs in zip(questions, knative.ask(program, questions, tmp_path), strict=True):
        config, problems = settings.read(question["config"])
        assert problems[:1] == [theirs[key] for key in theirs if key == "error"], question
        refused += bool(problems)
        if not problems:
            assert _written(config) == theirs["config"], question
    assert 500 < refused < 2500


def test_parameters(program: pathlib.Path, chance: random.Random, tmp_path: pathlib.Path) -> None:
    questions = []
    for _ in range(1500):
        notes = {f"{G}/metric": chance.choice(["rps", "concurrency"])} if chance.random() < 0.7 else {}
        questions.append(
            {
                "kind": "parameters",
                "annotations": {**knative.annotations(chance, KEYS, share=0.2), **notes},
                "config": knative.config(chance, settings.KEYS, share=0.1, are_good=True),
                "container_concurrency": chance.choice([0, 0, 1, 4, 50]),
                "unreachable": chance.random() < 0.3,
            }
        )
    compared = 0
    for question, theirs in zip(questions, knative.ask(program, questions, tmp_path), strict=True):
        config, problems = settings.read(question["config"])
        assert problems[:1] == [theirs[key] for key in theirs if key == "error"], question
        if problems:
            continue
        compared += 1
        scaling, is_reachable = autoscaling.scaling_of(question["annotations"]), not question["unreachable"]
        found = parameters.parameters_of(scaling, question["container_concurrency"], is_reachable, config)
        windows = parameters.windows_of(scaling, config)
        bounds = parameters.bounds_of(scaling, is_reachable, config)
        ours = {
            **_written(found), "panic_window_ns": str(windows.panic_ns), "algorithm": scaling.aggregation,
            "min_scale": str(bounds.minimum), "max_scale": str(bounds.maximum),
        }  # fmt: skip
        # It says how many activators there are; here there is one.
        del theirs["activator_capacity"]
        assert ours == theirs, question
        assert windows.stable_ns == found.stable_window_ns
    assert compared > 700


def test_scaling_to_zero_and_bounds(chance: random.Random, tmp_path: pathlib.Path) -> None:
    questions = [_reconciled(chance, "scale") for _ in range(2500)]
    seen: collections.Counter[tuple[int, bool, bool]] = collections.Counter()
    for question, theirs in knative.ask_reconciler("scale", questions, tmp_path):
        scaling, config, standing = _found(question)
        want = scaler.scale(question["scale"]["desired"], standing, scaling, config)
        ours = {
            "want": want.scale, "is_applied": want.is_applied, "again_ns": want.again_ns or 0,
            "probes": want.needs_probe,
        }  # fmt: skip
        # How many activators share a revision; here there is one.
        theirs.pop("activators")
        assert ours == theirs, (question, want.reason)
        assert want.reason
        seen[min(want.scale, 1), want.is_applied, want.needs_probe] += 1
    assert len(seen) == 5, seen


def test_statuses(chance: random.Random, tmp_path: pathlib.Path) -> None:
    questions = [_reconciled(chance, "status") for _ in range(2500)]
    for question, theirs in knative.ask_reconciler("status", questions, tmp_path):
        scaling, config, standing = _found(question)
        given = question["scale"]
        found = status.status_of(given["want"], given["ready"], standing, scaling, config)
        active = found.active or status.Statement(given["active"])
        ours = {
            "active": active.status, "reason": active.reason, "message": active.message,
            # Without a service Knative waits; here there is always one.
            "is_initialized": found.is_initialized if given["service_name"] else theirs["is_initialized"],
            "desired": found.desired, "actual": found.actual,
        }  # fmt: skip
        assert ours == theirs, question


def test_numbers(program: pathlib.Path, chance: random.Random, tmp_path: pathlib.Path) -> None:
    texts = [knative.text(chance) for _ in range(3000)]
    questions = [{"kind": "numbers", "text": text} for text in texts]
    for text, theirs in zip(texts, knative.ask(program, questions, tmp_path), strict=True):
        assert _read_as_go(text) == theirs, text


def _reconciled(chance: random.Random, kind: str) -> dict[str, Any]:
    notes = {
        f"{G}/min-scale": ["0", "1", "3"], f"{G}/maxScale": ["0", "2", "5"], f"{G}/initial-scale": ["0", "1", "3"],
        f"{G}/window": ["60s", "6s"], f"{G}/target-burst-capacity": ["-1", "0", "50"],
        f"{G}/scale-to-zero-pod-retention-period": ["0s", "20s", "10m"],
        "serving.knative.dev/progress-deadline": ["30s", "600s"],
    }  # fmt: skip
    data = {
        "enable-scale-to-zero": ["false"], "min-scale": ["2"], "max-scale": ["4"], "initial-scale": ["2"],
        "scale-to-zero-grace-period": ["6s"], "scale-to-zero-pod-retention-period": ["15s"],
        "activator-capacity": ["3"],
    }  # fmt: skip
    return {
        "kind": kind,
        "annotations": {key: chance.choice(values) for key, values in notes.items() if chance.random() < 0.2},
        "config": {
            "allow-zero-initial-scale": "true",
            **{key: chance.choice(values) for key, values in data.items() if chance.random() < 0.1},
        },
        "unreachable": chance.random() < 0.3,
        "container_concurrency": chance.choice([0, 1, 50]),
        "scale": knative.standing(chance),
    }


def _found(
    question: dict[str, Any],
) -> tuple[autoscaling.RevisionScaling, settings.AutoscalerConfig, scaler.Standing]:
    given = question["scale"]
    standing = scaler.Standing(
        active=given["active"],
        active_for_ns=ns(given["active_for"]),
        is_initialized=given["initialized"],
        is_reachable=not question["unreachable"],
        proxied_for_ns=ns(given["proxied_for"]) if given["proxied"] else None,
        is_activator_probed=given["probed"],
    )
    return autoscaling.scaling_of(question["annotations"]), settings.parse(question["config"]), standing


def _written(value: Any) -> dict[str, str]:
    def text(found: object) -> str:
        if isinstance(found, bool):
            return str(found).lower()
        return exact(found) if isinstance(found, float) else str(found)

    return {key: text(found) for key, found in asdict(value).items()}


def _read_as_go(text: str) -> dict[str, str]:
    found = {}
    try:
        number = gonumbers.parse_float(text)
        found |= {"float": exact(number), "v": exact(number), "f": gonumbers.fixed_text(number)}
    except gonumbers.GoValueError as error:
        found["float_error"] = str(error)
    try:
        found["int32"] = str(gonumbers.parse_int(text))
    except gonumbers.GoValueError as error:
        found["int32_error"] = str(error)
    with contextlib.suppress(gonumbers.GoValueError):
        found["int"] = str(gonumbers.parse_int(text, 64))
    try:
        duration_ns = gonumbers.parse_duration(text)
        found |= {"duration": str(duration_ns), "duration_text": gonumbers.duration_text(duration_ns)}
    except gonumbers.GoValueError as error:
        found["duration_error"] = str(error)
    try:
        gonumbers.parse_bool(text)
    except gonumbers.GoValueError as error:
        found["bool_error"] = str(error)
    return found
