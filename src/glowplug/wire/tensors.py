"""The values of an inference call, the same for every protocol.

A Tensor that a decoder made always has data that agrees with its shape; nothing behind the decoders checks again.
Nobody changes one once it is made. They are not `frozen` all the same: a frozen dataclass takes four times as long to
make (0.8 µs instead of 0.2), and a small request makes six of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.wire.datatypes import DATATYPES, datatype_of

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]

# numpy's own limit is 64; no model comes near, and a long list of ones costs memory for nothing.
MAX_RANK = 32
MAX_ELEMENTS = 2**40

# One for all that have none; nobody changes it.
NO_PARAMETERS: Parameters = {}


def _no_parameters() -> Parameters:
    return NO_PARAMETERS


@dataclass(slots=True, eq=False)
class Tensor:
    """A named tensor.

    `data` is an array of exactly `shape` (BF16: float32 values), or for BYTES a flat list of byte strings, row-major.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any  # np.ndarray | list[bytes]
    parameters: Parameters = field(default_factory=_no_parameters)

    @classmethod
    def from_numpy(cls, name: str, array: Any, datatype: str | None = None) -> Tensor:
        """A tensor of an array of any shape; `datatype` converts, else it follows the dtype. Raises TypeError."""
        array = np.asarray(array)
        datatype = datatype or datatype_of(array.dtype)
        if datatype == "BYTES":
            return cls(name, datatype, array.shape, [_as_bytes(item) for item in array.ravel().tolist()])
        converted = np.ascontiguousarray(array, dtype=DATATYPES[datatype].dtype).reshape(array.shape)
        return cls(name, datatype, array.shape, converted)

    @classmethod
    def from_strings(
        cls, name: str, values: Iterable[str | bytes], shape: Sequence[int] | None = None
    ) -> Tensor:
        """A BYTES tensor of text (UTF-8) or byte strings, flat and row-major."""
        data = [_as_bytes(value) for value in values]
        return cls(name, "BYTES", tuple(shape) if shape is not None else (len(data),), data)

    @property
    def size(self) -> int:
        """How many elements."""
        return len(self.data) if self.datatype == "BYTES" else int(self.data.size)

    def as_numpy(self) -> Any:
        """The array, shaped; for BYTES an object array of byte strings."""
        if self.datatype != "BYTES":
            return self.data
        array: Any = np.empty(len(self.data), dtype=object)
        array[:] = self.data
        return array.reshape(self.shape)

    def array(self) -> Any:
        """The array as the wire needs it: contiguous, of the datatype's own dtype. Not for BYTES.

        Raises ValueError where a model built a tensor whose data disagrees with its shape.
        """
        if self.data.shape != self.shape:
            raise ValueError(f"tensor {self.name!r}: data of shape {self.data.shape}, declared {self.shape}")
        return np.ascontiguousarray(self.data, dtype=DATATYPES[self.datatype].dtype)

    def as_strings(self) -> list[str]:
        """BYTES as text, flat. Raises InferenceError (400) for another datatype or what is not UTF-8."""
        if self.datatype != "BYTES":
            raise InferenceError(f"tensor {self.name!r}: datatype is {self.datatype}, expected BYTES")
        try:
            return [item.decode() for item in self.data]
        except UnicodeDecodeError as error:
            raise InferenceError(f"tensor {self.name!r}: an element is not UTF-8 text") from error


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the caller asks for; `binary_data` in the parameters asks for the binary form."""

    name: str
    parameters: Parameters = field(default_factory=_no_parameters)


@dataclass(slots=True, eq=False)
class InferRequest:
    """A V2 inference request. No `outputs` means all of them.

    `document` is the parsed JSON that it came from, where it did, for adapters that hand on the client's own lists.
    `is_raw` says that it came with raw gRPC contents, and that the answer should too.
    """

    model_name: str
    inputs: tuple[Tensor, ...]
    id: str = ""
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Parameters = field(default_factory=_no_parameters)
    model_version: str = ""
    document: Mapping[str, Any] | None = field(default=None, repr=False)
    is_raw: bool = False

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs, in order."""
        return [tensor.name for tensor in self.inputs]

    def input(self, name: str) -> Tensor:
        """The input of that name. Raises InferenceError (400) that lists those that are there."""
        return _by_name(self.inputs, name, "input")


