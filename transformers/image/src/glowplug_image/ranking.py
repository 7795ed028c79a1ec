"""The best classes of each image, beside what the predictor says, for --top_k and --labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import ConfigError, InferenceError
from glowplug.serving import TensorSpec
from glowplug.wire import Tensor

CLASS, SCORE, LABEL = "class", "score", "label"
FLOATS = ("FP16", "FP32", "FP64")


@dataclass(frozen=True)
class Ranking:
    """The `top_k` best classes; labels, if any, in the order of the classes. No classes are ranked for a top_k of 0."""

    top_k: int = 0
    labels: tuple[str, ...] = ()

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The outputs that it adds."""
        if not self.top_k:
            return ()
        shape = (-1, self.top_k)
        specs = (TensorSpec(CLASS, "INT64", shape), TensorSpec(SCORE, "FP32", shape))
        return (*specs, TensorSpec(LABEL, "BYTES", shape)) if self.labels else specs

    def misfit(self, outputs: Sequence[TensorSpec]) -> str:
        """Why outputs like these cannot be ranked, or ""."""
        if not (self.top_k and outputs):
            return ""
        first = outputs[0]
        if first.datatype not in FLOATS or len(first.shape) != 2:
            found = f"{first.datatype} {list(first.shape)}"
            return f"the predictor's output {first.name!r} is {found}, no scores [n, classes]"
        return self._count_problem(first.name, first.shape[1]) if first.shape[1] >= 0 else ""

    def __call__(self, scores: Tensor) -> tuple[Tensor, ...]:
        """Classes and scores [n, k], the best first, equal ones by class; k is less where there are fewer classes.

        Raises InferenceError (503) where the tensor is no scores, or not as many as labels: the two sides of the
        deployment do not fit, and the caller cannot help it.
        """
        problem = self.misfit((TensorSpec(scores.name, scores.datatype, scores.shape),))
        if problem:
            raise InferenceError(problem, code=503)
        values: Any = np.asarray(scores.data, dtype=np.float32)
        order = np.argsort(-values, axis=1, kind="stable")[:, : self.top_k]
        best = (
            Tensor(CLASS, "INT64", order.shape, order.astype(np.int64)),
            Tensor(SCORE, "FP32", order.shape, np.take_along_axis(values, order, axis=1)),
        )
        if not self.labels:
            return best
        words = [self.labels[index] for index in order.ravel().tolist()]
        return (*best, Tensor.from_strings(LABEL, words, order.shape))

    def _count_problem(self, name: str, classes: int) -> str:
        if not self.labels or len(self.labels) == classes:
            return ""
        return f"there are {len(self.labels)} labels for the {classes} classes of the predictor's output {name!r}"


def read_labels(path: Path) -> tuple[str, ...]:
    """A label a line, UTF-8; empty lines at the end are none. Raises ConfigError."""
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--labels={path} cannot be read: {error}") from error
    if not labels:
        raise ConfigError(f"--labels={path} is empty", hint="a label a line, in the order of the classes")
    return labels
