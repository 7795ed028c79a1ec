"""Replays a trace: the decision of every tick, as data or as a table that explains it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from glowplug.spec.gonumbers import duration_text, float_text

from .decider import Decision, Observation, Undecided, decide, start
from .parameters import Parameters
from .trace import Tick, Trace

_COLUMNS = "{t:>9}  {ready:>5}  {stable:>10}  {panic:>10}  {desired:>7}  {excess:>7}  {why}"


@dataclass(frozen=True)
class Step:
    """A tick and what was decided on it."""

    tick: Tick
    decision: Decision | Undecided


def replay(trace: Trace) -> Iterator[Step]:
    """Decides on each tick, from a decider that starts at time 0 with the trace's first number of ready pods."""
    state = start(trace.parameters, trace.initial_ready, 0)
    for tick in trace.ticks:
        state, decision = decide(trace.parameters, state, tick.observation, tick.now_ns)
        yield Step(tick, decision)


def json_lines(steps: Iterable[Step]) -> Iterator[str]:
    """A line of JSON a tick: t, valid, desired, excess_burst_capacity, reason.

    Where nothing is decided `valid` is false and the numbers, which then mean nothing, are 0, as in Go.
    """
    for step in steps:
        decided = step.decision if isinstance(step.decision, Decision) else None
        found = {
            "t": step.tick.t,
            "valid": decided is not None,
            "desired": decided.desired if decided else 0,
            "excess_burst_capacity": decided.excess_burst_capacity if decided else 0,
            "reason": step.decision.reason,
        }
        yield json.dumps(found, ensure_ascii=False)


def table(trace: Trace, steps: Iterable[Step]) -> Iterator[str]:
    """The same for reading, with the measurements, and at the end what it came to."""
    yield _described(trace.parameters, trace.initial_ready)
    yield ""
    yield _COLUMNS.format(
        t="t", ready="ready", stable="stable", panic="panic", desired="desired", excess="excess", why="why"
    )
    most, changes, count, latest = 0, 0, 0, None
    for step in steps:
        yield _row(step)
        count += 1
        if isinstance(step.decision, Decision):
            desired = step.decision.desired
            most, changes = max(most, desired), changes + (latest not in (None, desired))
            latest = desired
    yield ""
    ticks, times = _counted(count, "tick"), _counted(changes, "change")
    yield '"desired" is before minReplicas and maxReplicas (min-scale, max-scale) are applied'
    yield f"{ticks}, {times} of the desired scale, at most {_counted(most, 'pod')}"


def _row(step: Step) -> str:
    observation, decision = step.tick.observation, step.decision
    stable = panic = desired = excess = "-"
    why = f"no decision: {decision.reason}"
    if isinstance(observation, Observation):
        stable, panic = f"{observation.stable:.6g}", f"{observation.panic:.6g}"
    if isinstance(decision, Decision):
        desired, excess = str(decision.desired), str(decision.excess_burst_capacity)
        why = decision.reason
    return _COLUMNS.format(
        t=f"{round(step.tick.t, 3):.13g}", ready=step.tick.ready, stable=stable, panic=panic,
        desired=desired, excess=excess, why=why,
    )  # fmt: skip


def _described(parameters: Parameters, initial_ready: int) -> str:
    delay_ns = parameters.scale_down_delay_ns
    facts = [
        f"target {float_text(parameters.target)} of {float_text(parameters.total)} a pod",
        f"stable window {duration_text(parameters.stable_window_ns)}",
        f"panic at {float_text(parameters.panic_threshold)} times the ready pods",
        f"one step at most x{float_text(parameters.max_scale_up_rate)} up",
        f"1/{float_text(parameters.max_scale_down_rate)} down",
        f"target burst capacity {float_text(parameters.target_burst_capacity)}",
        *([f"scale-down delay {duration_text(delay_ns)}"] if delay_ns else []),
        *([f"activation scale {parameters.activation_scale}"] if parameters.activation_scale else []),
        *([] if parameters.is_reachable else ["no route leads to it"]),
        f"{_counted(initial_ready, 'pod')} ready at the start",
    ]
    return ", ".join(facts)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
