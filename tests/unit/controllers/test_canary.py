"""Canaries from the field in the InferenceService to the table, in every order in which people move them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from unit.controllers.fakes import CRASH
from unit.controllers.machine import Machine, inference_service, knative_service

from glowplug.spec import kinds, names
from glowplug.spec.affinity import Affinity, Source
from glowplug.spec.routes import RouteEntry

FIRST, SECOND, THIRD = (f"flights-predictor-0000{number}" for number in (1, 2, 3))
TAGS = {names.ENABLE_TAG_ROUTING: "true"}


def change(machine: Machine, image: str, percent: int | None, **more: Any) -> None:
    predictor: dict[str, Any] = {"containers": [{"image": image}]}
    if percent is not None:
        predictor["canaryTrafficPercent"] = percent
    machine.apply(kinds.INFERENCE_SERVICE, inference_service(predictor=predictor, **more))
    machine.advance(30)


def component(machine: Machine) -> tuple[str | None, str | None]:
    """What was rolled out last, and before it."""
    found = machine.get(kinds.INFERENCE_SERVICE, "flights")["status"]["components"]["predictor"]
    return found.get("latestRolledoutRevision"), found.get("previousRolledoutRevision")


def shares(machine: Machine) -> list[tuple[str, int, bool]]:
    """`status.components.predictor.traffic`."""
    found = machine.get(kinds.INFERENCE_SERVICE, "flights")["status"]["components"]["predictor"]["traffic"]
    return [(target["revisionName"], target["percent"], target["latestRevision"]) for target in found]


def route(machine: Machine, name: str) -> RouteEntry:
    (found,) = (entry for entry in machine.tables[-1].routes if entry.name == name)
    return found


def test_a_second_canary_after_a_rollback_starts_beside_the_last_good_one() -> None:
    machine = Machine()
    change(machine, "v1", None)
    change(machine, "v2", 20)
    change(machine, "v2", 0)
    assert shares(machine) == [(SECOND, 0, True), (FIRST, 100, False)]
    # The same revision again.
    change(machine, "v2", 10)
    assert machine.splits("flights") == {FIRST: 90, SECOND: 10}
    change(machine, "v2", 0)
    # And a repaired one.
    change(machine, "v3", 10)
    assert machine.splits("flights") == {FIRST: 90, THIRD: 10}
    assert component(machine) == (FIRST, None)
    change(machine, "v3", None)
    assert machine.splits("flights") == {THIRD: 100}
    assert component(machine) == (THIRD, FIRST)
    assert machine.pods(SECOND) == []
    machine.assert_settled()


def test_a_canary_after_the_rollback_of_a_promoted_one() -> None:
    machine = Machine()
    change(machine, "v1", None)
    change(machine, "v2", None)
    assert component(machine) == (SECOND, FIRST)
    change(machine, "v2", 0)
    assert machine.splits("flights") == {FIRST: 100}
    assert component(machine) == (FIRST, FIRST)
    change(machine, "v3", 25)
    assert machine.splits("flights") == {FIRST: 75, THIRD: 25}
    change(machine, "v3", 100)
    assert machine.splits("flights") == {THIRD: 100}
    assert component(machine) == (THIRD, FIRST)
    machine.assert_settled()


def test_a_hundred_percent_is_a_promotion() -> None:
    machine = Machine()
    change(machine, "v1", None)
    change(machine, "v2", 10)
    change(machine, "v2", 100)
    assert shares(machine) == [(SECOND, 100, True)]
    assert component(machine) == (SECOND, FIRST)
    assert machine.pods(FIRST) == []
    # Taking the field away changes nothing more.
    before = machine.get(kinds.KNATIVE_SERVICE, "flights-predictor")["metadata"]["generation"]
    change(machine, "v2", None)
    assert machine.get(kinds.KNATIVE_SERVICE, "flights-predictor")["metadata"]["generation"] == before
    assert component(machine) == (SECOND, FIRST)


def test_back_to_the_first_image_in_the_middle_of_a_canary_is_a_third_revision() -> None:
    machine = Machine()
    change(machine, "v1", None)
    change(machine, "v2", 30)
    change(machine, "v1", 30)
    assert machine.splits("flights") == {FIRST: 70, THIRD: 30}
    assert component(machine) == (FIRST, None)


def test_a_canary_that_fails_is_reported_and_takes_nothing_until_it_is_replaced() -> None:
    machine = Machine()
    change(machine, "v1", None, annotations=TAGS)
    change(machine, f"v2-{CRASH}", 10, annotations=TAGS)
    machine.advance(1000)
    assert machine.splits("flights") == {FIRST: 100}
    assert len(machine.pods(FIRST)) == 1
    # Whoever asks for the latest gets the latest that was ever ready.
    assert dict(route(machine, "flights").tags)["latest"] == f"default/{FIRST}"
    status, reason, message = machine.condition(kinds.INFERENCE_SERVICE, "flights", "PredictorReady")
    assert (status, reason) == ("False", "RevisionFailed")
    assert SECOND in message
    assert machine.condition(kinds.INFERENCE_SERVICE, "flights", "LatestDeploymentReady")[0] == "False"
    assert machine.condition(kinds.INFERENCE_SERVICE, "flights", "PredictorRouteReady")[0] == "True"
    assert component(machine) == (FIRST, None)
    change(machine, "v3", 10, annotations=TAGS)
    assert machine.splits("flights") == {FIRST: 90, THIRD: 10}
    assert machine.condition(kinds.INFERENCE_SERVICE, "flights")[0] == "True"


def test_the_percentage_of_one_component_is_its_own() -> None:
    machine = Machine()

    def apply(image: str, predictor: int | None, transformer: int | None) -> None:
        parts: list[dict[str, Any]] = [{"containers": [{"image": image}]} for _ in range(2)]
        for part, percent in zip(parts, (predictor, transformer), strict=True):
            if percent is not None:
                part["canaryTrafficPercent"] = percent
        isvc = inference_service(predictor=parts[0], transformer=parts[1])
        machine.apply(kinds.INFERENCE_SERVICE, isvc)
        machine.advance(30)

    apply("v1", None, None)
    apply("v2", 20, 40)
    assert machine.splits("flights-predictor") == {FIRST: 80, SECOND: 20}
    # The InferenceService's own address is the transformer's.
    expected = {"flights-transformer-00001": 60, "flights-transformer-00002": 40}
    assert machine.splits("flights-transformer") == machine.splits("flights") == expected
    assert dict(route(machine, "flights").tags) == {"prev": "default/flights-transformer-00001"}


def test_the_header_s_tags_are_those_of_the_route_and_of_whoever_answers_for_it() -> None:
    machine = Machine()
    change(machine, "v1", None, annotations=TAGS)
    change(machine, "v2", 10, annotations=TAGS)
    expected = {"latest": f"default/{SECOND}", "prev": f"default/{FIRST}"}
    assert dict(route(machine, "flights-predictor").tags) == dict(route(machine, "flights").tags) == expected
    for tag, revision in expected.items():
        own = route(machine, f"{tag}-flights-predictor")
        assert (own.tag, own.tags) == (tag, ())
        assert [(split.revision, split.percent) for split in own.splits] == [(revision, 100)]
    change(machine, "v2", None, annotations=TAGS)
    assert dict(route(machine, "flights").tags) == {"latest": f"default/{SECOND}"}


def test_without_tags_or_affinity_an_entry_is_as_plain_as_ever() -> None:
    machine = Machine()
    change(machine, "v1", None)
    found = route(machine, "flights")
    assert (found.tags, found.tag, found.affinity) == ((), "", None)


def test_a_tag_whose_own_address_is_taken_is_still_there_by_header() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:1"))
    machine.apply(kinds.KNATIVE_SERVICE, knative_service("blue-web", image="other"))
    machine.settle()
    traffic = [
        {"latestRevision": True, "percent": 100},
        {"revisionName": "web-00001", "latestRevision": False, "percent": 0, "tag": "blue"},
    ]
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:2", traffic=traffic))
    machine.advance(60)
    assert machine.splits("blue-web") == {"blue-web-00001": 100}
    assert machine.splits("web") == {"web-00002": 100}
    assert route(machine, "web").tags == (("blue", "default/web-00001"),)
    # What the header leads to must be in the table.
    assert "default/web-00001" in [backend.revision for backend in machine.tables[-1].backends]


def test_several_tags_on_one_revision() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:1"))
    machine.settle()
    traffic = [
        {"latestRevision": True, "percent": 60, "tag": "current"},
        {"revisionName": "web-00001", "latestRevision": False, "percent": 40, "tag": "first"},
        {"revisionName": "web-00001", "latestRevision": False, "percent": 0, "tag": "stable"},
    ]
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:1", traffic=traffic))
    machine.settle()
    assert machine.splits("web") == {"web-00001": 100}
    assert {tag for tag, _ in route(machine, "web").tags} == {"current", "first", "stable"}
    status = machine.get(kinds.ROUTE, "web")["status"]["traffic"]
    assert [(target["tag"], target["percent"], target["latestRevision"]) for target in status] == [
        ("current", 60, True),
        ("first", 40, False),
        ("stable", 0, False),
    ]


class TestAffinity:
    USER = Affinity(Source.HEADER, "x-user-id")

    def test_it_reaches_every_address_and_makes_no_revision(self) -> None:
        machine = Machine()
        change(machine, "v1", None)
        change(machine, "v2", 10)
        change(machine, "v2", 10, annotations={names.CANARY_AFFINITY: "header:X-User-Id"})
        assert route(machine, "flights").affinity == self.USER
        assert route(machine, "flights-predictor").affinity == self.USER
        # Where there is no choice there is nothing to know a caller by.
        assert route(machine, "prev-flights-predictor").affinity is None
        assert machine.names(kinds.REVISION) == [FIRST, SECOND]
        change(machine, "v2", 10)
        assert route(machine, "flights").affinity is None
        assert machine.names(kinds.REVISION) == [FIRST, SECOND]
        machine.assert_settled()

    def test_a_knative_service_may_ask_for_it_too(self) -> None:
        machine = Machine()
        service = knative_service()
        service["metadata"]["annotations"] = {names.CANARY_AFFINITY: "cookie:session"}
        machine.apply(kinds.KNATIVE_SERVICE, service)
        machine.settle()
        assert route(machine, "web").affinity == Affinity(Source.COOKIE, "session")

    @pytest.mark.parametrize("value", ["x-user-id", "header:"])
    def test_one_that_came_past_admission_is_reported(self, value: str) -> None:
        machine = Machine()
        change(machine, "v1", None, annotations={names.CANARY_AFFINITY: value})
        status = machine.get(kinds.INFERENCE_SERVICE, "flights")["status"]
        said = status["modelStatus"]["lastFailureInfo"]["message"]
        assert names.CANARY_AFFINITY in said and "header:<name> or cookie:<name>" in said


@dataclass
class KServe:
    """What KServe's reconciler and its PropagateStatus come to, written down from their source: revisions by number."""

    created: int = 0
    ready: int = 0
    rolled_out: int = 0
    previous: int = 0
    traffic: list[tuple[int, int, bool]] = field(default_factory=list)

    def change(self, percent: int | None, is_new: bool, is_good: bool) -> None:
        if is_new:
            # Until it is ready the latest is the one before it, which the new percentage is for by then.
            self.created += 1
            self._settle(percent)
            self.ready = self.created if is_good else self.ready
        self._settle(percent)

    def _settle(self, percent: int | None) -> None:
        before = None
        while before != (self.rolled_out, self.previous):
            before = (self.rolled_out, self.previous)
            if percent is not None and self.rolled_out:
                self.traffic = [(self.ready, percent, True)]
                if percent < 100:
                    self.traffic.append((self.rolled_out, 100 - percent, False))
            else:
                self.traffic = [(self.ready, 100, True)]
            if self.ready:
                self._propagate()

    def _propagate(self) -> None:
        percent = self.traffic[0][1]
        share = sum(part for revision, part, _ in self.traffic if revision == self.ready)
        if self.rolled_out != self.ready:
            if percent == 100:
                self.previous, self.rolled_out = self.rolled_out, self.ready
        elif self.ready == self.created and percent < 100 and share == 100 and self.previous:
            self.rolled_out = self.previous


