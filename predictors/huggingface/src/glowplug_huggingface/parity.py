"""Whether an export computes what eager torch does, on probes of every kind that requests are: one and several rows,
short and longest, padded, and with holes in the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from glowplug_huggingface.folder import ModelFolder
from glowplug_huggingface.outputs import probabilities
from glowplug_huggingface.payload import IDS, MASK, TYPES
from glowplug_huggingface.settings import EMBEDDING, FLOAT32
from glowplug_huggingface.tokens import Tokenizer, Tokens, padded

# The largest difference of a number, relative to numbers above 1: two float32 computations of 12 layers, which add in
# another order, differ by 1e-6 to 1e-5.
TOLERANCE = 1e-4
# What dynamic int8 may cost: the cosine between embeddings, and the probability of a class. MiniLM with a scale a
# column keeps 0.976 on the worst probe and 0.99 on average; with a scale a matrix it falls to 0.89.
INT8_COSINE = 0.97
INT8_PROBABILITY = 0.05

PROBE_TEXTS = (
    "The plane to Boston leaves at noon.",
    "",
    "An excellent film, which I would watch again!",
    "42",
    "Il n'y a pas de fumée sans feu: 東京, Ωmega, 👍🏽.",
    "It was delayed by snow, by fog, and once more by snow; nobody was told why. " * 40,
)
ROWS = 4

Arrays = Mapping[str, Any]


class Backend(Protocol):
    """Computes float32 [n, width] of INT64 arrays [n, length]."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    def run(self, arrays: Arrays) -> Any: ...


@dataclass(frozen=True)
class Verdict:
    """`reason` is empty where the export may be served; `difference` is the largest, as the task measures it."""

    difference: float
    reason: str = ""


def probes(folder: ModelFolder, tokenizer: Tokenizer | None, max_length: int) -> list[dict[str, Any]]:
    """Batches of inputs; the same every time."""
    rng = np.random.default_rng(0)
    lengths = (1, min(7, max_length), max_length)

    def row(length: int) -> Tokens:
        return Tokens(rng.integers(0, folder.vocab_size, length).tolist(), [0] * length)

    rows = [row(length) for length in lengths for _ in range(2)]
    if tokenizer is not None:
        rows += [found for found in tokenizer(PROBE_TEXTS) if found.ids]
    alone = [padded([found], folder.pad_id) for found in rows]
    # Next to longer ones, so that each is padded.
    together = [padded(rows[start::ROWS], folder.pad_id) for start in range(ROWS)]
    holes = padded([row(lengths[-1]) for _ in range(2)], folder.pad_id)
    holes[MASK][:, 1::2] = 0
    if folder.type_vocab_size > 1:
        holes[TYPES][:, lengths[-1] // 2 :] = 1
    return [*alone, *together, holes]


def compare(
    folder: ModelFolder, batches: Sequence[Arrays], reference: Backend, found: Backend, dtype: str
) -> Verdict:
    """Both backends on all batches."""
    missing = set(reference.inputs) - set(found.inputs)
    if IDS in missing or MASK in missing:
        return Verdict(float("inf"), f"the export does not take {', '.join(sorted(missing))}")
    worst = 0.0
    for arrays in batches:
        expected, values = reference.run(arrays), found.run(arrays)
        if expected.shape != values.shape:
            return Verdict(float("inf"), f"the export gives {values.shape}, torch gives {expected.shape}")
        if not (np.isfinite(expected).all() and np.isfinite(values).all()):
            return Verdict(float("inf"), "a probe's result is not finite")
        worst = max(worst, _difference(folder, expected, values, dtype))
    bound = tolerance(folder, dtype)
    if worst > bound:
        return Verdict(worst, f"the export differs from torch by {worst:.2g}, at most {bound:g} is allowed")
    return Verdict(worst)


def tolerance(folder: ModelFolder, dtype: str) -> float:
    """The largest difference that is allowed."""
    if dtype == FLOAT32:
        return TOLERANCE
    return 1 - INT8_COSINE if folder.task == EMBEDDING else INT8_PROBABILITY


def _difference(folder: ModelFolder, expected: Any, values: Any, dtype: str) -> float:
    if dtype == FLOAT32:
        return float((np.abs(values - expected) / np.maximum(np.abs(expected), 1)).max())
    if folder.task == EMBEDDING:
        norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(values, axis=1)
        return float((1 - (expected * values).sum(axis=1) / np.maximum(norms, 1e-12)).max())
    return float(np.abs(probabilities(folder, expected) - probabilities(folder, values)).max())
