"""One revision's life in virtual time: measured, decided on, put to sleep, woken."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from glowplug.autoscaler.engine import Autoscaler, Facts, Verdict
from glowplug.autoscaler.parameters import SECOND_NS
from glowplug.spec.load import Report

NAME = "default/r"
START_NS = 1_770_000_000 * SECOND_NS
GROUP = "autoscaling.knative.dev/"


class World:
    """The owner of one revision, whose pods are ready at once; `step` is a second."""

    def __init__(self, concurrency: int = 0, **annotations: str) -> None:
        self.now_ns = START_NS
        self.news: list[str] = []
        self.engine = Autoscaler(self.news.append)
        notes = {GROUP + key.replace("_", "-"): value for key, value in annotations.items()}
        self.facts = Facts(notes, concurrency, 1, True, True, "True", START_NS)
        self.verdict = self.look()

    def look(self) -> Verdict:
        verdict = self.engine.look(NAME, self.facts, self.now_ns)
        active = self.facts.active
        if verdict.want.scale == 0:
            active = "False"
        elif verdict.want.scale > 0:
            active = "True"
        if active != self.facts.active:
            self.facts = replace(self.facts, active=active, active_since_ns=self.now_ns)
        if verdict.want.is_applied:
            self.facts = replace(self.facts, ready=verdict.want.scale)
        self.verdict = verdict
        return verdict

    def step(self, load: float | None, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            if load is not None:
                self.engine.record({NAME: Report(load, load)}, self.now_ns)
            if self.now_ns // SECOND_NS % 2 == 0:
                self.engine.tick(self.now_ns)
            self.look()


def test_a_burst_is_met_within_a_few_decisions() -> None:
    world = World(target="10", target_burst_capacity="0")
    world.step(7, 60)
    assert world.facts.ready == 1
    world.step(70, 4)
    # 70 / (10 * 70 %) = 10 pods for the panic window's part of the burst.
    assert world.facts.ready >= 5
    world.step(70, 6)
    assert world.facts.ready == 10
    assert NAME in world.news


def test_an_idle_revision_goes_to_zero_and_sleeps_and_a_request_wakes_it_at_once() -> None:
    world = World(window="6s", target_burst_capacity="0")
    world.step(1, 10)
    world.step(0, 20)
    assert world.verdict.want.scale == 0 and world.facts.ready == 1, "the last pod stays for the grace period"
    assert world.verdict.needs_activator
    world.step(0, 30)
    assert world.facts.ready == 0
    assert world.engine.awake() == []

    world.news.clear()
    assert world.engine.poke(NAME, world.now_ns)
    assert world.news == [NAME]
    assert world.look().want.scale == 1 and world.facts.ready == 1
    assert world.engine.awake() == [NAME]
    # The request that woke it is not counted twice.
    assert not world.engine.poke(NAME, world.now_ns)
    world.step(1)
    assert world.facts.ready == 1


def test_requests_beyond_what_the_pods_can_take_are_decided_on_at_once() -> None:
    world = World(concurrency=4, panic_window_percentage="1.7")
    world.step(2, 60)
    assert world.facts.ready == 1
    assert not world.engine.poke(NAME, world.now_ns, 8.0), "one pod takes four, twice as many are no panic"
    assert world.engine.poke(NAME, world.now_ns, 40.0)
    world.look()
    burst = world.facts.ready
    assert burst >= 10
    assert not world.engine.poke(NAME, world.now_ns, 50.0), "no news"
    # The second's own report says the same once more, and adds nothing.
    world.step(40, 1)
    assert world.facts.ready <= 1.5 * burst


def test_with_a_limit_of_one_a_single_request_wakes_no_more_than_it_needs() -> None:
    world = World(concurrency=1, window="6s")
    world.step(0, 60)
    assert world.facts.ready == 0
    world.engine.poke(NAME, world.now_ns)
    world.look()
    woken = world.facts.ready
    world.step(0.3, 2)
    assert world.facts.ready <= woken <= 2


def test_a_floor_holds_without_any_load_and_follows_the_live_annotation() -> None:
    world = World(min_scale="2", window="6s")
    world.step(0, 60)
    assert world.facts.ready == 2
    world.facts = replace(world.facts, annotations={GROUP + "min-scale": "4", GROUP + "window": "6s"})
    assert world.look().want.scale == 4


def test_without_measurements_what_was_decided_stays() -> None:
    world = World(target="10", target_burst_capacity="0")
    world.step(30, 20)
    ready = world.facts.ready
    assert ready > 1
    # Nobody calls `record` or `tick` while the ingress cannot be read.
    for _ in range(100):
        world.now_ns += SECOND_NS
        world.look()
    assert world.facts.ready == ready


def test_the_burst_capacity_decides_whether_the_activator_is_in_the_path() -> None:
    # 211 by default, and a pod takes 10: the activator stays until there are more than 21 pods.
    world = World(concurrency=10)
    world.step(1, 10)
    assert world.verdict.needs_activator
    world = World(concurrency=10, target_burst_capacity="0")
    world.step(1, 10)
    assert not world.verdict.needs_activator


def test_a_revision_that_comes_back_has_no_past() -> None:
    world = World()
    world.step(50, 10)
    world.engine.forget(NAME)
    assert world.engine.recorded(NAME) == ()
    assert world.look().want.scale == -1


def test_decisions_are_kept_for_replay() -> None:
    world = World()
    world.step(1, 20)
    recorded = world.engine.recorded(NAME)
    assert len(recorded) == 10
    assert [b.now_ns - a.now_ns for a, b in pairwise(recorded)] == [2 * SECOND_NS] * 9
