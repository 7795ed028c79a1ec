"""When drift is an event: one for each episode of it, however long it lasts and however much it flickers.

    quiet --(`needed` of the last `of` windows drifted, and not cooling down)--> open, the event
    open  --(`calm` windows in a row within the lower limits)-----------------> quiet, cooling down

Pure: a window's verdict and its time in, a state and a decision out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from glowplug.drift.config import DriftConfig


@dataclass(frozen=True)
class Episodes:
    """`recent` are the last verdicts; `number` counts the episodes of this profile, the open one among them."""

    is_open: bool = False
    recent: tuple[bool, ...] = ()
    calm: int = 0
    number: int = 0
    opened_at: float = 0.0
    cooling_until: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What was decided, and why."""

    opened: bool
    closed: bool
    reason: str


def decide(
    state: Episodes, is_drifted: bool | None, is_calm: bool, now: float, config: DriftConfig
) -> tuple[Episodes, Decision]:
    """What a window at `now` (seconds since the epoch) comes to. None: it says nothing, and changes nothing."""
    if is_drifted is None:
        return state, Decision(False, False, "too little to say")
    recent = (*state.recent, is_drifted)[-config.of :]
    state = replace(state, recent=recent)
    if state.is_open:
        return _within(state, is_drifted, is_calm, now, config)
    count = sum(recent)
    said = f"{count} of the last {len(recent)} windows drifted"
    if count < config.needed:
        return state, Decision(False, False, f"{said}, {config.needed} of {config.of} are needed")
    if now < state.cooling_until:
        return state, Decision(False, False, f"{said}, but the last episode ended too short a time ago")
    opened = replace(state, is_open=True, calm=0, number=state.number + 1, opened_at=now)
    return opened, Decision(True, False, said)


def _within(
    state: Episodes, is_drifted: bool, is_calm: bool, now: float, config: DriftConfig
) -> tuple[Episodes, Decision]:
    calm = state.calm + 1 if is_calm and not is_drifted else 0
    if calm < config.calm:
        why = f"episode {state.number} goes on, {calm} of {config.calm} calm windows"
        return replace(state, calm=calm), Decision(False, False, why)
    closed = replace(state, is_open=False, calm=0, recent=(), cooling_until=now + config.cool_down_s)
    return closed, Decision(False, True, f"episode {state.number} is over, {calm} calm windows in a row")


def episode_id(namespace: str, name: str, digest: str, state: Episodes) -> str:
    """The same for the same episode of the same model, however often it is told."""
    text = f"{namespace}/{name}/{digest}/{state.number}/{state.opened_at:.3f}"
    return f"drift-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
