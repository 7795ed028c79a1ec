"""From a request to what is predicted: texts, or tokens that the caller made. Pure.

What is wrong is found here, before requests are batched: a caller's mistake costs nobody else's batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.wire import InferRequest, Tensor
from glowplug_huggingface.folder import ModelFolder
from glowplug_huggingface.settings import TextConfig

TEXT = "text"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


def checked(
    request: InferRequest, folder: ModelFolder, takes: tuple[str, ...], config: TextConfig
) -> InferRequest:
    """The request with one tensor `text` [n], or with every token tensor that the model takes, [n, length] INT64.

    Raises InferenceError (400) that names the tensor.
    """
    given = {tensor.name: tensor for tensor in request.inputs}
    if IDS not in given and folder.tokenizer is not None and len(given) <= 1:
        return replace(request, inputs=(_texts(request.inputs, config),))
    unknown = [name for name in given if name not in takes]
    if unknown or IDS not in given:
        text = "" if folder.tokenizer is None else f"{TEXT!r} (BYTES [n]), or "
        more = ", ".join(repr(name) for name in takes if name != IDS)
        found = ", ".join(repr(name[:80]) for name in list(given)[:10]) or "none"
        raise InferenceError(
            f"the inputs are {found}, expected {text}{IDS!r} (INT64 [n, tokens]) and, if need be, {more}"
        )
    return replace(request, inputs=_tokens(given, folder, takes, config))


def _texts(inputs: tuple[Tensor, ...], config: TextConfig) -> Tensor:
    if not inputs:
        raise InferenceError(f"no input, expected one BYTES tensor {TEXT!r} [n]")
    tensor = inputs[0]
    where = f"tensor {tensor.name!r}"
    if tensor.datatype != "BYTES":
        raise InferenceError(f"{where}: datatype is {tensor.datatype}, expected BYTES: a text each")
    shape = tensor.shape
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise InferenceError(f"{where}: shape is {list(shape)}, expected [n]")
    _check_rows(tensor, shape[0], config)
    for index, data in enumerate(tensor.data):
        if len(data) > config.max_text_bytes:
            raise InferenceError(
                f"{where}: text {index} has {len(data)} bytes, at most {config.max_text_bytes} are allowed",
                hint="--max_text_bytes, or cut it off: what is behind --max_length tokens is not looked at",
            )
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as error:
                raise InferenceError(f"{where}: text {index} is not UTF-8 (byte {error.start})") from error
    return Tensor(TEXT, "BYTES", (shape[0],), tensor.data)


def _tokens(
    given: dict[str, Tensor], folder: ModelFolder, takes: tuple[str, ...], config: TextConfig
) -> tuple[Tensor, ...]:
    ids = given[IDS]
    shape = ids.shape
    if len(shape) != 2:
        raise InferenceError(f"tensor {IDS!r}: shape is {list(shape)}, expected [n, tokens]")
    _check_rows(ids, shape[0], config)
    if not 1 <= shape[1] <= config.max_length:
        raise InferenceError(
            f"tensor {IDS!r}: shape is {list(shape)}, expected [n, 1 to {config.max_length}] (--max_length)"
        )
    tensors = [_integers(ids, shape, folder.vocab_size)]
    if MASK in takes:
        tensors.append(_mask(given.get(MASK), shape))
    if TYPES in takes:
        types = given.get(TYPES)
        empty = Tensor(TYPES, "INT64", shape, np.zeros(shape, dtype=np.int64))
        tensors.append(empty if types is None else _integers(types, shape, folder.type_vocab_size))
    return tuple(tensors)


def _check_rows(tensor: Tensor, rows: int, config: TextConfig) -> None:
    if rows > config.max_rows:
        raise InferenceError(
            f"tensor {tensor.name!r}: {rows} rows, at most {config.max_rows} are allowed (--max_rows)"
        )


def _integers(tensor: Tensor, shape: tuple[int, ...], below: int) -> Tensor:
    """As INT64 of this shape, every value in 0 to `below` - 1."""
    where = f"tensor {tensor.name!r}"
    if tensor.datatype not in ("INT64", "INT32"):
        raise InferenceError(f"{where}: datatype is {tensor.datatype}, expected INT64")
    if tensor.shape != shape:
        raise InferenceError(f"{where}: shape is {list(tensor.shape)}, expected {list(shape)} as {IDS!r} has")
    data: Any = np.asarray(tensor.data, dtype=np.int64)
    if data.size and (data.min() < 0 or data.max() >= below):
        index = np.argwhere((data < 0) | (data >= below))[0].tolist()
        raise InferenceError(f"{where}: element {index} is {data[tuple(index)]}, expected 0 to {below - 1}")
    return Tensor(tensor.name, "INT64", shape, data)


def _mask(tensor: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    if tensor is None:
        return Tensor(MASK, "INT64", shape, np.ones(shape, dtype=np.int64))
    found = _integers(tensor, shape, 2)
    empty = np.flatnonzero(~found.data.any(axis=1))
    if empty.size:
        raise InferenceError(f"tensor {MASK!r}: row {empty[0]} is all zeros, expected at least one token")
    return found
