"""Cells that values are counted in: one grid a feature, laid at training and never moved.

A grid is up to 64 quantiles of the training values, which is also the sorted sample that Kolmogorov-Smirnov's distance
is measured at. Cell i holds the values in (edge[i-1], edge[i]]; the last one those above every edge, the first those
below the smallest training value, so that what training never saw has cells of its own. Counts of any rows add up, in
any order and however they are cut into windows: that is what keeps the memory bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

MAX_EDGES = 64

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Counts: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """`edges`: float32, ascending, finite, without repetition; none where training saw no finite value."""

    edges: npt.NDArray[np.float32]

    @classmethod
    def of(cls, values: Floats) -> Grid:
        """The grid of a feature's training values; NaN and infinities lay no edge."""
        found = np.asarray(values, dtype=np.float32)
        found = found[np.isfinite(found)]
        if not found.size:
            return cls(np.empty(0, dtype=np.float32))
        distinct = np.unique(found)
        if distinct.size >= MAX_EDGES:
            # Observed values, not ones between them: the distribution function at an edge is then exact.
            steps = np.linspace(0, 1, MAX_EDGES - 1)
            distinct = np.unique(np.quantile(found, steps, method="inverted_cdf"))
        below = np.nextafter(distinct[0], np.float32(-np.inf), dtype=np.float32)
        edges = np.append(below, distinct) if np.isfinite(below) else distinct
        return cls(np.asarray(edges, dtype=np.float32))

    @property
    def cells(self) -> int:
        """How many cells of values; the missing ones are counted beside them."""
        return len(self.edges) + 1

    def count(self, values: Floats) -> Counts:
        """[cells + 1] rows by cell, the missing (NaN) ones last."""
        found = np.asarray(values, dtype=np.float32)
        is_missing = np.isnan(found)
        places = np.searchsorted(self.edges, found[~is_missing], side="left")
        counts = np.bincount(places, minlength=self.cells + 1).astype(np.int64)
        counts[-1] = int(is_missing.sum())
        return counts


@dataclass(frozen=True)
class Table:
    """Several grids as one rectangle, so that all features are measured at once.

    `width` is the widest grid's cells and one for the missing; narrower ones leave cells empty before the last.
    """

    grids: tuple[Grid, ...]

    @property
    def width(self) -> int:
        return 1 + max((grid.cells for grid in self.grids), default=0)

    def count(self, columns: Sequence[Floats] | Floats) -> Counts:
        """[grids, width] rows by grid and cell; `columns` are the grids' values, [n] each."""
        counts: Counts = np.zeros((len(self.grids), self.width), dtype=np.int64)
        for row, (grid, column) in enumerate(zip(self.grids, columns, strict=True)):
            own = grid.count(column)
            counts[row, : grid.cells] = own[:-1]
            counts[row, -1] = own[-1]
        return counts
