"""Capital that does not grow under the hypothesis, at any look; and that grows where it is wrong."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.rollout.evidence import Moments
from glowplug.rollout.sequential import (
    CANARY_KEPT,
    LEAST_KEPT,
    STABLE_KEPT,
    above,
    below,
    fewest,
    hedged,
    highest_refuted,
    least,
    lowest_refuted,
    mean_radius,
)

SHARES = st.floats(0.001, 0.9)


@given(st.integers(1, 60), SHARES)
def test_the_expected_capital_is_one_at_the_edge_of_the_hypothesis(n: int, share: float) -> None:
    chances = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    for bet in (above, below):
        expected = sum(
            chance * math.exp(bet(k, n, share)) for k, chance in enumerate(chances) if chance > 1e-300
        )
        assert expected == pytest.approx(1, rel=1e-6)


@given(st.integers(1, 60), SHARES, SHARES)
def test_within_the_hypothesis_it_is_expected_to_shrink(n: int, share: float, other: float) -> None:
    low, high = sorted((share, other))
    for bet, truth, tested in ((above, low, high), (below, high, low)):
        chances = [math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1)]
        assert sum(c * math.exp(bet(k, n, tested)) for k, c in enumerate(chances) if c > 1e-300) <= 1 + 1e-9


@given(st.floats(0, 1), SHARES)
def test_counts_may_be_fractions(part: float, share: float) -> None:
    """What is interpolated within a bucket, with a mean of `share`, is worth no more than whole outcomes."""
    for bet in (above, below):
        whole = share * math.exp(bet(1, 1, share)) + (1 - share) * math.exp(bet(0, 1, share))
        spread = share * part
        rest = (share - share * spread) / (1 - share) if share < 1 else 0
        if not 0 <= rest <= 1:
            continue
        mixed = share * math.exp(bet(spread, 1, share)) + (1 - share) * math.exp(bet(rest, 1, share))
        assert mixed <= whole + 1e-9


@given(st.integers(0, 500), st.integers(1, 500), SHARES, SHARES)
def test_capital_is_monotone_in_what_is_tested(count: int, total: int, share: float, other: float) -> None:
    count = min(count, total)
    low, high = sorted((share, other))
    assert above(count, total, low) >= above(count, total, high) - 1e-9
    assert below(count, total, low) <= below(count, total, high) + 1e-9


@pytest.mark.parametrize("share", [0.005, 0.5])
def test_looks_at_every_request_are_wrong_as_seldom_as_promised(share: float) -> None:
    rng = random.Random(7)
    alpha, paths, length = 0.1, 150, 400
    wrong = {above: 0, below: 0}
    for _ in range(paths):
        count = 0
        is_wrong = dict.fromkeys(wrong, False)
        for total in range(1, length + 1):
            count += rng.random() < share
            for bet in wrong:
                is_wrong[bet] = is_wrong[bet] or bet(count, total, share) >= math.log(1 / alpha)
        for bet, is_one in is_wrong.items():
            wrong[bet] += is_one
    for bet, count in wrong.items():
        assert count / paths <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / paths), bet.__name__


@given(st.floats(-700, 700), st.floats(0.01, 0.99))
def test_what_was_not_bet_is_kept(capital: float, kept: float) -> None:
    assert hedged(capital, kept) >= math.log(kept) - 1e-9
    assert hedged(capital, kept) >= capital + math.log(1 - kept) - 1e-9
    assert hedged(capital, kept) <= max(capital, 0) + 1e-9


@given(
    st.integers(0, 50),
    st.integers(0, 500),
    st.integers(0, 50),
    st.integers(0, 500),
    st.floats(0, 0.9),
    st.floats(1, 20),
)
def test_the_least_is_not_above_any_sum(
    canary: int, canaries: int, stable: int, stables: int, at: float, enough: float
) -> None:
    canaries, stables = canaries + canary, stables + stable

    def rising(x: float) -> float:
        return hedged(below(stable, stables, x), STABLE_KEPT)

    def falling(x: float) -> float:
        return hedged(above(canary, canaries, x + 0.05), CANARY_KEPT)

    found = least(rising, falling, 0.0, 0.9, enough)
    assert found <= enough
    assert found <= rising(at) + falling(at) + 1e-9 or rising(at) + falling(at) >= enough
    assert found >= 2 * math.log(LEAST_KEPT)


@given(st.floats(0.001, 0.5), st.floats(1e-6, 0.2))
def test_the_fewest_requests_are_the_fewest(share: float, alpha: float) -> None:
    n = fewest(share, alpha)
    assert below(0, n, share) >= math.log(1 / alpha)
    assert n == 1 or below(0, n - 1, share) < math.log(1 / alpha)
    # No test could do with fewer: with no bad request a bad version has this chance.
    assert (1 - share) ** n <= alpha


def test_90_requests_tell_nothing_of_a_99th_percentile() -> None:
    assert fewest(0.01, 0.05) > 300
    assert fewest(0.005, 0.05) > 600


@given(st.integers(0, 200), st.integers(1, 2000))
def test_bounds_enclose_what_is_observed(count: int, rest: int) -> None:
    total = count + rest
    share = count / total
    low = highest_refuted(lambda x: above(count, total, x), 0.0, share, 0.025) if count else 0.0
    high = lowest_refuted(lambda x: below(count, total, x), share, 1.0, 0.025)
    assert 0 <= low <= share <= high <= 1


def test_means_are_wrong_as_seldom_as_promised() -> None:
    """Losses with a long tail, looks from the first hundred on."""
    rng = random.Random(3)
    alpha, paths, length = 0.1, 200, 2000
    wrong = 0
    for _ in range(paths):
        total = squares = 0.0
        for n in range(1, length + 1):
            x = rng.expovariate(1.0)
            total += x
            squares += x * x
            if n >= 100 and n % 10 == 0:
                mean = total / n
                moments = Moments(n, mean, squares - n * mean * mean)
                if mean - mean_radius(moments, Moments(), 0.0, alpha) > 1.0:
                    wrong += 1
                    break
    assert wrong / paths <= alpha
