"""A recorded trace of a revision's measurements: its text form, read and written.

JSON, a line each. The first has the parameters: `{"target","total","max_scale_up_rate","max_scale_down_rate",
"panic_threshold","stable_window_s","scale_down_delay_s","target_burst_capacity","activation_scale","reachable",
"initial_ready"}`; all but target and total may be left out and have Knative's defaults. Each further line is one tick:
`{"t","ready","stable","panic"}`, or `{"t","ready","no_data":true}`. `t` is seconds since the decider's start, which is
taken to be the edge of a bucket; a fraction of a nanosecond is cut off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from glowplug.errors import ConfigError
from glowplug.spec.autoscaling import MAX_INT32

from .decider import NoData, Observation
from .parameters import SECOND_NS, Parameters

_MAX_SECONDS = 1e9
_MAX_SHOWN = 100  # problems that one message lists
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Tick:
    """One observation; `t` is seconds as the trace has them, `now_ns` the same in nanoseconds.

    `ready` is known even where the observation is that there is no data.
    """

    t: float
    now_ns: int
    ready: int
    observation: Observation | NoData


@dataclass(frozen=True)
class Trace:
    """A revision's parameters, its ready pods when the decider started at 0, and its ticks in order."""

    parameters: Parameters
    initial_ready: int
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class _Rule:
    """What a key's value must be: `is_good` for a value of a type in `types`, said in `words`."""

    types: tuple[type, ...]
    is_good: Callable[[Any], bool]
    words: str
    default: object = None
    is_required: bool = False


def _number(
    is_good: Callable[[float], bool], words: str, default: object = None, is_required: bool = False
) -> _Rule:
    return _Rule((int, float), is_good, words, default, is_required)


def _count(default: object = None, is_required: bool = False) -> _Rule:
    words = f"a whole number from 0 to {MAX_INT32}"
    return _Rule((int,), lambda value: 0 <= value <= MAX_INT32, words, default, is_required)


def _is_positive(value: float) -> bool:
    return value > 0


def _is_duration(value: float) -> bool:
    return 0 <= value <= _MAX_SECONDS


def _is_window(value: float) -> bool:
    return 0 < value <= _MAX_SECONDS


def _is_burst(value: float) -> bool:
    return value >= 0 or value == -1


def _is_any(value: object) -> bool:
    return True


_POSITIVE = "a number greater than 0"
_SECONDS = "a number of seconds, 0 or more"
_PARAMETERS = {
    "target": _number(_is_positive, _POSITIVE, is_required=True),
    "total": _number(_is_positive, _POSITIVE, is_required=True),
    "max_scale_up_rate": _number(_is_positive, _POSITIVE, 1000.0),
    "max_scale_down_rate": _number(_is_positive, _POSITIVE, 2.0),
    "panic_threshold": _number(_is_positive, _POSITIVE, 2.0),
    "stable_window_s": _number(_is_window, "a number of seconds greater than 0", 60),
    "scale_down_delay_s": _number(_is_duration, _SECONDS, 0),
    "target_burst_capacity": _number(_is_burst, "a number, 0 or more, or -1 for a boundless one", 211.0),
    "activation_scale": _count(0),
    "reachable": _Rule((bool,), _is_any, "true or false", True),
    "initial_ready": _count(0),
}
_TICK = {
    "t": _number(_is_duration, _SECONDS, is_required=True),
    "ready": _count(is_required=True),
    "stable": _number(_is_any, "a number", is_required=True),
    "panic": _number(_is_any, "a number", is_required=True),
    "no_data": _Rule((bool,), _is_any, "true or false", False),
}
_UNMEASURED = {
    key: _Rule(rule.types, rule.is_good, rule.words, rule.default, rule.is_required and key in ("t", "ready"))
    for key, rule in _TICK.items()
}


def parse(lines: Iterable[str], name: str) -> Trace:
    """The trace of a file's lines; empty lines are skipped. `name` is the file's, for messages.

    Raises ConfigError with all problems, each with its line.
    """
    problems: list[str] = []
    header: dict[str, Any] | None = None
    ticks: list[Tick] = []
    latest = 0.0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = _object(line)
            if header is None:
                header = {}
                header = _checked(found, _PARAMETERS)
                continue
            tick = _tick(found)
            if tick.t < latest:
                raise _Faults(
                    [f"t = {_shown(found['t'])}, must not be less than the {latest:g} of a line before"]
                )
            latest = tick.t
            ticks.append(tick)
        except _Faults as faults:
            problems += [f"{name}:{number} {fault}" for fault in faults.found]
    if header is None:
        problems.append(f"{name}:1 there is no line with the parameters")
    elif not ticks and not problems:
        problems.append(f"{name}:2 there is no observation")
    if problems or header is None:
        raise ConfigError(
            _limited(problems), hint="`glowplug autoscaler replay --help` describes the lines of a trace"
        )
    return Trace(_parameters(header), header["initial_ready"], tuple(ticks))


