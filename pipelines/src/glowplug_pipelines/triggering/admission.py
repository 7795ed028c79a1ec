"""Whether, and when, a trigger is answered by a run of its own: pure decisions, `now` is a parameter.

    trigger ─► nothing runs ─► in an answered episode, within the cool-down, over the budget ─► Skipped
                             └► Admitted: a new run, or a failed one's next attempt
             ─► a run is alive ─► in its episode ─► Skipped: that run answers it
                                └► Waiting, in place of an older one: the run that ends starts it
             ─► a run is abandoned ─► Admitted: the same run, gone on with; the trigger waits

A run that did not fail answers what was sent before it began or within the cool-down after that: it has seen the same
data. So does one that is not over yet, but that is known at its end only: until then the trigger waits.

A lease is abandoned when whoever looks has seen it unrenewed for its whole duration by a clock of his own: clocks of
two computers are never compared. As client-go's leader election does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from glowplug.errors import GlowplugError

from .rules import Rules
from .state import Ended, News, Outcome, Running, Seen, State
from .trigger import Trigger

DAY_S = 86400.0
# Of episodes that were answered; a detector repeats itself within minutes.
_REMEMBERED_S = 30 * DAY_S
_REMEMBERED = 200
_UNTOLD = 20  # of ends of runs, while nobody takes their events


@dataclass(frozen=True)
class Admitted:
    """The holder works at `running` now; `is_resumed` where it was begun before."""

    running: Running
    is_resumed: bool
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Not now. With `ask_again_s` the caller must ask again so much later; else the run that ends starts it."""

    reason: str
    ask_again_s: float | None = None


@dataclass(frozen=True)
class Skipped:
    """No run of its own, for good."""

    reason: str


Decision = Admitted | Waiting | Skipped


class LeaseLost(GlowplugError):
    """Somebody else has taken the run over."""


def admit(
    rules: Rules, state: State, trigger: Trigger, now: float, holder: str, seen: Seen
) -> tuple[State, Decision]:
    """The next state, and what becomes of `trigger` for `holder`.

    `seen` is the lease as it was seen `again` just now.
    """
    running = state.running
    if running is None:
        return _begin(rules, state, trigger, now, holder)
    if running.holder == holder:
        # The write was made, and its answer lost on the way.
        return state, Admitted(running, running.attempt > 1, "it is held already")
    if running.holder and not _is_abandoned(rules, running, seen, now):
        return _behind(rules, state, running, trigger, now)
    if running.attempt < rules.attempts:
        return _take_over(rules, state, running, trigger, now, holder)
    dead = f"its process ended {running.attempt} times without a word"
    state = _ended(state, running, Outcome.FAILED, dead, {}, now)
    return _begin(rules, state, trigger, now, holder)


def renew(state: State, run: str, holder: str, now: float) -> State:
    """The lease held for longer. Raises LeaseLost."""
    running = _held(state, run, holder)
    return replace(state, running=replace(running, renewed=now, beats=running.beats + 1))


def give_back(state: State, run: str, holder: str) -> State:
    """The run left to whoever asks next, at once. Raises LeaseLost."""
    running = _held(state, run, holder)
    return replace(state, running=replace(running, holder="", beats=running.beats + 1))


def observe(state: State, run: str, holder: str, before: str | None) -> State:
    """Notes the storageUri that was found at the run's beginning. Raises LeaseLost."""
    running = _held(state, run, holder)
    return state if running.before is not None else replace(state, running=replace(running, before=before))


def finish(
    rules: Rules,
    state: State,
    run: str,
    holder: str,
    outcome: Outcome,
    reason: str,
    facts: Mapping[str, Any],
    now: float,
) -> tuple[State, Admitted | None]:
    """The run over, and the one that the same holder begins for the trigger that waits. Raises LeaseLost.

    `facts` are what is told of the run beside its outcome.
    """
    state = _ended(state, _held(state, run, holder), outcome, reason, facts, now)
    waiting = state.waiting
    if waiting is None:
        return state, None
    if waiting.episode in state.answered:
        return replace(state, waiting=None), None
    if _covered(rules, state.covering, waiting):
        return _answer(replace(state, waiting=None), waiting, run, now), None
    if _over_budget(rules, state, waiting, now):
        return state, None  # it stays, for the first who comes when there is budget again
    return _started(rules, replace(state, waiting=None), waiting, now, holder, "it has waited")


def _begin(rules: Rules, state: State, trigger: Trigger, now: float, holder: str) -> tuple[State, Decision]:
    last = state.last
    if trigger.episode in state.answered:
        return state, Skipped(f"answered by {state.answered[trigger.episode][0]}")
    if last is not None and last.outcome is Outcome.FAILED and last.trigger.is_same_event(trigger):
        return _again(rules, state, last, now, holder)
    if why := _covered(rules, state.covering, trigger):
        return state, Skipped(why)
    if why := _over_budget(rules, state, trigger, now):
        return state, Skipped(why)
    waiting = state.waiting
    if waiting is not None and waiting.at > trigger.at:
        state = replace(state, waiting=trigger)
        trigger, waiting = waiting, trigger
    if waiting is not None:
        state = _superseded(replace(state, waiting=None), waiting, trigger, now)
    return _started(rules, state, trigger, now, holder, "nothing runs")


