"""What a workload supplies, and how it is found.

A workload is a class `module:Class` that takes the `Settings`. It knows where its rows are, how its model is trained
and read back, and what one would predict without a model; it does not split time, compare, register or deploy.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from glowplug.errors import ConfigError
from glowplug.registry.signature import Signature
from glowplug_pipelines.rows import Float64s, Rows
from glowplug_pipelines.settings import Settings, Span

Progress = Callable[[str, int, int], None]
"""(what, done, total): total 0 while it is not known."""
_SOURCES = ("*.py", "*.sql", "*.yaml")


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that says nothing."""


class Predictor(Protocol):
    """A model read back from its directory."""

    @property
    def names(self) -> tuple[str, ...]:
        """The features it was trained on, in order."""
        ...

    @property
    def importance(self) -> tuple[float, ...] | None:
        """[names] what each feature counts for, 0 or more; None where that is not known."""
        ...

    def predict(self, rows: Rows) -> Float64s:
        """Of n rows with these very names: [n], or the probabilities of classes, [n, classes]."""
        ...


class Workload(Protocol):
    """Built once a process; every method may be called in a process of its own, after a kill as well as before."""

    unit: ClassVar[str]
    """Of the loss, and of a label that is a number: min."""
    slices: ClassVar[tuple[str, ...]]
    """Those columns of `Rows.slices` by which the gate looks for regressions."""

    @property
    def schema_hash(self) -> str:
        """Of the ordered features that a model is trained on; it travels with the model."""
        ...

    @property
    def signature(self) -> Signature:
        """What a predictor of its model is sent, and answers; its metadata are not the workload's."""
        ...

    def rows(self, span: Span, progress: Progress) -> Rows:
        """The rows that happened within `span`, with the features as known then (point in time) and the labels that
        were known by the end of `span` (of classes: their places from 0 on), NaN for the others. The same span gives
        the same rows, in time's order.

        Raises `FeatureError` where the source does not have what the features are made of.
        """
        ...

    def train(self, fit: Rows, validation: Rows, directory: Path, progress: Progress) -> Mapping[str, float]:
        """Write the model's files into `directory` (empty, the workload's alone); returns metrics.

        No label is NaN. The same rows give the same files.
        """
        ...

    def load(self, directory: Path) -> Predictor:
        """Raises `FeatureError` or `StorageError` for files that are not its model's."""
        ...

    def naive(self, known: Rows, rows: Rows) -> Float64s:
        """What one would say of `rows` from the labels of `known` without a model: what a first must beat."""
        ...

    def losses(self, predicted: Float64s, labels: Float64s) -> Float64s:
        """[n] of each row; the model whose mean is lower is the better one."""
        ...


def load_workload(settings: Settings) -> Workload:
    """Raises `ConfigError` where there is no such class."""
    module_name, _, class_name = settings.workload.partition(":")
    try:
        made: Any = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"workload {settings.workload} of model {settings.model}: {error}", hint="it must be module:Class"
        ) from error
    workload: Workload = made(settings)
    return workload


def code_hash(workload: Workload) -> str:
    """16 hex digits over the sources of the workload's package and of this one: what a run's outcomes belong to."""
    digest = hashlib.sha256()
    own = type(workload).__module__
    for package in (own.partition(".")[0], __package__):
        place = importlib.import_module(package).__file__
        if place is None or Path(place).name != "__init__.py":
            # A single module, or a namespace that others share: the workload's own file is what is known.
            files = [Path(str(sys.modules[own].__file__))]
            folder = files[0].parent
        else:
            folder = Path(place).parent
            files = sorted(each for pattern in _SOURCES for each in folder.rglob(pattern))
        for path in files:
            digest.update(f"{package}/{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
