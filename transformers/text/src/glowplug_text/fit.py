"""Which of the tensors a predictor takes, by its own metadata, and under which names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from glowplug.serving import TensorSpec
from glowplug.wire import Tensor
from glowplug.wire.v2_grpc import ModelMetadata
from glowplug_text.settings import MAX_LENGTH, TextConfig
from glowplug_text.tokens import IDS, MASK, TYPES

# The names that exports of BERT give their inputs: transformers', and those of Google's and ONNX's own models.
NAMES = {
    IDS: IDS, "input_ids:0": IDS,
    MASK: MASK, "input_mask": MASK, "input_mask:0": MASK,
    TYPES: TYPES, "segment_ids": TYPES, "segment_ids:0": TYPES,
}  # fmt: skip
DATATYPES = {"INT64": np.int64, "INT32": np.int32}


@dataclass(frozen=True)
class Taken:
    """An input of the predictor: its name, datatype, and which of ours it is."""

    name: str
    datatype: str
    what: str


# What a V1 predictor, which cannot be asked, gets.
ALL = tuple(Taken(name, "INT64", name) for name in (IDS, MASK, TYPES))


def fit(metadata: ModelMetadata, config: TextConfig) -> tuple[tuple[Taken, ...], str]:
    """The inputs to send, and "", or nothing and why the predictor cannot be used."""
    taken = []
    for spec in metadata.inputs:
        what = NAMES.get(spec.name)
        if what is None:
            return (), _stranger(spec)
        if spec.datatype not in DATATYPES:
            return (), f"the predictor's input {spec.name!r} is {spec.datatype}, expected INT64 or INT32"
        if not _is_fitting(spec.shape, config):
            return (), (
                f"the predictor's input {spec.name!r} is {list(spec.shape)}, the transformer makes "
                f"{[-1, config.max_length if config.padding == MAX_LENGTH else -1]} (--max_length, --padding)"
            )
        taken.append(Taken(spec.name, spec.datatype, what))
    if IDS not in {each.what for each in taken}:
        return (), f"the predictor takes no {IDS!r}: this transformer makes tokens of texts"
    return tuple(taken), ""


def _stranger(spec: TensorSpec) -> str:
    if spec.datatype == "BYTES":
        return f"the predictor takes texts itself ({spec.name!r}): it needs no transformer"
    known = ", ".join(map(repr, (IDS, MASK, TYPES)))
    return f"the predictor wants an input {spec.name!r}, the transformer makes {known}"


def _is_fitting(shape: tuple[int, ...], config: TextConfig) -> bool:
    # An empty shape is of any rank.
    if not shape:
        return True
    length = config.max_length if config.padding == MAX_LENGTH else None
    return len(shape) == 2 and shape[1] in (-1, length)


def tensors(taken: tuple[Taken, ...], arrays: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The inputs of the predictor of INT64 arrays by our names."""
    made = []
    for each in taken:
        array = arrays[each.what].astype(DATATYPES[each.datatype], copy=False)
        made.append(Tensor(each.name, each.datatype, array.shape, array))
    return tuple(made)
