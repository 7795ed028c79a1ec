"""Do a request's inputs fit those that the model declares? Pure; every problem of a request is told at once."""

from __future__ import annotations

from collections.abc import Sequence

from glowplug.errors import InferenceError
from glowplug.wire import Tensor
from glowplug.wire.v2_grpc import TensorMetadata

MAX_TOLD = 5


def check_inputs(declared: Sequence[TensorMetadata], inputs: Sequence[Tensor]) -> None:
    """Raises InferenceError (400): an input is missing or unknown, or of another datatype or shape (-1: any size)."""
    if len(inputs) == len(declared) and all(map(_fits, declared, inputs)):
        return
    given = {tensor.name: tensor for tensor in inputs}
    problems = [
        f"tensor {spec.name!r} is missing, expected {_said(spec.datatype, spec.shape)}"
        for spec in declared
        if spec.name not in given
    ]
    known = {spec.name for spec in declared}
    names = ", ".join(repr(spec.name) for spec in declared)
    problems += [
        f"tensor {name[:80]!r} is no input of this model, expected {names}"
        for name in given
        if name not in known
    ]
    problems += [
        f"tensor {spec.name!r} is {_said(tensor.datatype, tensor.shape)}, "
        f"expected {_said(spec.datatype, spec.shape)}"
        for spec in declared
        if (tensor := given.get(spec.name)) is not None and not _fits(spec, tensor)
    ]
    if problems:
        more = f"; and {len(problems) - MAX_TOLD} more" if len(problems) > MAX_TOLD else ""
        raise InferenceError("; ".join(problems[:MAX_TOLD]) + more)


def _fits(spec: TensorMetadata, tensor: Tensor) -> bool:
    if tensor.name != spec.name or tensor.datatype != spec.datatype or len(tensor.shape) != len(spec.shape):
        return False
    for expected, found in zip(spec.shape, tensor.shape, strict=True):
        if expected != found and expected >= 0:
            return False
    return True


def _said(datatype: str, shape: Sequence[int]) -> str:
    return f"{datatype} {list(shape)}"
