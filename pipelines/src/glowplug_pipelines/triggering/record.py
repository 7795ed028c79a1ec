"""The text form of a model's retraining state, kept in its ConfigMap under `state.json`.

A record of another version, or one that cannot be read, is an error and not an empty state: an empty one would let a
second run begin beside the first, and forget the day's budget.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from glowplug.errors import ConfigError

from .state import Challenger, Ended, News, Outcome, Running, Stage, State
from .trigger import Trigger

VERSION = 1


def dump(state: State) -> str:
    """The text."""
    return json.dumps({"v": VERSION, **asdict(state)}, separators=(",", ":"), ensure_ascii=False)


def load(text: str | None, where: str) -> State:
    """The state; an empty one where there is no text. Raises ConfigError, which names `where`."""
    if not text:
        return State()
    hint = f"delete {where} to begin anew; nothing of the models is lost with it"
    try:
        found = json.loads(text)
        if found["v"] == VERSION:
            return _loaded(found)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ConfigError(f"{where} cannot be read: {type(error).__name__}: {error}", hint=hint) from error
    raise ConfigError(f"{where} is of version {found['v']!r}, expected {VERSION}", hint=hint)


def _loaded(found: Mapping[str, Any]) -> State:
    running, waiting, last = found["running"], found["waiting"], found["last"]
    challenger, covering = found["challenger"], found["covering"]
    return State(
        running=None if running is None else Running(**{**running, "trigger": Trigger(**running["trigger"])}),
        waiting=None if waiting is None else Trigger(**waiting),
        last=None if last is None else Ended(**_outcome(last)),
        challenger=None
        if challenger is None
        else Challenger(**{**challenger, "stage": Stage(challenger["stage"])}),
        answered={str(key): (str(what), float(at)) for key, (what, at) in found["answered"].items()},
        started=tuple(float(at) for at in found["started"]),
        covering=None if covering is None else float(covering),
        news=tuple(News(**_outcome(each)) for each in found["news"]),
    )


def _outcome(found: Mapping[str, Any]) -> dict[str, Any]:
    return {**found, "trigger": Trigger(**found["trigger"]), "outcome": Outcome(found["outcome"])}
