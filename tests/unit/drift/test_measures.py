"""PSI, Kolmogorov-Smirnov and p-values, against scipy, numpy and what they must be by definition."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from glowplug.drift import measures
from glowplug.drift.grid import MAX_EDGES, Grid
from glowplug.drift.significance import benjamini_hochberg, t_survival

floats = st.floats(-1e6, 1e6, width=32)
samples = st.lists(floats, min_size=1, max_size=300).map(lambda values: np.array(values, dtype=np.float32))
counts = st.lists(st.integers(0, 1000), min_size=12, max_size=12).map(np.array)


@given(samples, samples)
def test_the_distance_is_scipys_at_the_edges_and_at_most_a_cell_below_it(reference, window) -> None:
    grid = Grid.of(reference)
    p, q = grid.count(window)[:-1], grid.count(reference)[:-1]
    found = float(measures.ks(p, q))
    with warnings.catch_warnings():
        # Its p-value of a sample of one divides by zero.
        warnings.simplefilter("ignore")
        exact = float(stats.ks_2samp(window, reference, method="asymp").statistic)
    within_a_cell = float(np.max(p / p.sum() + q / q.sum()))
    assert found <= exact + 1e-9
    assert exact <= found + within_a_cell + 1e-9
    # Where every value of both has an edge of its own, it is the distance.
    if len(np.unique(reference)) < MAX_EDGES - 1 and np.isin(window, reference).all():
        assert found == pytest.approx(exact, abs=1e-9)


@given(counts, counts)
def test_psi_is_jeffreys_divergence(window, reference) -> None:
    p = (window + 0.5) / (window + 0.5).sum()
    q = (reference + 0.5) / (reference + 0.5).sum()
    assert float(measures.psi(window, reference)) == pytest.approx(
        stats.entropy(p, q) + stats.entropy(q, p), abs=1e-9
    )
    assert float(measures.psi(window, window)) == 0
    assert float(measures.psi(window, reference)) == pytest.approx(float(measures.psi(reference, window)))


@given(samples, samples, samples)
def test_counts_of_parts_add_up_and_every_value_has_a_cell(reference, first, second) -> None:
    grid = Grid.of(reference)
    whole = grid.count(np.concatenate([first, second]))
    assert (grid.count(first) + grid.count(second) == whole).all()
    assert whole.sum() == len(first) + len(second)


def test_missing_infinite_and_unseen_values_have_cells_of_their_own() -> None:
    grid = Grid.of(np.array([5.0, 5.0, np.nan, np.inf], dtype=np.float32))
    found = grid.count(np.array([4.0, 5.0, 6.0, np.nan, np.inf, -np.inf], dtype=np.float32))
    assert found.tolist() == [2, 1, 2, 1]
    assert float(measures.missing(found)) == pytest.approx(1 / 6)
    nothing = Grid.of(np.array([np.nan], dtype=np.float32))
    assert nothing.count(np.array([1.0, np.nan], dtype=np.float32)).tolist() == [1, 1]


@given(st.lists(st.integers(0, 500), min_size=66, max_size=66).map(np.array))
def test_bins_follow_the_cells_and_hold_about_a_tenth_each(reference) -> None:
    places = measures.bins(reference)
    assert (np.diff(places) >= 0).all()
    assert places.min() >= 0
    assert places.max() <= measures.PSI_BINS + 1
    summed = measures.binned(reference[None], places[None])[0]
    assert summed.sum() == reference.sum()
    if reference.sum():
        widest = reference.max() / reference.sum()
        assert summed.max() / reference.sum() <= 1 / measures.PSI_BINS + widest + 1e-9


@example(9e-8, 347.0)
@given(st.floats(-50, 50), st.floats(0.5, 500))
def test_students_t_is_scipys(t, dof) -> None:
    assert t_survival(t, dof) == pytest.approx(float(stats.t.sf(t, dof)), rel=1e-8, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.floats(0.001, 0.5))
def test_benjamini_hochberg_is_scipys(p_values, rate) -> None:
    ours = benjamini_hochberg(p_values, rate)
    theirs = stats.false_discovery_control(p_values, method="bh")
    for is_rejected, adjusted in zip(ours, theirs, strict=True):
        # At the limit itself rounding decides, and they round otherwise.
        if abs(adjusted - rate) > 1e-9:
            assert is_rejected == (adjusted <= rate)


def test_a_large_t_is_still_a_number() -> None:
    assert t_survival(float("inf"), 3) == 0
    assert t_survival(float("-inf"), 3) == 1
    assert 0 < t_survival(1e6, 3) < 1e-15
