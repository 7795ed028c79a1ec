"""Rows with their labels as values: what a workload yields, what is split by time, and how they lie on disk.

One `.npy` for each column in a folder: no pickle, written in one pass, mapped rather than read by a step that needs
one column only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from glowplug.errors import FeatureError

Float32s: TypeAlias = npt.NDArray[np.float32]
Float64s: TypeAlias = npt.NDArray[np.float64]
Int64s: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Texts: TypeAlias = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Rows:
    """n rows in time's order: `features` float32 [n, f] with `names` [f], `labels` [n] (NaN where not known),
    `event_ms` [n] (Unix, UTC), `slices`: columns of text [n] to look at parts by.
    """

    features: Float32s
    names: tuple[str, ...]
    labels: Float64s
    event_ms: Int64s
    slices: Mapping[str, Texts]

    def __post_init__(self) -> None:
        count = len(self.event_ms)
        shapes = {"features": self.features.shape, "labels": self.labels.shape}
        shapes |= {name: column.shape for name, column in self.slices.items()}
        for name, shape in shapes.items():
            expected = (count, len(self.names)) if name == "features" else (count,)
            if shape != expected:
                raise FeatureError(f"rows: {name} has the shape {shape}, must be {expected}")

    def __len__(self) -> int:
        return len(self.event_ms)

    @property
    def is_labelled(self) -> Bools:
        return np.isfinite(self.labels)

    def where(self, mask: Bools | slice) -> Rows:
        columns = {name: column[mask] for name, column in self.slices.items()}
        return Rows(self.features[mask], self.names, self.labels[mask], self.event_ms[mask], columns)

    def only(self, names: tuple[str, ...]) -> Rows:
        """With those features, in that order. Raises `FeatureError` where one is not there."""
        if names == self.names:
            return self
        places = {name: place for place, name in enumerate(self.names)}
        absent = [name for name in names if name not in places]
        if absent:
            raise FeatureError(f"the rows lack its feature {absent[0]} ({len(absent)} in all)")
        features = np.ascontiguousarray(self.features[:, [places[name] for name in names]])
        return replace(self, features=features, names=names)

    def between(self, start: datetime, stop: datetime) -> Rows:
        """Those that happened at start <= moment < stop."""
        return self.where((self.event_ms >= milliseconds(start)) & (self.event_ms < milliseconds(stop)))

    def digest(self) -> str:
        """16 hex digits over every value and name."""
        digest = hashlib.sha256("\0".join((*self.names, *sorted(self.slices))).encode())
        columns = [
            self.features,
            self.labels,
            self.event_ms,
            *(self.slices[name] for name in sorted(self.slices)),
        ]
        for column in columns:
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()[:16]


def milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def write_rows(rows: Rows, directory: Path) -> None:
    """Into `directory`, which exists; not atomic, a step's folder is."""
    columns: dict[str, npt.NDArray[Any]] = {
        "features": rows.features,
        "labels": rows.labels,
        "event_ms": rows.event_ms,
        "names": np.array(rows.names, dtype=np.str_),
    }
    columns |= {f"slice.{name}": column for name, column in rows.slices.items()}
    for name, column in columns.items():
        np.save(directory / f"{name}.npy", np.ascontiguousarray(column), allow_pickle=False)


def read_rows(directory: Path) -> Rows:
    """What `write_rows` wrote. Raises `FeatureError` where it is not there."""
    try:
        slices = {
            path.name.removeprefix("slice.").removesuffix(".npy"): np.load(path)
            for path in sorted(directory.glob("slice.*.npy"))
        }
        return Rows(
            np.load(directory / "features.npy"),
            tuple(str(name) for name in np.load(directory / "names.npy")),
            np.load(directory / "labels.npy"),
            np.load(directory / "event_ms.npy"),
            slices,
        )
    except (OSError, ValueError) as error:
        raise FeatureError(f"the rows in {directory} cannot be read: {error}") from error
