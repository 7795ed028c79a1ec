"""How many pods a revision should have: Knative's decision, a pure function of state, observation and time.

In short: pods = ⌈measured / target⌉, once over the stable window and once over the panic window, each within what one
step may change. From `panic_threshold` times the present pods on, the revision panics: for a stable window from then
on it takes the larger of the two, and does not shrink. Source: knative.dev/serving pkg/autoscaler/scaling
(autoscaler.go, multiscaler.go), version 0.48; a test compares every decision with that code.

Nothing here knows min-scale, max-scale, or when the last pod may leave: `scaler` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from glowplug.spec.gonumbers import duration_text, float_text

from . import floats, maximum
from .maximum import MaximumWindow
from .parameters import TICK_S, Parameters

UNKNOWN_SCALE = -1


@dataclass(frozen=True)
class Observation:
    """The revision's ready pods, and its metric averaged over the stable and the panic window, over all pods."""

    ready: int
    stable: float
    panic: float


@dataclass(frozen=True)
class NoData:
    """Nothing can be said now: nothing was measured, or nobody knows how many pods are ready; `why` says which."""

    why: str = "no data to scale on yet"


@dataclass(frozen=True)
class State:
    """What a decision leaves for the next.

    `panic_since_ns` is when the load was last above the threshold, None outside of panic. `delay` holds the decisions
    of the last scale-down-delay, None without one.
    """

    panic_since_ns: int | None
    max_panic_pods: int
    delay: MaximumWindow | None


@dataclass(frozen=True)
class Decision:
    """`desired` pods, and the capacity that is left after the target burst: below 0 the activator is needed."""

    desired: int
    excess_burst_capacity: int
    is_panicking: bool
    reason: str


@dataclass(frozen=True)
class Undecided:
    """No decision: whatever was decided before stays."""

    reason: str


@dataclass(frozen=True)
class _Wish:
    """What the two windows ask for, within the limits of one step; `panic_load` is the panic wish before limits."""

    stable: int
    panic: int
    panic_load: float
    reason: str


def start(parameters: Parameters, ready: int, now_ns: int) -> State:
    """The state of a new decider.

    With several pods ready it panics from the start: it has no history, and must not shrink a revision for that.
    """
    delay = None
    if parameters.scale_down_delay_ns > 0:
        delay = maximum.window(parameters.scale_down_delay_ns, TICK_S)
    return State(now_ns if ready > 1 else None, ready, delay)


def decide(
    parameters: Parameters, state: State, observation: Observation | NoData, now_ns: int
) -> tuple[State, Decision | Undecided]:
    """One tick. `now_ns` is nanoseconds since the epoch and must not fall from tick to tick."""
    if isinstance(observation, NoData):
        return state, Undecided(observation.why)
    wish = _wish(parameters, observation)
    pods = max(1, observation.ready)
    state, mood = _panicked(parameters, state, wish.panic_load / pods >= parameters.panic_threshold, now_ns)
    desired, notes = wish.stable, [wish.reason, mood]
    if state.panic_since_ns is not None:
        desired = max(desired, wish.panic)
        if desired > state.max_panic_pods:
            state = replace(state, max_panic_pods=desired)
        elif desired < state.max_panic_pods:
            notes.append(f"panic keeps {state.max_panic_pods} pods where {desired} would do")
        desired = state.max_panic_pods
    if parameters.is_reachable and state.delay is not None:
        state = replace(state, delay=state.delay.recorded(now_ns, desired))
        assert state.delay is not None, "just set"
        if state.delay.current != desired:
            delay = duration_text(parameters.scale_down_delay_ns)
            notes.append(
                f"scale-down-delay {delay} keeps {state.delay.current} pods where {desired} would do"
            )
        desired = state.delay.current
    reason = "; ".join(note for note in notes if note)
    excess = excess_burst_capacity(parameters, observation.ready, observation.panic)
    return state, Decision(desired, excess, state.panic_since_ns is not None, reason)


def _wish(parameters: Parameters, observation: Observation) -> _Wish:
    pods = max(1, observation.ready)
    # Upwards at least one pod more, whatever the rate; a revision that nobody reaches may shrink at once.
    most = floats.ceil(parameters.max_scale_up_rate * pods)
    least = floats.floor(pods / parameters.max_scale_down_rate) if parameters.is_reachable else 0.0
    loads = [
        floats.ceil(floats.divide(value, parameters.target))
        for value in (observation.stable, observation.panic)
    ]
    pair = [floats.to_int32(floats.minimum(floats.maximum(load, least), most)) for load in loads]
    notes = [_limit_note(load, least, most) for load in loads]
    for index, load in enumerate(loads):
        if parameters.activation_scale > 1 and load > 0 and parameters.activation_scale > pair[index]:
            pair[index] = parameters.activation_scale
            notes[index] = f"activation-scale {parameters.activation_scale}"
    target = float_text(parameters.target)
    text = (
        f"stable {observation.stable:.6g} / target {target} = {pair[0]}{_bracketed(notes[0])}, "
        f"panic {observation.panic:.6g} / target {target} = {pair[1]}{_bracketed(notes[1])}"
    )
    return _Wish(pair[0], pair[1], loads[1], text)


def _limit_note(load: float, least: float, most: float) -> str:
    if load > most:
        return f"{load:.0f} cut to {most:.0f} by max-scale-up-rate"
    return f"{load:.0f} raised to {least:.0f} by max-scale-down-rate" if load < least else ""


def _bracketed(note: str) -> str:
    return f" ({note})" if note else ""


def _panicked(parameters: Parameters, state: State, is_over: bool, now_ns: int) -> tuple[State, str]:
    """The state after panic began, went on or ended, and what to say of it."""
    threshold = float_text(parameters.panic_threshold)
    if is_over:
        begun = "panic begins" if state.panic_since_ns is None else "panic goes on"
        return replace(state, panic_since_ns=now_ns), f"{begun}: {threshold} times the ready pods are needed"
    if state.panic_since_ns is None:
        return state, ""
    if state.panic_since_ns + parameters.stable_window_ns < now_ns:
        return replace(state, panic_since_ns=None, max_panic_pods=0), "panic ends"
    left_ns = state.panic_since_ns + parameters.stable_window_ns - now_ns
    return state, f"panic goes on for {duration_text(left_ns)} unless it is fed"


def excess_burst_capacity(parameters: Parameters, ready: int, panic: float) -> int:
    """The room left after the present load and the target burst, in units of the metric; -1 for a boundless target.

    excess = ⌊ready · total - target_burst_capacity - panic⌋
    """
    burst = parameters.target_burst_capacity
    if burst == 0:
        return 0
    # What is below 0 and not -1 is refused elsewhere; Knative would take it for boundless too.
    if not burst > 0:
        return -1
    return floats.to_int32(floats.floor(ready * parameters.total - burst - panic))


def initial_excess_burst_capacity(parameters: Parameters) -> int:
    """The same before the first decision, when the revision's first pods are on their way."""
    burst = parameters.target_burst_capacity
    if burst in (-1, 0):
        return int(burst)
    return floats.to_int32(parameters.initial_scale * parameters.total - burst)


def is_news(before: tuple[int, int], after: Decision) -> bool:
    """True if a decision changes anything for whoever acts on it; `before` is (desired, excess burst capacity).

    The excess matters by its sign only: it decides whether the activator is in the path.
    """
    return before[0] != after.desired or (before[1] < 0) != (after.excess_burst_capacity < 0)
