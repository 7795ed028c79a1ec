"""From what a model is to its configuration: backends, shapes, what is kept, and everything that is wrong at once."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import pytest

from glowplug.triton.model_config import MAX_QUEUE_DELAY_US, VersionPolicy, from_json, to_json
from glowplug.triton.options import BuildOptions, parse_kind, parse_sizes, parse_tensors, parse_versions
from glowplug.triton.pbtxt import parse, write
from glowplug.triton.plan import Layout, layout, plan
from glowplug.triton.settings import Setting, applied, is_complete, setting_of
from glowplug.triton.signature import Forest, Signature, TensorShape, forest_of
from glowplug.triton.sources import Kind

IMAGE = Signature(
    (TensorShape("data", "FP32", (-1, 3, 224, 224)),), (TensorShape("logits", "FP32", (-1, 1000)),)
)
ONNX = Layout("onnxruntime", "model.onnx")
FIL = Layout("fil", "xgboost.ubj")


def planned(**options: Any) -> Any:
    return plan(ONNX, IMAGE, BuildOptions("resnet", **options), None)


def test_an_onnx_model_with_the_defaults() -> None:
    found = planned()
    assert found.problems == ()
    assert write(found.message) == write(parse(PBTXT, "expected"))
    assert "max_queue_size" not in write(found.message), "it would stall batches for 500 ms"
    assert is_complete(found.message)


PBTXT = """
name: "resnet" backend: "onnxruntime" max_batch_size: 32
input { name: "data" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }
output { name: "logits" data_type: TYPE_FP32 dims: 1000 }
instance_group { kind: KIND_GPU count: 1 }
dynamic_batching { max_queue_delay_microseconds: 5000 }
version_policy { latest { num_versions: 1 } }
response_cache { enable: false }
model_warmup { name: "zeros_1" batch_size: 1
  inputs { key: "data" value { data_type: TYPE_FP32 dims: [ 3, 224, 224 ] zero_data: true } } }
model_warmup { name: "zeros_32" batch_size: 32
  inputs { key: "data" value { data_type: TYPE_FP32 dims: [ 3, 224, 224 ] zero_data: true } } }
