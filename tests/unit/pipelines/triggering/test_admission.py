"""Which trigger is answered by a run: in virtual time, one by one and at random."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowplug_pipelines.triggering import record, trigger
from glowplug_pipelines.triggering.admission import (
    DAY_S,
    Admitted,
    LeaseLost,
    Skipped,
    Waiting,
    admit,
    finish,
    give_back,
    observe,
    renew,
)
from glowplug_pipelines.triggering.rules import Rules
from glowplug_pipelines.triggering.state import Outcome, Seen, State
from glowplug_pipelines.triggering.trigger import Trigger

RULES = Rules("flights", "flights", cool_down_s=600.0, runs_per_day=3, lease_s=60.0, attempts=2)
NOW = 1_700_000_000.0


def a_trigger(id: str, at: float = NOW, episode: str = "", *, is_forced: bool = False) -> Trigger:
    return Trigger(trigger.DRIFT, id, "/drift", episode or f"drift/{id}", at, is_forced)


def started(state: State, each: Trigger, now: float, holder: str = "a") -> tuple[State, Admitted]:
    state, decision = admit(RULES, state, each, now, holder, Seen())
    assert isinstance(decision, Admitted), decision
    return state, decision


def ended(
    state: State, now: float, outcome: Outcome = Outcome.DEPLOYED, holder: str = "a"
) -> tuple[State, Admitted | None]:
    assert state.running is not None
    return finish(RULES, state, state.running.run, holder, outcome, "told", {}, now)


def test_ten_triggers_of_a_burst_make_one_run() -> None:
    state, admitted = started(State(), a_trigger("0", NOW), NOW)
    for number in range(1, 10):
        each = a_trigger(str(number), NOW + number)
        state, decision = admit(RULES, state, each, NOW + number, f"h{number}", Seen())
        assert isinstance(decision, Waiting)
    state = renew(state, admitted.running.run, "a", NOW + 30)
    state, after = ended(state, NOW + 45)
    assert after is None and state.running is None and len(state.started) == 1
    state, decision = admit(RULES, state, a_trigger("9", NOW + 9), NOW + 50, "z", Seen())
    assert decision == Skipped(f"answered by {admitted.running.run}")


def test_one_episode_is_answered_once_however_often_it_is_told() -> None:
    state, admitted = started(State(), a_trigger("0", NOW, "e"), NOW)
    state, decision = admit(RULES, state, a_trigger("1", NOW + 1, "e"), NOW + 1, "b", Seen())
    assert isinstance(decision, Skipped) and admitted.running.run in decision.reason
    state, _ = ended(state, NOW + 10)
    state, decision = admit(RULES, state, a_trigger("2", NOW + 9000, "e"), NOW + 9000, "b", Seen())
    assert isinstance(decision, Skipped) and len(state.started) == 1


def test_the_newest_that_waits_is_started_by_the_run_that_ends() -> None:
    state, _ = started(State(), a_trigger("0"), NOW)
    for id, at in (("1", 700.0), ("3", 800.0), ("2", 750.0)):
        state, decision = admit(RULES, state, a_trigger(id, NOW + at), NOW + 810, "b", Seen())
        # The run has not been heard of since NOW by its own stamps: each would stay to see whether it lives.
        assert isinstance(decision, Skipped if id == "2" else Waiting), decision
    state, after = ended(state, NOW + 900)
    assert after is not None and after.running.trigger.id == "3" and after.running.holder == "a"
    assert not after.is_resumed and state.waiting is None and state.running == after.running
    assert set(state.answered) == {"drift/0", "drift/1"}


def test_a_failed_run_does_not_answer_what_waits_for_it() -> None:
    state, _ = started(State(), a_trigger("0"), NOW)
    state, decision = admit(RULES, state, a_trigger("1", NOW + 5), NOW + 5, "b", Seen())
    assert isinstance(decision, Waiting) and decision.ask_again_s is None
    state, after = ended(state, NOW + 10, Outcome.FAILED)
    assert after is not None and after.running.trigger.id == "1"


def test_a_failed_run_is_tried_again_under_its_own_id_and_not_for_ever() -> None:
    state, first = started(State(), a_trigger("0"), NOW)
    state = observe(state, first.running.run, "a", "s3://models/1")
    state, _ = ended(state, NOW + 10, Outcome.FAILED)
    state, again = started(state, a_trigger("0"), NOW + 20, "b")
    assert again.is_resumed and again.running.run == first.running.run and again.running.attempt == 2
    assert again.running.before == "s3://models/1", "what a person must not have edited since the beginning"
    state, _ = ended(state, NOW + 30, Outcome.FAILED, "b")
    state, decision = admit(RULES, state, a_trigger("0"), NOW + 40, "c", Seen())
    assert isinstance(decision, Skipped) and "failed 2 times" in decision.reason
    assert [news.attempt for news in state.news] == [1, 2] and len({news.id for news in state.news}) == 2
    assert len(state.started) == 1, "attempts are no runs of the budget"


def test_the_budget_bounds_the_runs_of_any_day_and_not_a_person_who_insists() -> None:
    state, now = State(), NOW
    for number in range(3):
        state, _ = started(state, a_trigger(str(number), now), now)
        state, _ = ended(state, now + 10)
        now += 700
    state, decision = admit(RULES, state, a_trigger("3", now), now, "a", Seen())
    assert decision == Skipped("3 runs began in the last 24 hours, 3 are allowed")
    forced, _ = started(state, a_trigger("4", now, is_forced=True), now)
    assert len(forced.started) == 4
    started(state, a_trigger("5", NOW + DAY_S + 1), NOW + DAY_S + 1)


def test_what_waits_when_the_budget_ends_is_started_when_there_is_budget_again() -> None:
    rules = replace(RULES, runs_per_day=1)
    state, _ = admit(rules, State(), a_trigger("0"), NOW, "a", Seen())
    state, _ = admit(rules, state, a_trigger("1", NOW + 700), NOW + 700, "b", Seen())
    assert state.running is not None
    state, after = finish(rules, state, state.running.run, "a", Outcome.KEPT, "", {}, NOW + 800)
    assert after is None and state.waiting is not None
    # An older one that comes late must not win.
    late = a_trigger("late", NOW + 650)
    state, decision = admit(rules, state, late, NOW + DAY_S + 800, "c", Seen())
    assert isinstance(decision, Admitted | Skipped)
    fresh = a_trigger("2", NOW + DAY_S + 900)
    state, decision = admit(rules, replace(state, running=None), fresh, NOW + DAY_S + 900, "c", Seen())
    if isinstance(decision, Admitted):
        assert decision.running.trigger.id == "2" and state.waiting is None


def test_the_same_event_again_waits_until_it_may_take_its_dead_process_place() -> None:
    each = a_trigger("0")
    state, first = started(State(), each, NOW)
    seen, now = Seen(), NOW + 1
    while True:
        seen = seen.again(state.running, now)
        state, decision = admit(RULES, state, each, now, "b", seen)
        if isinstance(decision, Admitted):
            break
        assert isinstance(decision, Waiting) and decision.ask_again_s is not None
        now += decision.ask_again_s
    assert RULES.lease_s <= now - (NOW + 1) <= 1.5 * RULES.lease_s
    assert decision.is_resumed and decision.running.run == first.running.run
    for lost in (lambda: renew(state, first.running.run, "a", now), lambda: ended(state, now, holder="a")):
        with pytest.raises(LeaseLost, match="is not a's any more: b works at"):
            lost()


def test_a_lease_that_is_renewed_is_never_taken_whatever_the_clocks_say() -> None:
    each, skew_s = a_trigger("0"), 7200.0
    state, first = started(State(), each, NOW)
    seen = Seen()
    for step in range(40):
        now = NOW + 20.0 * step
        state = renew(state, first.running.run, "a", now)
        seen = seen.again(state.running, now + skew_s)
        for id in ("0", "other"):
            state, decision = admit(RULES, state, a_trigger(id), now + skew_s, "b", seen)
            assert isinstance(decision, Waiting)


def test_a_lease_that_was_given_back_is_taken_at_once_and_the_trigger_waits() -> None:
    state, first = started(State(), a_trigger("0"), NOW)
    state = give_back(state, first.running.run, "a")
    state, decision = admit(RULES, state, a_trigger("1", NOW + 700), NOW + 700, "b", Seen())
    assert isinstance(decision, Admitted) and decision.running.run == first.running.run
    assert state.waiting is not None and state.waiting.id == "1"
    state, after = ended(state, NOW + 800, holder="b")
    assert after is not None and after.running.trigger.id == "1"


def test_a_run_whose_processes_all_die_ends_as_failed() -> None:
    state, first = started(State(), a_trigger("0"), NOW)
    state = give_back(state, first.running.run, "a")
    state, second = started(state, a_trigger("0"), NOW + 1, "b")
    state = give_back(state, second.running.run, "b")
    state, decision = admit(RULES, state, a_trigger("0"), NOW + 2, "c", Seen())
    assert isinstance(decision, Skipped) and "2 times without a word" in decision.reason
    assert state.running is None and state.news[-1].outcome is Outcome.FAILED


def test_a_write_whose_answer_was_lost_is_not_taken_for_another_process() -> None:
    state, first = started(State(), a_trigger("0"), NOW)
    again, decision = admit(RULES, state, a_trigger("0"), NOW + 1, "a", Seen())
    assert again == state and isinstance(decision, Admitted) and decision.running == first.running


# One step of the world: (what, which trigger or process, seconds that pass before).
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["event", "event", "again", "beat", "end", "fail", "kill", "stop"]),
        st.integers(0, 5),
        st.sampled_from([0.0, 1.0, 20.0, 61.0, 700.0, 40_000.0]),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whatever_happens_one_works_at_a_time_within_the_budget(steps: list[tuple[str, int, float]]) -> None:
    state, now, seen = State(), NOW, Seen()
    workers: dict[str, str] = {}  # living holder → run
    heard: dict[str, float] = {}  # holder → when it last renewed
    starts: list[float] = []
    for number, (what, which, passed_s) in enumerate(steps):
        now += passed_s
        # Who has not renewed in time has stopped by itself, as the loop sees to.
        workers = {name: run for name, run in workers.items() if now - heard[name] < RULES.lease_s}
        seen = seen.again(state.running, now)
        name = next(iter(workers), "")
        if what in ("event", "again"):
            id = str(which) if what == "again" else f"n{number}"
            state, decision = admit(RULES, state, a_trigger(id, now), now, f"h{number}", seen)
            if isinstance(decision, Admitted):
                workers[f"h{number}"], heard[f"h{number}"] = decision.running.run, now
                starts += [] if decision.is_resumed else [now]
        elif what == "beat" and name:
            state = renew(state, workers[name], name, now)
            heard[name] = now
        elif what in ("end", "fail") and name:
            outcome = Outcome.KEPT if what == "end" else Outcome.FAILED
            state, after = finish(RULES, state, workers.pop(name), name, outcome, "", {}, now)
            if after is not None:
                workers[name], heard[name] = after.running.run, now
                starts.append(now)
        elif what == "kill" and name:
            del workers[name]
        elif what == "stop" and name:
            state = give_back(state, workers.pop(name), name)
        assert len(workers) <= 1
        for worker, run in workers.items():
            assert state.running is not None and (state.running.run, state.running.holder) == (run, worker)
        assert sum(start > now - DAY_S for start in starts) <= RULES.runs_per_day
        assert record.load(record.dump(state), "here") == state
