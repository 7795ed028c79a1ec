"""From the numbers that a model computes to the tensors of the answer. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.serving import TensorSpec
from glowplug.wire import InferRequest, Tensor
from glowplug_huggingface.folder import MULTI_LABEL, SINGLE_LABEL, ModelFolder
from glowplug_huggingface.settings import EMBEDDING

VECTOR, LOGITS, PROBABILITIES, LABEL = "embedding", "logits", "probabilities", "label"


def specs(folder: ModelFolder, width: int) -> tuple[TensorSpec, ...]:
    """The outputs of a model that gives `width` numbers a row."""
    if folder.task == EMBEDDING:
        return (TensorSpec(VECTOR, "FP32", (-1, width)),)
    names = [LOGITS]
    if folder.problem in (SINGLE_LABEL, MULTI_LABEL):
        names.append(PROBABILITIES)
    found = [TensorSpec(name, "FP32", (-1, width)) for name in names]
    # Of several labels that hold at once none is *the* label.
    return (*found, TensorSpec(LABEL, "BYTES", (-1,))) if folder.problem == SINGLE_LABEL else tuple(found)


def check_asked(request: InferRequest, there: tuple[TensorSpec, ...]) -> None:
    """Raises InferenceError (400) for an output that the model has not."""
    known = [spec.name for spec in there]
    for asked in request.outputs:
        if asked.name not in known:
            names = ", ".join(map(repr, known))
            raise InferenceError(f"no output {asked.name[:80]!r}; the outputs are: {names}")


def tensors(
    folder: ModelFolder, values: Any, request: InferRequest, there: tuple[TensorSpec, ...]
) -> tuple[Tensor, ...]:
    """The outputs that are asked for, or all; `values` are float32 [n, width]."""
    asked = {output.name for output in request.outputs} or {spec.name for spec in there}
    made = []
    for spec in there:
        if spec.name not in asked:
            continue
        if spec.name == LABEL:
            words = [folder.labels[index] for index in np.argmax(values, axis=1).tolist()]
            made.append(Tensor.from_strings(LABEL, words))
            continue
        data = probabilities(folder, values) if spec.name == PROBABILITIES else values
        made.append(Tensor(spec.name, "FP32", data.shape, data))
    return tuple(made)


def probabilities(folder: ModelFolder, logits: Any) -> Any:
    """float32 [n, classes]; of a regression, the numbers as they are."""
    if folder.problem == MULTI_LABEL:
        return sigmoid(logits)
    return softmax(logits) if folder.problem == SINGLE_LABEL else logits


def softmax(logits: Any) -> Any:
    """float32 [n, classes], rows of sum 1; of differences to the largest, so that nothing overflows."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: Any) -> Any:
    """1 / (1 + exp(-x)), by the hyperbolic tangent, which does not overflow."""
    return (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)