@dataclass(slots=True, eq=False)
class InferResponse:
    """A V2 inference response."""

    model_name: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    model_version: str = ""
    parameters: Parameters = field(default_factory=_no_parameters)

    def output(self, name: str) -> Tensor:
        """The output of that name. Raises InferenceError (400) that lists those that are there."""
        return _by_name(self.outputs, name, "output")


def _by_name(tensors: tuple[Tensor, ...], name: str, what: str) -> Tensor:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    there = ", ".join(repr(tensor.name[:80]) for tensor in tensors[:20]) or "none"
    raise InferenceError(f"no {what} {name!r}; the {what}s are: {there}")


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else str(value).encode()


def check_shape(tensor: str, shape: object) -> tuple[int, ...]:
    """A shape from outside as a tuple. Raises InferenceError (400) for what no tensor can have."""
    if not isinstance(shape, list | tuple):
        raise InferenceError(f"tensor {tensor!r}: shape is {kind_of(shape)}, expected an array of integers")
    if len(shape) > MAX_RANK:
        raise InferenceError(
            f"tensor {tensor!r}: shape has {len(shape)} dimensions, at most {MAX_RANK} allowed"
        )
    for dimension in shape:
        if type(dimension) is not int or not 0 <= dimension <= MAX_ELEMENTS:
            raise _no_dimension(tensor, shape)
    if 0 in shape and element_count(tuple(filter(None, shape))) > MAX_ELEMENTS:
        # Empty, and yet numpy's strides for it overflow.
        raise InferenceError(
            f"tensor {tensor!r}: the dimensions of shape {list(shape)} multiply to more than {MAX_ELEMENTS}"
        )
    return tuple(shape)


def _no_dimension(tensor: str, shape: Sequence[object]) -> InferenceError:
    for axis, dimension in enumerate(shape):
        if type(dimension) is not int:
            return InferenceError(
                f"tensor {tensor!r}: shape[{axis}] is {kind_of(dimension)}, expected an integer"
            )
        if not 0 <= dimension <= MAX_ELEMENTS:
            return InferenceError(
                f"tensor {tensor!r}: shape[{axis}] = {dimension}, expected 0 to {MAX_ELEMENTS}"
            )
    raise AssertionError("every dimension is one")


def element_count(shape: tuple[int, ...]) -> int:
    """The product of the dimensions (1 for a scalar); Python's integers cannot overflow."""
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def check_count(tensor: str, shape: tuple[int, ...], found: int) -> None:
    """Raises InferenceError (400) where the number of elements is not what the shape says."""
    expected = element_count(shape)
    if found != expected:
        raise InferenceError(
            f"tensor {tensor!r}: shape {list(shape)} needs {expected} elements, the data has {found}"
        )


def check_missing(tensor: str, array: Any) -> None:
    """Raises InferenceError (400) where a float array holds NaN."""
    missing = int(np.count_nonzero(np.isnan(array)))
    if missing:
        raise InferenceError(
            f"tensor {tensor!r}: {missing} of {array.size} elements are missing (null or NaN); "
            "this model takes no missing values"
        )


def check_names(tensors: Sequence[Tensor], what: str) -> None:
    """Raises InferenceError (400) where two tensors have one name."""
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise InferenceError(f"{what} {tensor.name[:80]!r} is there twice")
        seen.add(tensor.name)


def kind_of(value: object) -> str:
    """What a JSON value is, in words, without the value itself."""
    names: dict[type, str] = {
        type(None): "null", bool: "a boolean", int: "an integer", float: "a number",
        str: "a string", list: "an array", dict: "an object",
    }  # fmt: skip
    return names.get(type(value), type(value).__name__)
