"""What an InferenceService asks of its rollouts: annotations under `glowplug.dev/rollout-`, read and checked.

Values only. Without `glowplug.dev/rollout-steps` nothing is asked, and KServe rolls out as it does by itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from glowplug.errors import ConfigError
from glowplug.spec import names
from glowplug.spec.gonumbers import SECOND_NS, GoValueError, parse_duration

from .gates import DEFAULT_GATES, Gates, parse_gates, without_source

T = TypeVar("T")

DEFAULT_INTERVAL = "15m"
_INTERVAL_S = (1.0, 31 * 86400.0)
_STEP = re.compile(r"[0-9]{1,3}")
_MAX_STEPS = 100
_ALL = 100


@dataclass(frozen=True)
class Settings:
    """`steps` are percents that rise and end with 100; at each but the last the canary is judged for `interval_s`."""

    steps: tuple[int, ...]
    interval_s: float
    gates: Gates

    @property
    def judged_steps(self) -> int:
        """How many steps there are at which both revisions take requests."""
        return len(self.steps) - 1


class Action(str, Enum):
    """What a person asks for, by `glowplug rollout` or by the annotation."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"


def parse(annotations: Mapping[str, str], metrics: frozenset[str]) -> Settings | None:
    """What the annotations ask for; None where they do not ask. Raises ConfigError with all problems.

    A list of steps that does not end with 100 is taken to be followed by it. `metrics` is what can be measured, as in
    `gates.metrics_of`.
    """
    problems = _strangers(annotations)

    def read(key: str, text: str, convert: Callable[[str], T]) -> T | None:
        try:
            return convert(text)
        except ValueError as error:
            problems.append(_wrong(key, text, str(error)))
        except ConfigError as error:
            problems.append(f"{key}: {error.message}")
        return None

    if names.ROLLOUT_STEPS not in annotations:
        if problems:
            raise ConfigError("; ".join(problems))
        return None
    steps = read(names.ROLLOUT_STEPS, annotations[names.ROLLOUT_STEPS], _steps)
    interval_s = read(
        names.ROLLOUT_INTERVAL, annotations.get(names.ROLLOUT_INTERVAL, DEFAULT_INTERVAL), _interval
    )
    gates = read(names.ROLLOUT_GATES, annotations.get(names.ROLLOUT_GATES, DEFAULT_GATES), parse_gates)
    if blind := without_source(gates or (), metrics):
        problems.append(f"{names.ROLLOUT_GATES}: {blind}")
    if problems or steps is None or interval_s is None or gates is None:
        raise ConfigError("; ".join(problems))
    return Settings(steps, interval_s, gates)


def parse_action(annotations: Mapping[str, str]) -> Action | None:
    """The action that is asked for, if any. Raises ConfigError."""
    text = annotations.get(names.ROLLOUT_ACTION)
    if text is None:
        return None
    try:
        return Action(text)
    except ValueError:
        known = ", ".join(action.value for action in Action)
        raise ConfigError(_wrong(names.ROLLOUT_ACTION, text, f"must be one of {known}")) from None


def _strangers(annotations: Mapping[str, str]) -> list[str]:
    return [
        f"{key} is no setting of a rollout; these are: {', '.join(names.ROLLOUT_KEYS)}"
        for key in sorted(annotations)
        if key.startswith(names.ROLLOUT_PREFIX) and key not in names.ROLLOUT_KEYS
    ]


def _steps(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > _MAX_STEPS or not all(map(_STEP.fullmatch, parts)):
        raise ValueError("must be percents from 1 to 100 with commas between, as 10,25,50,100")
    steps = tuple(map(int, parts))
    wrong = [str(step) for step in steps if not 1 <= step <= _ALL]
    if wrong:
        raise ValueError(f"must be percents from 1 to 100, {', '.join(wrong)} is not")
    for before, after in itertools.pairwise(steps):
        if after <= before:
            raise ValueError(f"must rise, but {after} follows {before}")
    return steps if steps[-1] == _ALL else (*steps, _ALL)


def _interval(text: str) -> float:
    try:
        interval_s = parse_duration(text) / SECOND_NS
    except GoValueError:
        interval_s = 0.0
    if not _INTERVAL_S[0] <= interval_s <= _INTERVAL_S[1]:
        raise ValueError("must be a duration from 1s to 744h, as 15m or 30s")
    return interval_s


def _wrong(key: str, found: str, expected: str) -> str:
    shown = found if len(found) <= 80 else f"{found[:80]}…"
    return f'{key} = "{shown}", {expected}'
