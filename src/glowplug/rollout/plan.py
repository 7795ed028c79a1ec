"""What a rollout does next: a pure decision from where it is, what is seen, and what the judge says.

    IDLE ─ the spec changes ─► STARTING ─ canary ready ─► PROGRESSING ─ last step passed ─► PROMOTING ─► PROMOTED
                                   │                          │ a gate fails, or it crashes
                                   └───── abort ──────────────┴────────────────► ROLLING_BACK ─► ROLLED_BACK

The outcome is a state and nothing else: it says which weight is to be written and what is to be told, and is itself
written together with the weight. Whoever reads it back after a crash therefore decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .membership import (
    begin,
    has_rolled_out,
    is_overtaken,
    is_unfinished,
    of,
    unforeseen,
    with_canaries,
    with_twins,
    without_unchanged,
)
from .observation import Observation
from .settings import Action, Settings
from .state import Phase, State
from .verdict import Outcome, Verdict

ADVANCED = "dev.glowplug.rollout.advanced"
PROMOTED = "dev.glowplug.rollout.promoted"
ROLLED_BACK = "dev.glowplug.rollout.rolledback"
INCONCLUSIVE = "dev.glowplug.rollout.inconclusive"

# A new revision is there within milliseconds of the traffic that was written with it; within seconds on a busy cluster.
_NO_REVISION_AFTER_S = 10.0
_ALL = 100
_UNMEASURED = "nothing can be measured: "


@dataclass(frozen=True)
class Ruling:
    """What the judge says now. `blind` says why nothing could be measured just now, `is_blind_long` that it has been so
    for long enough to tell somebody."""

    verdict: Verdict
    blind: str = ""
    is_blind_long: bool = False


def decide(
    settings: Settings,
    state: State,
    seen: Observation,
    ruling: Ruling | None,
    action: Action | None,
    now: float,
) -> State:
    """The next state. `ruling` is None where nothing is judged; `now` in seconds since the epoch."""
    state = with_twins(state, seen)
    fresh = unforeseen(state, seen)
    if fresh:
        return _announced_late(begin(state, seen, fresh, now), state, seen, fresh)
    if is_unfinished(state) and is_overtaken(state, seen):
        return State(news=state.news, started=state.started, told=state.told).telling(
            "RolloutOvertaken",
            "another revision has all requests; nothing is rolled out any more",
            is_warning=True,
        )
    if action is not None:
        state = _obey(settings, state, action, now)
    if state.phase is Phase.STARTING:
        return _start(settings, state, seen, now)
    if state.phase is Phase.PROGRESSING:
        return _progress(settings, _restoring(state, seen), seen, ruling, now)
    if state.phase is Phase.PROMOTING:
        return _finish_promotion(state, seen, now)
    if state.phase is Phase.ROLLING_BACK:
        return _finish_rollback(state, seen, now)
    if state.phase is Phase.ROLLED_BACK and has_rolled_out(state, seen):
        return _promoted(state, "somebody gave it all requests", now)
    return state


def _announced_late(fresh: State, state: State, seen: Observation, components: Mapping[str, str]) -> State:
    created = ", ".join(seen.components[name].created for name in components)
    if fresh is state or all(seen.components[name].percent == 0 for name in components):
        return fresh
    return fresh.telling(
        "RolloutUnannounced",
        f"{created} was not announced by the admission webhook; it may have taken requests before it was held back",
        is_warning=True,
    )


def _obey(settings: Settings, state: State, action: Action, now: float) -> State:
    refusal = _refusal(state, action)
    if refusal:
        return state.telling("RolloutActionRefused", f"cannot {action.value}: {refusal}", is_warning=True)
    if action is Action.PAUSE:
        return replace(state, is_paused=True).telling(
            "RolloutPaused", f"paused at {state.weight} %; it is still rolled back if it fails"
        )
    if action is Action.RESUME:
        return replace(state, is_paused=False).telling("RolloutResumed", f"goes on from {state.weight} %")
    if action is Action.ABORT:
        return _roll_back(state, "aborted by hand", now)
    return _promote(replace(state, is_paused=False), "promoted by hand", now)


def _refusal(state: State, action: Action) -> str:
    """Why an action makes no sense now; empty where it does."""
    if action is Action.PROMOTE:
        if state.phase in (Phase.PROGRESSING, Phase.ROLLED_BACK) and all(
            member.canary for member in state.members.values()
        ):
            return ""
        return "the canary is not ready" if state.phase is Phase.STARTING else "there is no canary"
    if action is Action.RESUME:
        return "" if state.is_paused and state.is_active else "nothing is paused"
    if state.phase is Phase.PROMOTING:
        return "it has been promoted"
    return "" if state.phase in (Phase.STARTING, Phase.PROGRESSING) else "no rollout is in progress"


def _start(settings: Settings, state: State, seen: Observation, now: float) -> State:
    state = with_canaries(state, seen)
    if now >= state.since + _NO_REVISION_AFTER_S:
        rest = without_unchanged(state, seen)
        if all(member.canary == state.members[name].before for name, member in rest.members.items()):
            return _nothing_new(state, rest, now)
        state = rest
    if all(member.canary and of(seen, name).ready == member.canary for name, member in state.members.items()):
        return state if state.is_paused else _to(settings.steps[0], replace(state, hold=""), None, now)
    trouble = seen.crash or next(filter(None, (of(seen, name).trouble for name in state.members)), "")
    if trouble and not state.hold:
        canary = ", ".join(member.canary or "the new revision" for member in state.members.values())
        state = state.telling(
            "RolloutCanaryNotReady",
            f"{canary} takes no requests until it is ready: {trouble}",
            is_warning=True,
        )
    return replace(state, hold=trouble or state.hold)


def _nothing_new(state: State, rest: State, now: float) -> State:
    if rest.members:
        # All that can be known is that none has come: a rolled-back weight of 0 looks the same before and after KServe
        # has seen the change. One that still comes is a new version then.
        stable = ", ".join(member.stable for member in rest.members.values())
        why = f"no new revision has come of the change: {stable} keeps all requests"
        state = replace(rest, phase=Phase.ROLLED_BACK, since=now, hold=why)
        return state.telling("RolloutEmpty", why)
    # The revision that is there counts as promoted: KServe may take the split for its rollback, until it is over.
    members = {name: replace(member, canary=member.before) for name, member in state.members.items()}
    return replace(state, phase=Phase.PROMOTED, members=members, weight=None, hold="").telling(
        "RolloutEmpty", "the change makes no new revision: nothing is rolled out"
    )


def _progress(
    settings: Settings, state: State, seen: Observation, ruling: Ruling | None, now: float
) -> State:
    if has_rolled_out(state, seen):
        return _promoted(state, "somebody gave it all requests", now)
    if seen.crash:
        return _roll_back(state, seen.crash, now)
    if ruling is None:
        return state
    state = replace(state, verdict=ruling.verdict)
    if ruling.verdict.outcome is Outcome.FAIL:
        return _roll_back(state, ruling.verdict.reason, now)
    if ruling.blind:
        return _blind(state, ruling)
    if now < state.since + settings.interval_s:
        return replace(state, hold="")
    if ruling.verdict.outcome is Outcome.INCONCLUSIVE:
        return _hold(state, ruling.verdict.reason)
    if state.is_paused:
        return replace(state, hold="")
    return _to(_next(settings, state), replace(state, hold=""), ruling.verdict, now)


def _blind(state: State, ruling: Ruling) -> State:
    return _hold(state, f"{_UNMEASURED}{ruling.blind}") if ruling.is_blind_long else state


def _hold(state: State, why: str) -> State:
    """Stays at its weight; told once, until it goes on or the kind of reason changes."""
    is_unmeasured = why.startswith(_UNMEASURED)
    if not state.hold or is_unmeasured != state.hold.startswith(_UNMEASURED):
        state = state.telling(
            "RolloutUnmeasured" if is_unmeasured else "RolloutInconclusive",
            f"held at {state.weight} %: {why}",
            is_warning=True,
            type=INCONCLUSIVE,
            data=_facts(state, why),
        )
    return replace(state, hold=why)


def _restoring(state: State, seen: Observation) -> State:
    """Tells of a weight that somebody else has moved; the state's own is written again."""
    moved = {name: of(seen, name).percent for name in state.members}
    if all(percent == state.weight for percent in moved.values()) or has_rolled_out(state, seen):
        return state
    shown = ", ".join(f"{name} at {percent}" for name, percent in moved.items() if percent != state.weight)
    return state.telling(
        "RolloutWeightRestored",
        f"canaryTrafficPercent is set to {state.weight} again (found {shown}): while a rollout goes on, use"
        " glowplug.dev/rollout-action",
        is_warning=True,
    )