PERCENTS = st.sampled_from([None, 0, 1, 10, 50, 99, 100])


# Explaining a failure takes a minute and tells no more than the steps do.
@settings(max_examples=25, deadline=None, phases=set(Phase) - {Phase.explain})
@given(st.lists(st.tuples(PERCENTS, st.sampled_from(["same", "new", "broken"])), min_size=1, max_size=5))
def test_any_order_of_changes_ends_where_kserve_s_does(steps: list[tuple[int | None, str]]) -> None:
    machine, kserve = Machine(), KServe()
    image = "v0"
    change(machine, image, None)
    kserve.change(None, is_new=True, is_good=True)
    for number, (percent, what) in enumerate(steps, 1):
        if what != "same":
            image = f"v{number}" if what == "new" else f"v{number}-{CRASH}"
        change(machine, image, percent)
        kserve.change(percent, is_new=what != "same", is_good=what == "new")

        def name(revision: int) -> str | None:
            return f"flights-predictor-{revision:05d}" if revision else None

        assert component(machine) == (name(kserve.rolled_out), name(kserve.previous))
        assert shares(machine) == [(name(revision), *rest) for revision, *rest in kserve.traffic]
        wanted: Counter[str | None] = Counter()
        for revision, percent_of_it, _ in kserve.traffic:
            wanted[name(revision)] += percent_of_it
        assert machine.splits("flights") == dict(+wanted)