def header_line(parameters: Parameters, initial_ready: int) -> str:
    """The first line of a trace, without a line end."""
    return json.dumps(
        {
            "target": parameters.target,
            "total": parameters.total,
            "max_scale_up_rate": parameters.max_scale_up_rate,
            "max_scale_down_rate": parameters.max_scale_down_rate,
            "panic_threshold": parameters.panic_threshold,
            "stable_window_s": parameters.stable_window_ns / SECOND_NS,
            "scale_down_delay_s": parameters.scale_down_delay_ns / SECOND_NS,
            "target_burst_capacity": parameters.target_burst_capacity,
            "activation_scale": parameters.activation_scale,
            "reachable": parameters.is_reachable,
            "initial_ready": initial_ready,
        }
    )


def tick_line(t: float, ready: int, observation: Observation | NoData) -> str:
    """One tick's line, without a line end; `ready` is written where there is no data."""
    if isinstance(observation, NoData):
        return json.dumps({"t": t, "ready": ready, "no_data": True})
    found = {"ready": observation.ready, "stable": observation.stable, "panic": observation.panic}
    return json.dumps({"t": t, **found})


class _Faults(Exception):
    def __init__(self, found: list[str]) -> None:
        super().__init__(*found)
        self.found = found


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise _Faults([f"is not JSON: {error.msg} at character {error.pos + 1}"]) from error
    except (ValueError, RecursionError) as error:
        raise _Faults([f"is not JSON that can be read: {error}"]) from error
    if not isinstance(found, dict):
        raise _Faults([f"is {_shown(found)}, must be a JSON object"])
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number in JSON")


def _checked(found: dict[str, Any], rules: dict[str, _Rule]) -> dict[str, Any]:
    """The values of all keys that `rules` has, defaults for those that are not there."""
    faults = [
        f"{_shown(key)} is not a key of this line; these are: {', '.join(rules)}"
        for key in found
        if key not in rules
    ]
    values: dict[str, Any] = {}
    for key, rule in rules.items():
        if key not in found:
            values[key] = rule.default
            if rule.is_required:
                faults.append(f"{key} is missing, must be {rule.words}")
        elif not _is_good(found[key], rule):
            faults.append(f"{key} = {_shown(found[key])}, must be {rule.words}")
        else:
            values[key] = found[key]
    if faults:
        raise _Faults(faults)
    return values


def _is_good(value: object, rule: _Rule) -> bool:
    if not isinstance(value, rule.types) or (isinstance(value, bool) and bool not in rule.types):
        return False
    try:
        return math.isfinite(value) and rule.is_good(value)  # type: ignore[arg-type]
    except OverflowError:
        return False  # an integer that no float64 holds


def _tick(found: dict[str, Any]) -> Tick:
    values = _checked(found, _UNMEASURED if found.get("no_data") is True else _TICK)
    observation: Observation | NoData = NoData()
    if not values["no_data"]:
        observation = Observation(values["ready"], float(values["stable"]), float(values["panic"]))
    return Tick(values["t"], _ns(values["t"]), values["ready"], observation)


def _parameters(header: dict[str, Any]) -> Parameters:
    return Parameters(
        target=float(header["target"]),
        total=float(header["total"]),
        max_scale_up_rate=float(header["max_scale_up_rate"]),
        max_scale_down_rate=float(header["max_scale_down_rate"]),
        panic_threshold=float(header["panic_threshold"]),
        stable_window_ns=_ns(header["stable_window_s"]),
        scale_down_delay_ns=_ns(header["scale_down_delay_s"]),
        target_burst_capacity=float(header["target_burst_capacity"]),
        activation_scale=header["activation_scale"],
        is_reachable=header["reachable"],
    )


def _ns(seconds: float) -> int:
    return int(seconds * SECOND_NS)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _limited(problems: list[str]) -> str:
    more = len(problems) - _MAX_SHOWN
    return "\n".join([*problems[:_MAX_SHOWN], *([f"and {more} more"] if more > 0 else [])])
