"""Whether rows go to the compiled trees or to the booster: decided once, at the start, by trying both on this computer.

The booster stays, for requests of many rows, for which it is the faster one: without it the process would be 8 MB
smaller, of the 36 MB that the compiled trees and onnxruntime add.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Any

from glowplug_xgboost.compiled import CompiledTrees
from glowplug_xgboost.forest import read_forest
from glowplug_xgboost.native import Booster, XgboostError
from glowplug_xgboost.objectives import Unsupported
from glowplug_xgboost.probes import difference, probe_rows
from glowplug_xgboost.ubjson import decode

PROBES = 256
# Sizes that are timed, until one where the compiled trees are no longer clearly faster.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CLEARLY = 0.9
MIN_ROUNDS, MAX_ROUNDS, ROUNDS_S = 3, 20, 0.0015


# --trees: the faster one for each number of rows, or one of the two for all.
AUTO, BOOSTER, COMPILED = "auto", "booster", "compiled"
FORMS = (AUTO, BOOSTER, COMPILED)


@dataclass(frozen=True)
class Timing:
    """The least seconds that each took for so many rows."""

    rows: int
    booster_s: float
    compiled_s: float


@dataclass(frozen=True)
class Choice:
    """The compiled trees predict up to `max_rows` rows (0: none) at a time, and the booster more than that."""

    max_rows: int
    reason: str
    trees: CompiledTrees | None = None


def choose(booster: Booster, form: str = AUTO) -> Choice:
    """Compiles the booster's trees, unless `form` is BOOSTER, and compares the two; COMPILED leaves speed out."""
    if form == BOOSTER:
        return Choice(0, "the booster, as --trees says")
    try:
        forest = read_forest(decode(booster.saved()))
        trees = CompiledTrees(forest)
    except (Unsupported, ValueError) as error:
        return Choice(0, str(error))
    rows = probe_rows(forest, PROBES)
    try:
        differs = _difference(booster.predict, trees.predict, rows)
    except XgboostError as error:
        return Choice(0, f"the compiled form cannot be compared: {error}")
    if differs:
        return Choice(0, f"the compiled form is wrong: {differs}")
    if form == COMPILED:
        return Choice(sys.maxsize, "compiled trees, as --trees says", trees)
    # CPU time is deaf to what else runs on this computer, but does not see a second thread's.
    clock = thread_time if booster.nthread == 1 else perf_counter
    found = decide(measure(booster.predict, trees.predict, rows[:PROBES], clock))
    return Choice(found.max_rows, found.reason, trees) if found.max_rows else found


def _difference(expected: Callable[[Any], Any], found: Callable[[Any], Any], rows: Any) -> str:
    """Of all rows at once, and of rows by one and by a few: onnxruntime goes another way for each."""
    answers = expected(rows)
    if differs := difference(answers, found(rows)):
        return differs
    parts = [(row, row + 1) for row in range(0, len(rows), 32)] + [(row, row + 7) for row in range(0, 64, 7)]
    return next(
        filter(None, (difference(answers[start:end], found(rows[start:end])) for start, end in parts)), ""
    )


def measure(
    booster: Callable[[Any], Any], compiled: Callable[[Any], Any], rows: Any, clock: Callable[[], float]
) -> list[Timing]:
    """The timings of growing sizes; the last one may be where the compiled trees lose.

    In turns, on other rows each time (a branch predictor learns rows that come again), and the least of several
    rounds: noise only ever adds.
    """
    timings: list[Timing] = []
    for size in SIZES:
        if size > len(rows):
            break
        least = [float("inf"), float("inf")]
        started = clock()
        for turn in range(MAX_ROUNDS):
            start = turn * size % (len(rows) - size + 1)
            part = rows[start : start + size]
            for index, predict in enumerate((booster, compiled)):
                since = clock()
                predict(part)
                least[index] = min(least[index], clock() - since)
            if turn + 1 >= MIN_ROUNDS and clock() - started > ROUNDS_S:
                break
        timings.append(Timing(size, *least))
        if not _is_faster(timings[-1]):
            break
    return timings


def decide(timings: Sequence[Timing]) -> Choice:
    """The largest size up to which the compiled trees are clearly faster at every size. Pure."""
    lost = next((index for index, timing in enumerate(timings) if not _is_faster(timing)), len(timings))
    if lost == 0:
        return Choice(0, "the booster is as fast for one row" + _said(timings[:1]))
    return Choice(timings[lost - 1].rows, "compiled trees" + _said([timings[0], timings[lost - 1]]))


def _is_faster(timing: Timing) -> bool:
    return timing.compiled_s < CLEARLY * timing.booster_s


def _said(timings: Sequence[Timing]) -> str:
    return "".join(map(_sentence, dict.fromkeys(timings)))


def _sentence(timing: Timing) -> str:
    rows = f"{timing.rows} row{'s' if timing.rows > 1 else ''}"
    return f"; {rows}: {timing.compiled_s * 1e6:.0f} µs, the booster {timing.booster_s * 1e6:.0f} µs"
