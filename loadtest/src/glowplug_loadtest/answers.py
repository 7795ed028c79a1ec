"""Whether an answer is right: its outputs equal those of the reference, or are at least well formed and finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.wire.tensors import InferResponse

# Replicas may run on different CPUs, or predict a row alone or among others: float32 sums differ in the last digits.
RTOL, ATOL = 1e-4, 1e-5
Outputs = tuple[tuple[str, str, tuple[int, ...], Any], ...]


def outputs_of(response: InferResponse) -> Outputs:
    """(name, datatype, shape, data) of each output. Raises InferenceError for none, and for what is not finite."""
    if not response.outputs:
        raise InferenceError("the answer has no outputs")
    found = []
    for tensor in response.outputs:
        data = tensor.data
        if tensor.datatype.startswith(("FP", "BF")):
            data = np.asarray(data, dtype=np.float64).reshape(-1)
            if not np.isfinite(data).all():
                raise InferenceError(f"output {tensor.name!r} is not finite")
        elif not isinstance(data, list):
            data = np.asarray(data).reshape(-1).tolist()
        found.append((tensor.name, tensor.datatype, tuple(tensor.shape), data))
    return tuple(found)


def difference(expected: Outputs, found: Outputs) -> str:
    """What is wrong with `found`, in a few words that are the same for the same mistake; "" if nothing is."""
    if len(expected) != len(found):
        return "wrong answer: another number of outputs"
    for (name, datatype, shape, data), (its_name, its_datatype, its_shape, its_data) in zip(
        expected, found, strict=True
    ):
        if (name, datatype, shape) != (its_name, its_datatype, its_shape):
            return f"wrong answer: output {name!r} has another name, datatype or shape"
        is_same = (
            bool((data == its_data).all() or np.allclose(data, its_data, RTOL, ATOL))
            if isinstance(data, np.ndarray)
            else data == its_data
        )
        if not is_same:
            return f"wrong answer: output {name!r} has other values"
    return ""
