"""What a model says: numbers as they are, classes by the likeliest one, and losses that are finite whatever comes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from unit.pipelines.gate.cases import evidence

from glowplug.registry.signature import Signature, TensorType, mlmodel
from glowplug_pipelines.gate.checks import Result
from glowplug_pipelines.gate.verdict import judge
from glowplug_pipelines.predictions import (
    accuracy,
    are_of_classes,
    as_values,
    calibrated,
    log_losses,
    shares,
)
from glowplug_pipelines.settings import GateSettings

NUMBERS = np.array([1.5, -2.0])
CLASSES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
LABELS = np.array([0.0, 2.0, 2.0])


def test_numbers_are_left_as_they_are() -> None:
    assert not are_of_classes(NUMBERS)
    assert as_values(NUMBERS) is NUMBERS
    said, came = calibrated(NUMBERS, np.array([1.0, 0.0]))
    assert said is NUMBERS and came.tolist() == [1.0, 0.0]
    assert accuracy(NUMBERS, np.array([1.0, 0.0])) is None


def test_of_classes_the_likeliest_counts() -> None:
    assert as_values(CLASSES).tolist() == [0, 1, 2]
    said, came = calibrated(CLASSES, LABELS)
    assert said.tolist() == [0.7, 0.6, 0.4]
    assert came.tolist() == [1, 0, 1]
    assert accuracy(CLASSES, LABELS) == pytest.approx(2 / 3)
    np.testing.assert_allclose(log_losses(CLASSES, LABELS), -np.log([0.7, 0.3, 0.4]))


def test_a_class_that_is_new_to_a_model_is_a_loss_and_no_error() -> None:
    losses = log_losses(CLASSES, np.array([0.0, 5.0, 2.0]))
    assert losses[1] > 10 * losses[0]
    assert np.isfinite(losses).all()


@given(arrays.arrays(np.float64, (7,), elements=st.integers(0, 3).map(float)))
def test_shares_are_probabilities_of_every_class(labels: np.ndarray) -> None:
    given = shares(labels, 4, 5)
    assert given.shape == (5, 4)
    assert (given > 0).all()
    np.testing.assert_allclose(given.sum(axis=1), 1)


def test_the_reference_of_classes_has_a_bias_of_its_own() -> None:
    """Whether the likeliest class came is another question for each model: their labels must not be mixed up."""
    chance = np.random.default_rng(3)
    confidence = chance.uniform(0.5, 1.0, 14 * 120)
    came = (chance.uniform(size=len(confidence)) < confidence).astype(np.float64)
    never = np.zeros(len(confidence))
    seen = evidence(
        -1.0, labels=came, predictions=confidence, reference_labels=never, reference_predictions=never,
        of_classes=True,
    )  # fmt: skip
    (check,) = [
        each for each in judge(seen, GateSettings(max_bias=0.05)).checks if each.name == "calibration"
    ]
    assert check.result is Result.PASS
    assert check.numbers["reference_bias"] == 0
    assert "of 1" in check.reason
    wrong = evidence(
        -1.0, labels=never, predictions=confidence, reference_labels=never, reference_predictions=never,
        of_classes=True,
    )  # fmt: skip
    (check,) = [
        each for each in judge(wrong, GateSettings(max_bias=0.05)).checks if each.name == "calibration"
    ]
    assert check.result is Result.FAIL


def test_a_tensor_in_a_signature_is_as_mlflow_writes_it() -> None:
    signature = Signature({"image": TensorType("float32", (-1, 3, 8, 8))}, {"y": "float"})
    written = yaml.safe_load(mlmodel(signature, "r"))["signature"]
    assert json.loads(written["inputs"]) == [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3, 8, 8]}, "name": "image"}
    ]
    assert json.loads(written["outputs"]) == [{"type": "float", "name": "y", "required": True}]