def _again(rules: Rules, state: State, last: Ended, now: float, holder: str) -> tuple[State, Decision]:
    if last.attempt >= rules.attempts:
        return state, Skipped(f"{last.run} has failed {last.attempt} times: {last.reason}")
    running = Running(
        last.run, last.trigger, holder, last.started, now, attempt=last.attempt + 1, before=last.before
    )
    why = f"attempt {running.attempt} of {rules.attempts} after: {last.reason}"
    return replace(state, running=running), Admitted(running, True, why)


def _take_over(
    rules: Rules, state: State, running: Running, trigger: Trigger, now: float, holder: str
) -> tuple[State, Decision]:
    taken = replace(running, holder=holder, renewed=now, beats=running.beats + 1, attempt=running.attempt + 1)
    told = f"its lease was given back or ran out: attempt {taken.attempt} of {rules.attempts}"
    state, _ = _behind(rules, state, running, trigger, now)
    return replace(state, running=taken), Admitted(taken, True, told)


def _behind(
    rules: Rules, state: State, running: Running, trigger: Trigger, now: float
) -> tuple[State, Decision]:
    """Where a run is under way."""
    if trigger.is_same_event(running.trigger):
        # The process that had it may be gone: somebody must be there to notice.
        return state, Waiting(f"{running.holder} works at {running.run}", rules.lease_s / 4)
    if trigger.episode == running.trigger.episode:
        return _unless_silent(rules, state, running, Skipped(f"{running.run} answers its episode"), now)
    if trigger.episode in state.answered:
        return state, Skipped(f"answered by {state.answered[trigger.episode][0]}")
    waiting = state.waiting
    if waiting is not None and not waiting.is_same_event(trigger):
        if waiting.at > trigger.at:
            return state, Skipped(f"a newer trigger waits for the end of {running.run}: {waiting.id}")
        state = _superseded(state, waiting, trigger, now)
    state = replace(state, waiting=trigger)
    return _unless_silent(rules, state, running, Waiting(f"for the end of {running.run}"), now)


def _unless_silent(
    rules: Rules, state: State, running: Running, decision: Decision, now: float
) -> tuple[State, Decision]:
    """`decision`; but where the run seems to be abandoned, one who stays and looks for as long as it takes to know."""
    if running.holder and now < running.renewed + rules.lease_s:
        return state, decision
    return state, Waiting(f"{running.run} has not been heard of", rules.lease_s / 4)


def _is_abandoned(rules: Rules, running: Running, seen: Seen, now: float) -> bool:
    return seen.mark == running.mark and now >= seen.at + rules.lease_s


def _started(
    rules: Rules, state: State, trigger: Trigger, now: float, holder: str, why: str
) -> tuple[State, Admitted]:
    running = Running(run_id(rules.model, trigger, now), trigger, holder, now, now)
    starts = (*(start for start in state.started if start > now - DAY_S), now)
    return replace(state, running=running, started=starts), Admitted(running, False, why)


def _ended(
    state: State, running: Running, outcome: Outcome, reason: str, facts: Mapping[str, Any], now: float
) -> State:
    ended = Ended(
        running.run, running.trigger, outcome, reason, now, running.started, running.attempt, running.before
    )
    news = News(running.run, running.attempt, running.trigger, outcome, reason, facts)
    state = replace(state, running=None, last=ended, news=(*state.news, news)[-_UNTOLD:])
    if outcome is Outcome.FAILED:
        return state
    state = replace(state, covering=max(running.started, state.covering or running.started))
    return _answer(state, running.trigger, running.run, now)


def _superseded(state: State, older: Trigger, newer: Trigger, now: float) -> State:
    if older.episode == newer.episode:
        return state
    return _answer(state, older, f"the newer trigger {newer.id}", now)


def _answer(state: State, trigger: Trigger, what: str, now: float) -> State:
    kept = [(key, value) for key, value in state.answered.items() if value[1] > now - _REMEMBERED_S]
    kept = [*kept, (trigger.episode, (what, now))]
    return replace(state, answered=dict(kept[-_REMEMBERED:]))


def _covered(rules: Rules, began: float | None, trigger: Trigger) -> str:
    if trigger.is_forced or began is None or trigger.at - began >= rules.cool_down_s:
        return ""
    when = f"{trigger.at - began:.0f} s after" if trigger.at >= began else "before"
    return (
        f"it was sent {when} the last run began, which answers it; the cool-down is {rules.cool_down_s:g} s"
    )


def _over_budget(rules: Rules, state: State, trigger: Trigger, now: float) -> str:
    runs = sum(start > now - DAY_S for start in state.started)
    if trigger.is_forced or runs < rules.runs_per_day:
        return ""
    return f"{runs} runs began in the last 24 hours, {rules.runs_per_day} are allowed"


def _held(state: State, run: str, holder: str) -> Running:
    running = state.running
    if running is None or (running.run, running.holder) != (run, holder):
        by = f"{running.holder or 'nobody'} works at {running.run}" if running else "nothing runs"
        raise LeaseLost(f"{run} is not {holder}'s any more: {by}")
    return running


def run_id(model: str, trigger: Trigger, now: float) -> str:
    """One id from the event to the revision: readable, sorted by time, the same for the same event at the same time."""
    moment = datetime.fromtimestamp(now, timezone.utc).strftime("%Y%m%d-%H%M%S")
    digest = hashlib.sha256(f"{trigger.source}\0{trigger.id}".encode()).hexdigest()
    return f"{model}-{moment}-{digest[:6]}"