"""


def test_every_option_is_in_the_configuration() -> None:
    found = planned(
        max_batch_size=16, max_queue_delay_us=100, preferred_batch_sizes=(4, 8), instances=3, kind="KIND_CPU",
        versions=VersionPolicy(specific=(1, 3)), is_warmed=False,
    ).message  # fmt: skip
    assert setting_of(found) == Setting(16, 100, 3)
    assert found["dynamic_batching"][0]["preferred_batch_size"] == [4, 8]
    assert found["instance_group"][0]["kind"] == ["KIND_CPU"]
    assert found["version_policy"] == [{"specific": [{"versions": [1, 3]}]}]
    assert "model_warmup" not in found
    assert setting_of(planned(is_batched=False).message).max_queue_delay_us is None


def test_a_fixed_first_axis_means_no_batches() -> None:
    fixed = Signature((TensorShape("x", "FP32", (1, 4)),), (TensorShape("y", "FP32", (-1, 2)),))
    found = plan(ONNX, fixed, BuildOptions("m"), None)
    assert found.message["max_batch_size"] == [0]
    assert found.message["input"][0]["dims"] == [1, 4]
    assert "dynamic_batching" not in found.message
    assert "no batching" in found.notes[0]


def test_rows_without_an_axis_of_their_own() -> None:
    flat = Signature((TensorShape("x", "INT64", (-1, -1)),), (TensorShape("y", "FP32", (-1,)),))
    found = plan(ONNX, flat, BuildOptions("m"), None)
    assert "reshape {\n  }" in write(found.message)
    assert found.message["output"][0]["dims"] == [1]
    assert "model_warmup" not in found.message
    assert any("no warm-up" in note for note in found.notes)


@pytest.mark.parametrize(
    ("objective", "classes", "width", "is_classifier"),
    [("reg:squarederror", "0", 1, "false"), ("rank:ndcg", "0", 1, "false"), ("binary:logistic", "0", 2, "true"),
     ("multi:softprob", "5", 5, "true")],
)  # fmt: skip
def test_forests_on_fil(objective: str, classes: str, width: int, is_classifier: str) -> None:
    learner = {
        "objective": {"name": objective},
        "learner_model_param": {"num_class": classes, "num_target": "1"},
        "gradient_booster": {"name": "gbtree"},
    }
    found = plan(FIL, forest_of(learner, 50).signature, BuildOptions("fraud"), None)
    assert found.problems == ()
    assert found.message["output"][0]["dims"] == [width]
    assert found.message["instance_group"][0]["kind"] == ["KIND_GPU"]
    parameters = to_json(found.message)["parameters"]
    assert parameters["model_type"] == {"string_value": "xgboost_ubj"}
    assert parameters["predict_proba"] == parameters["output_class"] == {"string_value": is_classifier}


@pytest.mark.parametrize(
    ("forest", "said"),
    [
        (Forest(4, 0, "gblinear", "reg:squarederror"), "booster gblinear"),
        (Forest(4, 0, "gbtree", "reg:squarederror", targets=2), "2 targets"),
        (Forest(4, 0, "gbtree", "multi:softmax"), "train with multi:softprob"),
    ],
)
def test_forests_that_fil_does_not_run(forest: Forest, said: str) -> None:
    found = plan(FIL, forest.signature, BuildOptions("m"), None)
    assert said in found.problems[0]
    assert plan(Layout("python", "model.ubj"), forest.signature, BuildOptions("m"), None).problems == ()


def test_all_problems_at_once() -> None:
    options = BuildOptions(
        "a/b", max_batch_size=-1, max_queue_delay_us=-1, preferred_batch_sizes=(99,), instances=-2, kind="KIND_TPU",
        inputs=(TensorShape("x", "FP33", (0,)), TensorShape("x", "FP32", (1,))),
    )  # fmt: skip
    text = "\n".join(plan(Layout("pytorch", "model.pt"), None, options, None).problems)
    for said in (
        "'a/b'",
        "max batch size -1",
        "instances -2",
        "'KIND_TPU'",
        "'FP33'",
        "dim 0",
        "named twice",
    ):
        assert said in text
    text = "\n".join(planned(max_queue_delay_us=-1, preferred_batch_sizes=(64,)).problems)
    assert "max queue delay -1" in text and "preferred batch size 64" in text


def test_what_was_tuned_is_kept_unless_an_option_says_otherwise() -> None:
    tuned = applied(planned().message, Setting(8, 0, 2))
    tuned["optimization"] = [{"priority": ["PRIORITY_MAX"]}]
    again = plan(ONNX, IMAGE, BuildOptions("resnet"), tuned)
    assert again.message == tuned
    changed = plan(ONNX, IMAGE, BuildOptions("resnet", instances=4, kind="KIND_CPU"), tuned).message
    assert setting_of(changed) == Setting(8, 0, 4)
    assert changed["instance_group"][0]["kind"] == ["KIND_CPU"]
    assert changed["optimization"] == tuned["optimization"]


def test_a_version_with_other_inputs_is_refused() -> None:
    other = Signature((TensorShape("data", "FP32", (-1, 3, 32, 32)),), IMAGE.outputs)
    (problem,) = plan(ONNX, other, BuildOptions("resnet"), planned().message).problems
    assert problem.startswith("input differs from that of the versions which resnet has already")


def test_a_setting_fits_the_rest_of_the_configuration() -> None:
    message = planned(preferred_batch_sizes=(8, 32)).message
    small = applied(message, Setting(16, 100, 2))
    assert small["dynamic_batching"][0]["preferred_batch_size"] == [8]
    assert [warmup["batch_size"] for warmup in small["model_warmup"]] == [[1], [16]]
    assert "dynamic_batching" not in applied(message, Setting(16, None, 1))
    assert setting_of(message) == Setting(32, MAX_QUEUE_DELAY_US, 1), "the original is not touched"
    assert setting_of({}) == Setting(0, None, 1)


def test_the_json_form_and_back() -> None:
    message = planned().message
    shown = to_json(message)
    assert shown["input"] == [{"name": "data", "data_type": "TYPE_FP32", "dims": [3, 224, 224]}]
    assert shown["instance_group"] == [{"kind": "KIND_GPU", "count": 1}]
    assert shown["model_warmup"][0]["inputs"]["data"]["zero_data"] is True
    assert to_json(from_json(shown)) == shown


@pytest.mark.parametrize(
    ("kind", "file", "backend", "expected"),
    [
        (Kind.onnx, "a.onnx", "auto", Layout("onnxruntime", "model.onnx")),
        (Kind.onnx, "a.onnx", "python", Layout("python", "model.onnx", "onnx_model.py")),
        (Kind.xgboost, "a.json", "auto", Layout("fil", "xgboost.json")),
        (Kind.xgboost, "a.xgb", "python", Layout("python", "model.ubj", "xgboost_model.py")),
        (Kind.torchscript, "a.pt", "auto", Layout("pytorch", "model.pt")),
        (Kind.python, "model.py", "auto", Layout("python", "model.py")),
        (Kind.onnx, "a.onnx", "fil", "--backend fil: ONNX models run on onnxruntime or python"),
    ],
)
def test_layouts(kind: Kind, file: str, backend: str, expected: Any) -> None:
    assert layout(kind, PurePath(file), backend) == expected


def test_short_forms_of_the_command_line() -> None:
    problems: list[str] = []
    assert parse_tensors("--input", ["x:fp32:3,-1"], problems) == (TensorShape("x", "FP32", (3, -1)),)
    assert parse_versions("latest:2", problems) == VersionPolicy(2)
    assert parse_versions("all", problems) == VersionPolicy(None)
    assert parse_versions("3,1", problems) == VersionPolicy(specific=(3, 1))
    assert (parse_versions("", problems), parse_kind("", problems), parse_kind("gpu", problems)) == (
        None, None, "KIND_GPU",
    )  # fmt: skip
    assert parse_sizes("--x", "8,8,1", problems) == (8, 1)
    assert problems == []
    for text in ("x", "x:FP32", "x:FP99:1", ":FP32:1", "x:FP32:0", "x:FP32:a"):
        assert parse_tensors("--input", [text], problems) == ()
    parse_versions("latest:0", problems)
    parse_versions("x", problems)
    parse_kind("tpu", problems)
    parse_sizes("--x", "0,1", problems)
    assert len(problems) == 10
