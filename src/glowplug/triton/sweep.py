"""The sweep: load a setting, measure it, decide; until the decision is made or the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from glowplug.errors import GlowplugError
from glowplug.triton.control import Control
from glowplug.triton.home import Triton
from glowplug.triton.pbtxt import Message
from glowplug.triton.perf import Load, measure
from glowplug.triton.search import Choose, Level, Measure, NoneFits, Space, Trial, candidates, decide
from glowplug.triton.settings import Setting, applied, setting_of

LOAD_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class SweepConfig:
    """`budget_s` bounds the whole: no run is begun that would not end in time. Concurrencies are closed loops."""

    slo_p99_ms: float
    space: Space = field(default_factory=Space)
    concurrencies: tuple[int, ...] = (32,)
    budget_s: float = 300.0


@dataclass(frozen=True)
class Sweep:
    """What was measured, in order, and what came of it. `start` is the setting as it was."""

    start: Setting
    trials: tuple[Trial, ...]
    outcome: Choose | NoneFits


def sweep(
    control: Control,
    triton: Triton,
    load: Load,
    message: Message,
    config: SweepConfig,
    env: Mapping[str, str],
    progress: Callable[[Trial, str], None] = lambda trial, reason: None,
) -> Sweep:
    """Measure settings of the model whose configuration is `message`. The chosen one is loaded at the end, or else
    `message`, also where this is interrupted. Raises GlowplugError where the server cannot be reached.
    """
    start = setting_of(message)
    settings = candidates(config.space, start)
    deadline = time.monotonic() + config.budget_s
    trials: list[Trial] = []
    last = message
    try:
        while True:
            left_s = deadline - time.monotonic()
            decision = decide(settings, trials, slo_p99_ms=config.slo_p99_ms, left_s=left_s)
            if not isinstance(decision, Measure):
                break
            trials.append(_run(control, triton, load, applied(message, decision.setting), config, env))
            progress(trials[-1], decision.reason)
            if len(trials) == 1 and trials[0].failure:
                raise GlowplugError(f"the present setting cannot be measured: {trials[0].failure}")
        if isinstance(decision, Choose):
            last = applied(message, decision.setting)
        return Sweep(start, tuple(trials), decision)
    finally:
        # Told in full: a load without a configuration changes nothing where the files have not changed.
        control.load(load.model, last, LOAD_TIMEOUT_S)


def _run(
    control: Control,
    triton: Triton,
    load: Load,
    message: Message,
    config: SweepConfig,
    env: Mapping[str, str],
) -> Trial:
    """One setting at every concurrency. What the server or perf_analyzer refuses is the trial's failure."""
    started = time.monotonic()
    levels: list[Level] = []
    failure = ""
    try:
        control.load(load.model, message, LOAD_TIMEOUT_S)
        levels.extend(measure(triton, load, concurrency, env) for concurrency in config.concurrencies)
    except GlowplugError as error:
        failure, levels = error.message, []
        if error.hint:
            raise
    return Trial(setting_of(message), tuple(levels), time.monotonic() - started, failure)


def rows(found: Sweep) -> list[tuple[Trial, Level]]:
    """Every measurement as a row of a table."""
    return [(trial, level) for trial in found.trials for level in trial.levels]