def _next(settings: Settings, state: State) -> int:
    return next((step for step in settings.steps if step > (state.weight or 0)), _ALL)


def _to(weight: int, state: State, verdict: Verdict | None, now: float) -> State:
    if weight == _ALL:
        return _promote(state, verdict.reason if verdict else "the first step is 100", now)
    why = verdict.reason if verdict else "the canary is ready"
    state = replace(state, phase=Phase.PROGRESSING, weight=weight, since=now, evidence={}, verdict=None)
    facts = {**_facts(state, why), **({"verdict": verdict.as_json()} if verdict else {})}
    return state.telling("RolloutAdvanced", f"to {weight} %: {why}", type=ADVANCED, data=facts)


def _promote(state: State, why: str, now: float) -> State:
    state = replace(state, phase=Phase.PROMOTING, weight=_ALL, since=now, hold=why, evidence={})
    return state.telling("RolloutPromoting", f"to 100 %: {why}")


def _finish_promotion(state: State, seen: Observation, now: float) -> State:
    return _promoted(state, state.hold, now) if has_rolled_out(state, seen) else state


def _promoted(state: State, why: str, now: float) -> State:
    state = replace(
        state, phase=Phase.PROMOTED, weight=None, since=now, hold="", evidence={}, is_paused=False
    )
    canaries = ", ".join(member.canary for member in state.members.values())
    return state.telling(
        "RolloutPromoted", f"{canaries} has all requests: {why}", type=PROMOTED, data=_facts(state, why)
    )


