"""What the controller keeps of an InferenceService, and its text form in a ConfigMap.

One entry a component for what was learned, one a revision for what was done to it. Its size is bounded: 288 slots and
480 errors a component, less than 10 KB. What cannot be read is forgotten, piece by piece; a grip that cannot
be read is an error, since nobody could restore what it stood for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from glowplug.errors import ConfigError

from .decision import State
from .forecast import SLOTS, Expert, Model
from .revisions import Grip
from .starts import StartTime

STATE, GRIPS, REPORT = "state", "grips", "report"
_MAX_ERRORS = 1000


@dataclass(frozen=True)
class Memory:
    """By component what was learned; by revision what was done to it."""

    states: Mapping[str, State] = field(default_factory=dict)
    grips: Mapping[str, Grip] = field(default_factory=dict)

    def with_state(self, component: str, state: State) -> Memory:
        return replace(self, states={**self.states, component: state})

    def with_grip(self, revision: str, grip: Grip) -> Memory:
        return replace(self, grips={**self.grips, revision: grip})

    def without_grip(self, revision: str) -> Memory:
        return replace(self, grips={name: grip for name, grip in self.grips.items() if name != revision})


def dump(memory: Memory) -> dict[str, str]:
    """The ConfigMap's data."""
    states = {component: _dumped(state) for component, state in memory.states.items()}
    grips = {name: {"own": grip.own, "written": grip.written} for name, grip in memory.grips.items()}
    return {STATE: json.dumps(states, separators=(",", ":")), GRIPS: json.dumps(grips, separators=(",", ":"))}


def load(data: Mapping[str, str], name: str) -> Memory:
    """From the ConfigMap's data; `name` is the ConfigMap's. Raises ConfigError where the grips cannot be read."""
    try:
        grips = {
            str(revision): Grip(_scale(found["own"]), tuple(map(_scale, found["written"])))
            for revision, found in json.loads(data.get(GRIPS) or "{}").items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"ConfigMap {name}: data.{GRIPS} cannot be read: {error!r}",
            hint="set min-scale of the service's revisions as it should be, then delete the ConfigMap",
        ) from error
    return Memory(_states(data.get(STATE) or "{}"), grips)


def _states(text: str) -> dict[str, State]:
    try:
        found = json.loads(text)
        items = found.items()
    except (ValueError, AttributeError, RecursionError):
        return {}
    states = {}
    for component, each in items:
        try:
            states[str(component)] = _loaded(each)
        except (KeyError, TypeError, ValueError, IndexError):
            continue
    return states


def _dumped(state: State) -> dict[str, Any]:
    model = state.model
    return {
        "slots": [_short(value) for value in model.slots],
        "slot": model.slot,
        "peak": _short(model.peak),
        "recent": [_short(value) for value in model.recent],
        "level": [_short(model.level), _short(model.slope), model.seen_at],
        "trend": [_short(model.trend.loss), list(model.trend.errors)],
        "season": [_short(model.season.loss), list(model.season.errors)],
        "starts": [state.starts.mean_s, state.starts.count, state.starts.newest],
        "service": None if state.service_s is None else _short(state.service_s),
        "floor": state.forecast_floor,
        "wanted": [list(each) for each in state.wanted],
    }


def _loaded(found: Any) -> State:
    slots = tuple(map(_number, found["slots"]))
    if len(slots) != SLOTS:
        raise ValueError(f"{len(slots)} slots")
    recent, level, starts = found["recent"], found["level"], found["starts"]
    model = Model(
        slots=slots,
        slot=None if found["slot"] is None else int(found["slot"]),
        peak=_number(found["peak"]),
        recent=(_number(recent[0]), _number(recent[1])),
        level=_number(level[0]),
        slope=_number(level[1]),
        seen_at=None if level[2] is None else _number(level[2]),
        trend=_expert(found["trend"]),
        season=_expert(found["season"]),
    )
    learned = StartTime(_number(starts[0]), int(starts[1]), _number(starts[2]))
    wanted = tuple((_number(at), int(floor)) for at, floor in found["wanted"])
    service_s = None if found["service"] is None else _number(found["service"])
    return State(model, learned, service_s, int(found["floor"]), wanted)


def _expert(found: Any) -> Expert:
    return Expert(tuple(map(_number, found[1]))[-_MAX_ERRORS:], _number(found[0]))


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no finite number")
    return number


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _scale(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} is no annotation's value")
    return value
