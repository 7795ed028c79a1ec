"""What a person wants to know of a model's retraining: a few lines, in the ConfigMap and on the command line. Pure."""

from __future__ import annotations

from datetime import datetime, timezone

from .admission import DAY_S
from .rules import Rules
from .state import Outcome, State


def summary(state: State) -> dict[str, str]:
    """Readable keys beside the state, as `kubectl describe configmap` shows them."""
    found = {"phase": phase(state)}
    if state.running is not None:
        found["run"] = state.running.run
        found["trigger"] = f"{state.running.trigger.type} {state.running.trigger.id}"
    if state.waiting is not None:
        found["waiting"] = f"{state.waiting.type} {state.waiting.id}"
    if state.last is not None:
        last = state.last
        found["last"] = f"{last.run} {last.outcome.value} at {_moment(last.at)}: {last.reason}"
    if state.challenger is not None:
        challenger = state.challenger
        why = f": {challenger.reason}" if challenger.reason else ""
        found["challenger"] = (
            f"version {challenger.version} {challenger.stage.value} at {_moment(challenger.at)}{why}"
        )
    return found


def phase(state: State) -> str:
    """One word: `Running`, else how the last run ended, else `Idle`."""
    if state.running is not None:
        return "Running"
    if state.last is None:
        return "Idle"
    return {Outcome.FAILED: "Failed", Outcome.DEPLOYED: "Deployed", Outcome.KEPT: "Kept"}[state.last.outcome]


def lines(rules: Rules, state: State, now: float) -> list[tuple[str, str]]:
    """(what, value) of a model's retraining, for the command line."""
    found = [("model", rules.model), *summary(state).items()]
    if state.running is not None:
        silent_s = now - state.running.renewed
        held = f"{state.running.holder or 'nobody'}, heard of {max(0.0, silent_s):.0f} s ago"
        found.append(("held by", held + (" (seems gone)" if silent_s > rules.lease_s else "")))
    runs = sum(start > now - DAY_S for start in state.started)
    found.append(("runs in 24 h", f"{runs} of {rules.runs_per_day}"))
    return found


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
