"""Several requests as one, stacked along the first axis, and its response as theirs. Pure.

What may be stacked has the same kind: names, datatypes, all dimensions but the first, parameters and outputs asked
for. Parameters that only say how to answer or when are left out of the comparison.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

from glowplug.serving.urgency import PRIORITY, TIMEOUT
from glowplug.wire import InferRequest, InferResponse, Tensor
from glowplug.wire.tensors import Parameters, element_count

_NOT_THE_MODELS = frozenset({TIMEOUT, PRIORITY, "binary_data_output", "binary_data"})


def row_count(request: InferRequest) -> int:
    """The size of the first axis of the first input; 1 where it has none."""
    shape = request.inputs[0].shape if request.inputs else ()
    return shape[0] if shape else 1


def kind(request: InferRequest) -> Hashable | None:
    """Equal for requests that may be stacked; None where the inputs don't share a first axis."""
    rows = row_count(request)
    inputs = request.inputs
    if not inputs or any(not tensor.shape or tensor.shape[0] != rows for tensor in inputs):
        return None
    return (
        tuple(
            (tensor.name, tensor.datatype, tensor.shape[1:], _told(tensor.parameters)) for tensor in inputs
        ),
        request.model_version,
        tuple((output.name, _told(output.parameters)) for output in request.outputs),
        _told(request.parameters),
    )


def _told(parameters: Parameters) -> tuple[Hashable, ...]:
    if not parameters:
        return ()
    # The type, since True equals 1.
    return tuple(
        (name, type(value), value)
        for name, value in sorted(parameters.items())
        if name not in _NOT_THE_MODELS
    )


def stack(requests: Sequence[InferRequest]) -> InferRequest:
    """One request with the rows of all, in order; they are of one kind. It has no id."""
    first = requests[0]
    columns = zip(*(request.inputs for request in requests), strict=True)
    parameters = {name: value for name, value in first.parameters.items() if name not in _NOT_THE_MODELS}
    return InferRequest(
        first.model_name,
        tuple(_stack_tensors(column) for column in columns),
        outputs=first.outputs,
        parameters=parameters,
        model_version=first.model_version,
    )


def _stack_tensors(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if first.datatype == "BYTES":
        data = [item for tensor in tensors for item in tensor.data]
        rows = sum(tensor.shape[0] for tensor in tensors)
        return Tensor(first.name, first.datatype, (rows, *first.shape[1:]), data, first.parameters)
    array = np.concatenate([tensor.data for tensor in tensors])
    return Tensor(first.name, first.datatype, array.shape, array, first.parameters)


def unstack(response: InferResponse, rows: Sequence[int]) -> list[InferResponse]:
    """The response cut into parts of so many rows. Raises ValueError where an output is not row-wise."""
    total = sum(rows)
    for tensor in response.outputs:
        if not tensor.shape or tensor.shape[0] != total or tensor.size != element_count(tensor.shape):
            raise ValueError(
                f"output {tensor.name!r} has shape {list(tensor.shape)}, expected [{total}, ...]: "
                "a model with max_batch_size above 1 answers a row with a row"
            )
    bounds = [0]
    for count in rows:
        bounds.append(bounds[-1] + count)
    return [
        InferResponse(
            response.model_name,
            tuple(_cut(tensor, start, end) for tensor in response.outputs),
            response.id,
            response.model_version,
            response.parameters,
        )
        for start, end in pairwise(bounds)
    ]


def _cut(tensor: Tensor, start: int, end: int) -> Tensor:
    shape = (end - start, *tensor.shape[1:])
    if tensor.datatype == "BYTES":
        width = element_count(tensor.shape[1:])
        return Tensor(
            tensor.name, "BYTES", shape, tensor.data[start * width : end * width], tensor.parameters
        )
    return Tensor(tensor.name, tensor.datatype, shape, tensor.data[start:end], tensor.parameters)
