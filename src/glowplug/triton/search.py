"""Which setting to measure next, and which one to choose: the most throughput whose p99 is within the limit. Pure.

Every combination is measured while there is time, those that differ least from the present setting first, so that a
sweep that is cut short has seen each single change. The winner is measured once more: one lucky run is no reason, so
of several runs the worst counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Union

from glowplug.triton.settings import Setting

CONFIRMATIONS = 2


@dataclass(frozen=True)
class Space:
    """What is tried. A delay of None is no batching at all."""

    batch_sizes: tuple[int, ...] = (8, 16, 32, 64)
    delays_us: tuple[int | None, ...] = (0, 1000, 5000)
    instances: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Level:
    """What was measured at one concurrency. Latencies are the client's, in milliseconds."""

    concurrency: int
    throughput: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Trial:
    """One run of one setting. `failure` says why there are no levels."""

    setting: Setting
    levels: tuple[Level, ...]
    took_s: float
    failure: str = ""


@dataclass(frozen=True)
class Measure:
    """Run this one next."""

    setting: Setting
    reason: str


@dataclass(frozen=True)
class Choose:
    """Done: this one, for what it did at `level`."""

    setting: Setting
    level: Level
    reason: str


@dataclass(frozen=True)
class NoneFits:
    """Done: nothing was within the limit."""

    reason: str


Decision = Union[Measure, Choose, NoneFits]  # noqa: UP007 - evaluated at run time, on Python 3.10 too


def candidates(space: Space, start: Setting) -> tuple[Setting, ...]:
    """`start`, then every combination, those with the fewest changes first."""
    every = [
        Setting(*values) for values in itertools.product(space.batch_sizes, space.delays_us, space.instances)
    ]
    every.sort(key=lambda setting: _changes(setting, start))
    return tuple(dict.fromkeys([start, *every]))


def _changes(one: Setting, other: Setting) -> int:
    return (
        (one.max_batch_size != other.max_batch_size)
        + (one.max_queue_delay_us != other.max_queue_delay_us)
        + (one.instances != other.instances)
    )


def worst(trials: Iterable[Trial]) -> tuple[Level, ...]:
    """For each concurrency the least throughput and the greatest latencies of several runs; none if one failed."""
    by_concurrency: dict[int, list[Level]] = {}
    for trial in trials:
        if trial.failure:
            return ()
        for level in trial.levels:
            by_concurrency.setdefault(level.concurrency, []).append(level)
    return tuple(
        Level(
            concurrency,
            min(level.throughput for level in levels),
            max(level.p50_ms for level in levels),
            max(level.p99_ms for level in levels),
        )
        for concurrency, levels in sorted(by_concurrency.items())
    )


def best_level(levels: Iterable[Level], slo_p99_ms: float) -> Level | None:
    """The level of most throughput within the limit."""
    within = [level for level in levels if level.p99_ms <= slo_p99_ms]
    return max(within, key=lambda level: level.throughput, default=None)


def decide(
    settings: Sequence[Setting], trials: Sequence[Trial], *, slo_p99_ms: float, left_s: float
) -> Decision:
    """What to do, `left_s` seconds before the time is up. A run is expected to take as long as the longest so far."""
    expected_s = max((trial.took_s for trial in trials), default=0.0)
    is_time = left_s > expected_s or not trials
    measured = {trial.setting for trial in trials}
    unmeasured = [setting for setting in settings if setting not in measured]
    if unmeasured and is_time:
        return Measure(unmeasured[0], f"{len(measured) + 1} of {len(settings)}")
    # Best first; a setting's place may fall when it is measured again.
    ranked = _ranked(measured, trials, slo_p99_ms)
    if not ranked:
        return NoneFits(_why_none(trials, slo_p99_ms))
    setting, level = ranked[0]
    runs = sum(trial.setting == setting for trial in trials)
    if runs < CONFIRMATIONS and is_time:
        return Measure(setting, "the best so far, once more")
    return Choose(setting, level, _why(setting, level, slo_p99_ms, len(measured), len(settings), runs))


def _ranked(
    measured: Iterable[Setting], trials: Sequence[Trial], slo_p99_ms: float
) -> list[tuple[Setting, Level]]:
    found = []
    for setting in measured:
        level = best_level(worst(trial for trial in trials if trial.setting == setting), slo_p99_ms)
        if level is not None:
            found.append((setting, level))
    return sorted(found, key=lambda pair: (-pair[1].throughput, pair[1].p99_ms))


def _why(setting: Setting, level: Level, slo_p99_ms: float, seen: int, total: int, runs: int) -> str:
    part = "all" if seen == total else f"{seen} of {total}, the time being up,"
    again = "" if runs > 1 else "; measured once only"
    return (
        f"most throughput of {part} settings with p99 within {slo_p99_ms:g} ms: "
        f"{level.throughput:.0f}/s at concurrency {level.concurrency}, p99 {level.p99_ms:.1f} ms{again}"
    )


def _why_none(trials: Sequence[Trial], slo_p99_ms: float) -> str:
    levels = [level for trial in trials for level in trial.levels]
    if not levels:
        last = trials[-1].failure if trials else "nothing was measured"
        return f"no setting could be measured: {last}"
    closest = min(levels, key=lambda level: level.p99_ms)
    return (
        f"no setting has p99 within {slo_p99_ms:g} ms; the lowest was {closest.p99_ms:.1f} ms "
        f"at concurrency {closest.concurrency}"
    )
