"""How far counts of a window are from the reference's: PSI, Kolmogorov-Smirnov's distance, missing rates.

All of them take counts by cell with the missing rows last, any leading dimensions, and give one number for each row of
cells. Sources: PSI, N. Siddiqi, Credit Risk Scorecards (2006), which is Jeffreys' divergence of binned distributions;
KS, N. Smirnov (1948).
"""

from __future__ import annotations

import numpy as np

from glowplug.drift.grid import Counts
from glowplug.drift.profile import Doubles

# PSI's usual ten bins, of the reference's mass; finer ones measure noise.
PSI_BINS = 10
# To every bin of both, so that an empty one is far and not infinitely far.
_PRIOR = 0.5


def bins(reference: Counts) -> Counts:
    """[..., cells] bin of each cell, from the reference's counts of values; 0 to PSI_BINS + 1.

    Cells in order share a bin until it holds a tenth of the rows. Those below and above all that training saw keep
    a bin of their own.
    """
    values = np.asarray(reference, dtype=np.float64)
    total = np.maximum(1, values.sum(axis=-1, keepdims=True))
    middle = (np.cumsum(values, axis=-1) - values / 2) / total
    placed = 1 + np.minimum(PSI_BINS - 1, (middle * PSI_BINS).astype(np.int64))
    is_before = np.cumsum(values, axis=-1) == 0
    is_after = np.cumsum(values[..., ::-1], axis=-1)[..., ::-1] == 0
    return np.where(is_before, 0, np.where(is_after, PSI_BINS + 1, placed))


def binned(counts: Counts, places: Counts) -> Counts:
    """[..., features, PSI_BINS + 2] rows by bin from [..., features, cells]; `places` is what `bins` gave."""
    summed = np.zeros((*counts.shape[:-1], PSI_BINS + 2), dtype=np.int64)
    for number in range(PSI_BINS + 2):
        summed[..., number] = np.where(places == number, counts, 0).sum(axis=-1)
    return summed


def psi(window: Counts, reference: Counts) -> Doubles:
    """Population stability index of binned counts (no missing ones among them): 0 is alike, 0.25 much."""
    p = window + _PRIOR
    q = reference + _PRIOR
    p = p / p.sum(axis=-1, keepdims=True)
    q = q / q.sum(axis=-1, keepdims=True)
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=-1))


def ks(window: Counts, reference: Counts) -> Doubles:
    """The largest distance of the distribution functions at the cells' edges; 0 where either has no values.

    The true distance is larger by at most what both hold within a cell.
    """
    p = np.cumsum(window, axis=-1)
    q = np.cumsum(reference, axis=-1)
    most_p, most_q = p[..., -1:], q[..., -1:]
    distance = np.abs(p / np.maximum(1, most_p) - q / np.maximum(1, most_q)).max(axis=-1)
    return np.asarray(np.where((most_p[..., 0] > 0) & (most_q[..., 0] > 0), distance, 0.0))


def missing(counts: Counts) -> Doubles:
    """The share of rows without a value."""
    return np.asarray(counts[..., -1] / np.maximum(1, counts.sum(axis=-1)))
