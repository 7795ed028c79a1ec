"""What a model takes and gives, as it says itself, and whether a request is that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import InferenceError, StorageError
from glowplug.serving import TensorSpec
from glowplug.wire import InferRequest, Tensor
from glowplug.wire.datatypes import DATATYPES

DATATYPE_OF = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
MAX_NAMED = 10


@dataclass(frozen=True)
class Signature:
    """An input or output. `shape` has -1 for dynamic axes; `words` is the same with the model's names for them.

    `axis` is the model's name of the first axis, empty where it has none.

    An empty shape is a scalar or a tensor of any rank: onnxruntime tells both alike, and computes either.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    words: str
    axis: str = ""

    @property
    def spec(self) -> TensorSpec:
        """As the metadata says it."""
        return TensorSpec(self.name, self.datatype, self.shape)


def signatures(path: Path, what: str, arguments: Sequence[Any]) -> tuple[Signature, ...]:
    """Those of a session's inputs or outputs (NodeArg). Raises StorageError for types that are not served."""
    try:
        return tuple(_signature(path, what, argument) for argument in arguments)
    except UnicodeDecodeError as error:
        raise StorageError(f"{path}: the name of an {what} or its axis is not UTF-8: {error}") from error


def _signature(path: Path, what: str, argument: Any) -> Signature:
    datatype = DATATYPE_OF.get(argument.type)
    if datatype is None:
        # What skl2onnx makes of a classifier unless told otherwise.
        is_zip_map = argument.type.startswith("seq(map(")
        hint = "convert_sklearn(..., options={'zipmap': False}) makes a tensor of it" if is_zip_map else ""
        raise StorageError(
            f"{path}: the {what} {argument.name!r} is {argument.type}, which is not served", hint=hint
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in argument.shape)
    words = ", ".join("?" if size is None else str(size) for size in argument.shape)
    first = argument.shape[0] if argument.shape else None
    return Signature(argument.name, datatype, shape, f"[{words}]", first if isinstance(first, str) else "")


def feeds(expected: Sequence[Signature], request: InferRequest) -> dict[str, Any]:
    """The arrays for a session by input name. Raises InferenceError (400) that names the tensor."""
    given = {tensor.name: tensor for tensor in request.inputs}
    missing = [each.name for each in expected if each.name not in given]
    known = {each.name for each in expected}
    unknown = [name for name in given if name not in known]
    if missing or unknown:
        raise InferenceError(
            f"the inputs are not the model's {len(expected)}: missing {_some(missing)}; unknown {_some(unknown)}"
        )
    return {each.name: _array(each, given[each.name]) for each in expected}


def _array(expected: Signature, tensor: Tensor) -> Any:
    if tensor.datatype != expected.datatype:
        raise InferenceError(
            f"tensor {tensor.name!r}: datatype is {tensor.datatype}, expected {expected.datatype}"
        )
    if expected.shape and not _fits(tensor.shape, expected.shape):
        raise InferenceError(
            f"tensor {tensor.name!r}: shape is {list(tensor.shape)}, expected {expected.words}"
        )
    if tensor.datatype != "BYTES":
        return np.asarray(tensor.data, dtype=DATATYPES[tensor.datatype].dtype, order="C")
    texts: Any = np.empty(tensor.size, dtype=object)
    texts[:] = tensor.as_strings()
    return texts.reshape(tensor.shape)


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (-1, size) for size, wanted in zip(shape, expected, strict=True)
    )


def asked_outputs(there: Sequence[Signature], request: InferRequest) -> list[Signature]:
    """The outputs that the request names, or all. Raises InferenceError (400) for one that the model has not."""
    if not request.outputs:
        return list(there)
    by_name = {each.name: each for each in there}
    names = dict.fromkeys(asked.name for asked in request.outputs)
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise InferenceError(f"no output {_some(unknown)}; the outputs are: {_some(list(by_name))}")
    return [by_name[name] for name in names]


def to_tensor(output: Signature, value: Any) -> Tensor:
    """What onnxruntime returned for an output, any shape."""
    array = np.asarray(value)
    if output.datatype == "BYTES":
        return Tensor.from_strings(output.name, array.ravel().tolist(), array.shape)
    return Tensor(output.name, output.datatype, array.shape, array)


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(repr(name[:80]) for name in names[:MAX_NAMED]) + rest
