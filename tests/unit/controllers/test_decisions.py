"""The small pure decisions: conditions, names, the queue, which pods to end, deadlines, the model's state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.controllers import conditions
from glowplug.controllers.conditions import Condition
from glowplug.controllers.config import ControllersConfig
from glowplug.controllers.inferenceservice.modelstatus import model_status
from glowplug.controllers.keys import Key
from glowplug.controllers.knative.pods import PodPlan, find_trouble, plan_pods
from glowplug.controllers.knative.scaling import Bounds, Phase, first_scale, progress_deadline
from glowplug.controllers.metadata import child_name, seconds, timestamp
from glowplug.controllers.queue import WorkQueue
from glowplug.controllers.table import Confirmation, RouteBook, Traffic
from glowplug.spec import kinds
from glowplug.spec.routes import Split

NOW = 1_770_000_000.0
STATUSES = st.sampled_from(["True", "False", "Unknown"])


class TestConditions:
    @given(st.dictionaries(st.sampled_from(["A", "B", "C", "Note"]), STATUSES))
    def test_ready_follows_its_dependents(self, found: dict[str, str]) -> None:
        wanted = [Condition(type, status, "R" + type) for type, status in found.items()]
        settled = conditions.settle(None, wanted, ("A", "B", "C"), NOW)
        by_type = {entry["type"]: entry for entry in settled}
        of_dependents = [found.get(type, "Unknown") for type in ("A", "B", "C")]
        expected = next((s for s in ("False", "Unknown") if s in of_dependents), "True")
        assert by_type["Ready"]["status"] == expected
        assert [entry["type"] for entry in settled] == sorted(by_type)
        assert {"A", "B", "C", "Ready"} <= set(by_type)
        assert ("severity" in by_type["Note"]) if "Note" in found else True
        again = conditions.settle(settled, wanted, ("A", "B", "C"), NOW + 100)
        assert again == settled

    def test_the_one_that_changed_last_gives_the_reason(self) -> None:
        first = conditions.settle(None, [conditions.false("A", "old"), conditions.true("B")], ("A", "B"), NOW)
        wanted = [conditions.false("A", "old"), conditions.false("B", "new")]
        second = {e["type"]: e for e in conditions.settle(first, wanted, ("A", "B"), NOW + 5)}
        assert second["Ready"]["reason"] == "new"
        assert second["A"]["lastTransitionTime"] == timestamp(NOW)
        assert second["B"]["lastTransitionTime"] == timestamp(NOW + 5)


class TestNames:
    def test_short_names_are_as_they_are(self) -> None:
        assert child_name("web", "-00001") == "web-00001"

    @given(st.text("abc-", min_size=1, max_size=80), st.text("abc-", max_size=70))
    def test_names_fit_and_differ(self, parent: str, suffix: str) -> None:
        name = child_name(parent, suffix)
        assert len(name) <= 63
        if len(parent + suffix) > 63:
            assert child_name(parent + "x", suffix) != name

    def test_times_go_back_and_forth(self) -> None:
        assert seconds(timestamp(NOW)) == NOW
        assert seconds("2026-02-02T02:40:00.500Z") == seconds("2026-02-02T02:40:00Z") + 0.5  # type: ignore[operator]
        assert seconds("yesterday") is None and seconds(None) is None


class TestQueue:
    def key(self, name: str) -> Key:
        return Key(kinds.REVISION, "default", name)

    def test_a_key_waits_once(self) -> None:
        queue = WorkQueue(1, 60)
        for name in ("a", "b", "a"):
            queue.add(self.key(name))
        assert [queue.next(0), queue.next(0), queue.next(0)] == [self.key("a"), self.key("b"), None]

    def test_the_earliest_timer_counts(self) -> None:
        queue = WorkQueue(1, 60)
        for due in (9.0, 5.0, 7.0):
            queue.add_at(self.key("a"), due)
        assert queue.next_due() == 5.0
        assert queue.next(4.9) is None
        assert queue.next(5.0) == self.key("a")
        assert queue.next_due() is None

    def test_back_off_doubles_to_its_bound_and_ends_with_success(self) -> None:
        queue = WorkQueue(1, 10)
        assert [queue.retry(self.key("a"), 0) for _ in range(6)] == [1, 2, 4, 8, 10, 10]
        queue.succeed(self.key("a"))
        assert queue.retry(self.key("a"), 0) == 1

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=20))
    def test_every_key_comes_at_its_earliest_time(self, timers: list[tuple[str, int]]) -> None:
        queue = WorkQueue(1, 60)
        for name, due in timers:
            queue.add_at(self.key(name), float(due))
        seen: dict[str, float] = {}
        for now in range(21):
            while (key := queue.next(float(now))) is not None:
                seen.setdefault(key.name, float(now))
        assert seen == {name: float(min(d for n, d in timers if n == name)) for name, _ in timers}
        assert queue.next_due() is None


def pod(name: str, ready: bool = False, age: float = 100, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": timestamp(NOW - age)},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}], **status},
    }


class TestPods:
    def test_not_ready_ones_go_first_then_the_newest(self) -> None:
        pods = [pod("old", True, 300), pod("new", True, 10), pod("sick", False, 500), pod("mid", True, 100)]
        assert plan_pods(pods, 2, NOW, 10).delete == ("sick", "new")
        assert plan_pods(pods, 0, NOW, 10).delete == ("sick", "new", "mid", "old")
        assert plan_pods(pods, 6, NOW, 10) == PodPlan(create=2)

    def test_those_on_their_way_out_count_for_nothing(self) -> None:
        leaving = pod("a", True)
        leaving["metadata"]["deletionTimestamp"] = timestamp(NOW)
        assert plan_pods([leaving], 1, NOW, 10) == PodPlan(create=1)

    def test_one_that_failed_and_rests_goes_before_one_that_works(self) -> None:
        pods = [pod("a", True), pod("b", age=4, phase="Failed"), pod("c", False)]
        assert plan_pods(pods, 2, NOW, 10) == PodPlan(delete=("b",))

    def test_a_failed_one_is_replaced_after_its_back_off(self) -> None:
        assert plan_pods([pod("a", age=4, phase="Failed")], 1, NOW, 10) == PodPlan(due=NOW + 6)
        assert plan_pods([pod("a", age=10, phase="Failed")], 1, NOW, 10) == PodPlan(create=1, delete=("a",))
        assert plan_pods([pod("a", age=4, phase="Failed")], 0, NOW, 10) == PodPlan(delete=("a",))

    @given(
        st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.booleans(), st.booleans()), max_size=8),
        st.integers(0, 6),
    )
    def test_the_step_leads_to_the_scale(
        self, found: list[tuple[bool, int, bool, bool]], desired: int
    ) -> None:
        pods = []
        for number, (ready, age, has_failed, is_leaving) in enumerate(found):
            made = pod(f"p{number}", ready, age, **({"phase": "Failed"} if has_failed else {}))
            if is_leaving:
                made["metadata"]["deletionTimestamp"] = timestamp(NOW)
            pods.append(made)
        plan = plan_pods(pods, desired, NOW, 10)
        live = [p for p in pods if "deletionTimestamp" not in p["metadata"]]
        assert len(live) - len(plan.delete) + plan.create == desired
        assert not (
            plan.create and any(not is_failed(p) for p in pods if p["metadata"]["name"] in plan.delete)
        )
        assert plan.due is None or plan.due > NOW

    def test_a_failure_is_told_before_a_wait(self) -> None:
        waiting = {
            "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no ConfigMap x"}}
        }
        crashed = {"lastState": {"terminated": {"exitCode": 0}}, "state": {"running": {}}}
        pods = [pod("a", containerStatuses=[waiting]), pod("b", containerStatuses=[crashed])]
        trouble = find_trouble(pods)
        assert trouble is not None and trouble.is_failure
        assert trouble.message == "Container failed with: container exited with no error"
        trouble = find_trouble(pods[:1])
        assert (
            trouble is not None and not trouble.is_failure and trouble.reason == "CreateContainerConfigError"
        )

    def test_a_finished_download_is_no_failure(self) -> None:
        done = {
            "name": "storage-initializer",
            "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
        }
        assert find_trouble([pod("a", initContainerStatuses=[done])]) is None


def is_failed(found: dict[str, Any]) -> bool:
    return bool(found["status"].get("phase") == "Failed")


class TestScaling:
    @pytest.mark.parametrize(
        ("bounds", "phase", "is_reachable", "expected"),
        [
            (Bounds(0, 1), Phase(False, False, None), True, 1),
            (Bounds(2, 1), Phase(False, False, None), True, 2),
            (Bounds(1, 4), Phase(False, False, None), True, 4),
            (Bounds(0, 0), Phase(False, False, None), True, 0),
            (Bounds(3, 1), Phase(True, False, None), False, 0),
            (Bounds(3, 1), Phase(False, True, None), True, 0),
        ],
    )
    def test_the_number_until_the_load_counts(
        self, bounds: Bounds, phase: Phase, is_reachable: bool, expected: int
    ) -> None:
        scale = first_scale(bounds, phase, is_reachable)
        assert scale is not None
        assert scale.pods == expected and scale.reason
        is_starting = is_reachable and not phase.has_failed
        assert scale.desired == (-1 if is_starting else 0)
        assert scale.is_held is not phase.has_failed

    def test_once_it_is_initialized_the_autoscaler_is_asked(self) -> None:
        assert first_scale(Bounds(3, 1), Phase(True, False, None), True) is None

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("90s", 90), ("1m30s", 90), ("1.5h", 5400), ("500ms", 0.5), ("soon", 600), ("", 600)],
    )
    def test_the_progress_deadline(self, text: str, expected: float) -> None:
        revision = {"metadata": {"annotations": {"serving.knative.dev/progress-deadline": text}}}
        assert progress_deadline(revision, 600) == expected


def confirmation(route: str, *left: str) -> Confirmation:
    return Confirmation(frozenset({("n", route)}), frozenset(), frozenset(left))


class TestBook:
    def test_a_name_is_taken_once(self) -> None:
        book = RouteBook(ControllersConfig())
        book.set_route("n", "a-b", Traffic((Split("n/r1", 100),)))
        book.set_route("n", "b", Traffic((Split("n/r2", 100),), (("a", "n/r3"),)))
        book.set_alias("n", "a-b", "b")
        book.set_alias("n", "c", "b")
        book.set_alias("n", "d", "absent")
        table, _ = book.snapshot()
        assert {route.name: route.splits[0].revision for route in table.routes} == {
            "a-b": "n/r1",
            "b": "n/r2",
            "c": "n/r2",
        }

    def test_a_revision_is_routed_until_the_router_confirms_that_it_is_not(self) -> None:
        book = RouteBook(ControllersConfig())
        book.set_route("n", "a", Traffic((Split("n/r1", 100),)))
        assert book.confirm(book.snapshot()[1]) == confirmation("a")
        assert book.is_confirmed("n", "a")
        book.set_route("n", "a", Traffic((Split("n/r2", 100),)))
        assert book.is_routed("n/r1") and book.is_routed("n/r2") and not book.is_confirmed("n", "a")
        published = book.snapshot()[1]
        assert book.confirm(published) == confirmation("a", "n/r1")
        assert not book.is_routed("n/r1") and book.is_confirmed("n", "a")
        book.set_route("n", "a", None)
        assert book.is_routed("n/r2")
        assert book.confirm(book.snapshot()[1]) == confirmation("a", "n/r2")

    def test_pods_of_a_revision_without_routes_publish_nothing(self) -> None:
        book = RouteBook(ControllersConfig())
        book.snapshot()
        book.set_backend("n/r", None)
        assert not book.is_dirty


class TestModelStatus:
    def pod(self, **status: Any) -> dict[str, Any]:
        return {"metadata": {"name": "p"}, "status": status}

    def test_no_pod_yet(self) -> None:
        status = model_status(None, [], None, False, False)
        assert status == {
            "copies": {"failedCopies": 0},
            "states": {"activeModelState": "", "targetModelState": "Pending"},
            "transitionStatus": "InProgress",
        }
        service = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        assert model_status(status, [], service, False, False)["transitionStatus"] == "BlockedByFailedLoad"

    def test_downloading_then_loading_then_loaded(self) -> None:
        downloading = self.pod(
            initContainerStatuses=[{"name": "storage-initializer", "state": {"running": {}}}]
        )
        status = model_status(None, [downloading], None, False, False)
        assert status["states"]["targetModelState"] == "Loading"
        running = self.pod(containerStatuses=[{"name": "kserve-container", "state": {"running": {}}}])
        assert model_status(status, [running], None, False, True)["states"]["targetModelState"] == "Pending"
        ready = self.pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}])
        status = model_status(status, [ready], None, True, True)
        assert status["states"] == {"activeModelState": "Loaded", "targetModelState": "Loaded"}
        assert status["copies"] == {"failedCopies": 0, "totalCopies": 1}
        newer = model_status(status, [downloading], None, True, False)
        assert newer["states"] == {"activeModelState": "Loaded", "targetModelState": "Loading"}

    def test_between_two_attempts_nothing_is_decided(self) -> None:
        container = {
            "name": "storage-initializer",
            "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
        }
        before = {
            "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
            "transitionStatus": "x",
        }
        after = model_status(before, [self.pod(initContainerStatuses=[container])], None, False, False)
        assert after == {**before, "copies": {"failedCopies": 0}}