def _roll_back(state: State, why: str, now: float) -> State:
    state = replace(state, phase=Phase.ROLLING_BACK, weight=0, since=now, hold=why, is_paused=False)
    stable = ", ".join(member.stable for member in state.members.values())
    return state.telling("RolloutRollingBack", f"back to {stable}: {why}", is_warning=True)


def _finish_rollback(state: State, seen: Observation, now: float) -> State:
    state = with_canaries(state, seen)
    if any(of(seen, name).shares.get(member.canary, 0) for name, member in state.members.items()):
        return state
    # One that was aborted before it was there must not be taken for a new one.
    unknown = [of(seen, name) for name, member in state.members.items() if not member.canary]
    is_over = now >= state.since + _NO_REVISION_AFTER_S and all(component.is_split for component in unknown)
    if unknown and not is_over:
        return state
    state = replace(state, phase=Phase.ROLLED_BACK, since=now, evidence={})
    stable = ", ".join(member.stable for member in state.members.values())
    return state.telling(
        "RolloutRolledBack",
        f"{stable} has all requests until the spec changes: {state.hold}",
        is_warning=True,
        type=ROLLED_BACK,
        data=_facts(state, state.hold),
    )


def _facts(state: State, why: str) -> dict[str, object]:
    """What a CloudEvent carries."""
    facts: dict[str, object] = {
        "weight": state.weight,
        "reason": why,
        "stable": {name: member.stable for name, member in state.members.items()},
        "canary": {name: member.canary for name, member in state.members.items()},
    }
    if state.verdict is not None:
        facts["verdict"] = state.verdict.as_json()
    return facts
