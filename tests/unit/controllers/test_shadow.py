"""From the annotation to the table: which revision is the shadow, and what it needs."""

from __future__ import annotations

import pytest
from unit.controllers.machine import Machine, inference_service

from glowplug.spec import kinds, names
from glowplug.spec.routes import RouteEntry, Shadow

FIRST, SECOND = "default/flights-predictor-00001", "default/flights-predictor-00002"


def apply(machine: Machine, image: str, percent: int | None = None, shadow: str | None = "20") -> None:
    predictor: dict = {"containers": [{"image": image}]}
    if percent is not None:
        predictor["canaryTrafficPercent"] = percent
    annotations = {names.SHADOW: shadow} if shadow is not None else {}
    machine.apply(kinds.INFERENCE_SERVICE, inference_service(predictor=predictor, annotations=annotations))
    machine.advance(30)


def route(machine: Machine, name: str = "flights") -> RouteEntry:
    (found,) = (entry for entry in machine.tables[-1].routes if entry.name == name)
    return found


@pytest.fixture
def canary() -> Machine:
    """The second revision is there and has no traffic."""
    machine = Machine()
    apply(machine, "one")
    apply(machine, "two", 0)
    return machine


def test_the_newest_is_the_shadow_while_it_has_no_traffic(canary: Machine) -> None:
    for name in ("flights", "flights-predictor"):
        assert route(canary, name).shadow == Shadow(SECOND, 20.0)
    assert [split.revision for split in route(canary).splits] == [FIRST]


def test_a_shadow_can_be_served_however_long_it_has_no_traffic(canary: Machine) -> None:
    canary.advance(300)
    (backend,) = (b for b in canary.tables[-1].backends if b.revision == SECOND)
    assert backend.takes_requests
    apply(canary, "two", 0, shadow=None)
    apply(canary, "three", 0)
    canary.advance(300)
    assert SECOND not in [b.revision for b in canary.tables[-1].backends]


def test_it_stays_the_shadow_of_the_rest_until_it_has_all(canary: Machine) -> None:
    apply(canary, "two", 30)
    assert route(canary).shadow == Shadow(SECOND, 20.0)
    apply(canary, "two")
    assert route(canary).shadow is None


def test_one_revision_alone_has_no_shadow() -> None:
    machine = Machine()
    apply(machine, "one")
    assert route(machine).shadow is None


def test_the_annotation_makes_no_revision(canary: Machine) -> None:
    apply(canary, "two", 0, shadow="50")
    assert route(canary).shadow == Shadow(SECOND, 50.0)
    apply(canary, "two", 0, shadow="0")
    assert route(canary).shadow is None
    assert len(canary.names(kinds.REVISION)) == 2
