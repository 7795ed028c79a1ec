"""The controller against an API in memory, in virtual time: what it writes, in which order, and what it puts back."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from glowplug.errors import AlreadyExists, ApiError, Conflict, NotFound
from glowplug.warmfloor.controller import Controller, ControllerConfig
from glowplug.warmfloor.demand import NoDemand, Readings

Object = dict[str, Any]
MIN = "autoscaling.knative.dev/min-scale"
SPACE = "/apis/serving.knative.dev/v1/namespaces/default/revisions"
REVISION = f"{SPACE}/f-predictor-00001"
STATE = "/api/v1/namespaces/default/configmaps/f-warm-floor"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/glowplug-warm-floor"
ISVC = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/f"


class FakeApi:
    """Objects by path. `fails_at` is a path whose next write does not arrive."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[str] = []
        self.events: list[Object] = []
        self.fails_at = ""
        self.version = 0

    async def get(self, path: str, **params: str) -> Object:
        if path == "/api/v1/configmaps":
            return {
                "items": [copy.deepcopy(each) for key, each in self.objects.items() if "/configmaps/" in key]
            }
        if path in (SPACE, "/api/v1/namespaces/default/pods"):
            return {
                "items": [
                    copy.deepcopy(each) for key, each in self.objects.items() if key.startswith(f"{path}/")
                ]
            }
        if path not in self.objects:
            raise NotFound(path)
        return copy.deepcopy(self.objects[path])

    async def create(self, path: str, body: Object) -> Object:
        if path.endswith("/events"):
            self.events.append(body)
            return body
        path = f"{path}/{body['metadata']['name']}"
        if path in self.objects:
            raise AlreadyExists(path)
        return self._write(path, body)

    async def replace(self, path: str, body: Object) -> Object:
        if body["metadata"].get("resourceVersion") != self.objects[path]["metadata"].get("resourceVersion"):
            raise Conflict(path)
        return self._write(path, body)

    async def merge(self, path: str, patch: Object) -> Object:
        return self._write(path, merged(await self.get(path), patch))

    async def delete(self, path: str) -> None:
        self.writes.append(f"-{path}")
        self.objects.pop(path, None)

    def _write(self, path: str, body: Object) -> Object:
        if path == self.fails_at:
            self.fails_at = ""
            raise OSError("cut off")
        self.version += 1
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path] = body
        if path != LEASE:
            self.writes.append(path)
        return copy.deepcopy(body)


def merged(found: Object, patch: Object) -> Object:
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            found[key] = merged(found.get(key) or {}, value)
        else:
            found[key] = value
    return found


class Source:
    """What the demand is said to be."""

    def __init__(self) -> None:
        self.answer: Readings | NoDemand | Exception = Readings({})

    def say(self, concurrency: float) -> None:
        self.answer = Readings({"default/f-predictor-00001": {"concurrency": concurrency}})

    async def read(self, now: float) -> Readings | NoDemand:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Lab:
    """One InferenceService `f` with one revision, and controllers in virtual time."""

    def __init__(self) -> None:
        self.api, self.source, self.now = FakeApi(), Source(), 1_000_000.0
        self.isvc: Object = {
            "metadata": {
                "name": "f", "namespace": "default", "uid": "u",
                "annotations": {"glowplug.dev/warm-floor": "true", "glowplug.dev/warm-floor-max": "5"},
            },
            "status": {"components": {"predictor": {"latestReadyRevision": "f-predictor-00001"}}},
        }  # fmt: skip
        self.api.objects[ISVC] = self.isvc
        self.api.objects[REVISION] = {
            "metadata": {"name": "f-predictor-00001", "annotations": {MIN: "1"}},
            "spec": {"containerConcurrency": 10},
        }

    def controller(self, identity: str = "a") -> Controller:
        found = Controller(self.api, self.source, ControllerConfig(identity), lambda: self.now)  # type: ignore[arg-type]
        found.saw(copy.deepcopy(self.isvc), is_gone=False)
        return found

    async def steps(self, controller: Controller, count: int = 1) -> None:
        for _ in range(count):
            self.now += 5
            await controller.step(self.now)

    @property
    def min_scale(self) -> str | None:
        found: str | None = self.api.objects[REVISION]["metadata"]["annotations"].get(MIN)
        return found

    def set_min_scale(self, value: str) -> None:
        self.api.objects[REVISION]["metadata"]["annotations"][MIN] = value

    def annotate(self, controller: Controller, **annotations: str) -> None:
        self.isvc["metadata"]["annotations"] = {
            f"glowplug.dev/{key.replace('_', '-')}": value for key, value in annotations.items()
        }
        controller.saw(copy.deepcopy(self.isvc), is_gone=False)

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.api.events]


@pytest.fixture
def lab() -> Lab:
    return Lab()


async def raised(lab: Lab, identity: str = "a") -> Controller:
    controller = lab.controller(identity)
    lab.source.say(20.0)
    await lab.steps(controller, 4)
    assert lab.min_scale == "3"
    return controller


async def test_what_stood_there_is_written_down_before_the_revision_is_touched(lab: Lab) -> None:
    await raised(lab)
    assert lab.api.writes[0] == STATE and lab.api.writes.index(STATE) < lab.api.writes.index(REVISION)
    grips = json.loads(lab.api.objects[STATE]["data"]["grips"])
    assert grips["f-predictor-00001"]["own"] == "1"
    owner = lab.api.objects[STATE]["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"]) == ("InferenceService", "u")
    assert lab.reasons().count("WarmFloorRaised") == 1
    assert "min-scale of f-predictor-00001 1 → 3: demand of up to 20" in lab.api.events[-1]["message"]


async def test_nothing_but_the_min_scale_is_written_on_a_revision_and_nothing_on_the_service(
    lab: Lab,
) -> None:
    before = copy.deepcopy(lab.api.objects)
    await raised(lab)
    after = lab.api.objects[REVISION]
    assert after["metadata"]["annotations"] == {MIN: "3"}
    assert set(after["metadata"]) - {"resourceVersion"} == set(before[REVISION]["metadata"])
    assert after["spec"] == before[REVISION]["spec"]
    assert lab.api.objects[ISVC] == before[ISVC]
    assert ISVC not in lab.api.writes


async def test_it_falls_again_and_ticks_without_change_write_nothing(lab: Lab) -> None:
    controller = await raised(lab)
    count, told = len(lab.api.writes), len(lab.api.events)
    await lab.steps(controller, 8)
    assert len(lab.api.writes) == count and len(lab.api.events) == told
    lab.source.say(0.0)
    await lab.steps(controller, 60)
    assert lab.min_scale == "1", "its user's own"
    assert lab.reasons()[-1] == "WarmFloorLowered"


async def test_a_clean_stop_puts_back_what_was_there_and_gives_the_lease_away(lab: Lab) -> None:
    controller = await raised(lab)
    await controller.close()
    assert lab.min_scale == "1"
    assert lab.api.objects[LEASE]["spec"]["holderIdentity"] == ""
    assert json.loads(lab.api.objects[STATE]["data"]["grips"]) == {}
    assert "predictor" in json.loads(lab.api.objects[STATE]["data"]["state"]), "what was learned is kept"


async def test_after_a_crash_another_one_takes_over_what_it_finds(lab: Lab) -> None:
    await raised(lab)
    successor = lab.controller("b")
    lab.source.say(0.0)
    await lab.steps(successor, 2)
    assert lab.min_scale == "3" and lab.api.objects[LEASE]["spec"]["holderIdentity"] == "a"
    await lab.steps(successor, 60)
    assert lab.api.objects[LEASE]["spec"]["holderIdentity"] == "b"
    assert lab.min_scale == "1"


@pytest.mark.parametrize("path", [STATE, REVISION])
async def test_a_crash_between_the_two_writes_loses_nothing(lab: Lab, path: str) -> None:
    first = lab.controller("a")
    lab.source.say(20.0)
    lab.api.fails_at = path
    await lab.steps(first)
    lab.now += 60
    second = lab.controller("b")
    await lab.steps(second, 8)
    assert lab.min_scale == "3"
    await second.close()
    assert lab.min_scale == "1"


async def test_a_crash_while_it_moves_on_does_not_take_the_old_floor_for_the_users(lab: Lab) -> None:
    first = await raised(lab)
    lab.source.say(30.0)
    lab.api.fails_at = REVISION
    await lab.steps(first, 1)
    assert lab.min_scale == "3"
    lab.now += 60
    second = lab.controller("b")
    await lab.steps(second, 8)
    await second.close()
    assert lab.min_scale == "1"


async def test_switched_off_or_gone_while_nobody_ran(lab: Lab) -> None:
    await raised(lab)
    lab.isvc["metadata"]["annotations"] = {}
    lab.now += 60
    other = Controller(lab.api, lab.source, ControllerConfig("b"), lambda: lab.now)  # type: ignore[arg-type]
    other.saw(copy.deepcopy(lab.isvc), is_gone=False)
    await lab.steps(other, 8)
    assert lab.min_scale == "1"
    assert STATE not in lab.api.objects and lab.reasons()[-1] == "WarmFloorOff"


async def test_switched_off_while_it_runs(lab: Lab) -> None:
    controller = await raised(lab)
    lab.annotate(controller, warm_floor="false")
    await lab.steps(controller)
    assert lab.min_scale == "1" and STATE not in lab.api.objects
    lab.annotate(controller, warm_floor="true")
    await lab.steps(controller, 3)
    assert lab.min_scale == "3"


async def test_its_user_may_change_min_scale_meanwhile(lab: Lab) -> None:
    controller = await raised(lab)
    lab.set_min_scale("4")
    await lab.steps(controller)
    assert lab.min_scale == "4", "more than the floor"
    await controller.close()
    assert lab.min_scale == "4"


async def test_wrong_values_are_told_once_and_change_nothing(lab: Lab) -> None:
    controller = await raised(lab)
    lab.annotate(controller, warm_floor="true", warm_floor_max="many")
    lab.source.say(30.0)
    await lab.steps(controller, 10)
    assert lab.reasons().count("WarmFloorInvalid") == 1
    assert lab.min_scale == "5", "the settings from before hold on"
    fresh = Lab()
    newcomer = fresh.controller()
    fresh.annotate(newcomer, warm_floor="true", warm_floor_min="x")
    await fresh.steps(newcomer, 3)
    assert fresh.min_scale == "1" and fresh.reasons() == ["WarmFloorInvalid"]
    assert STATE not in fresh.api.objects


async def test_without_measurements_the_floor_is_held_and_that_is_said_once(lab: Lab) -> None:
    controller = await raised(lab)
    lab.source.answer = OSError("refused")
    await lab.steps(controller, 100)
    assert lab.min_scale == "3"
    told = [event for event in lab.api.events if event["reason"] == "WarmFloorNoDemand"]
    assert len(told) == 1 and "refused" in told[0]["message"] and told[0]["type"] == "Warning"


async def test_two_never_write_both(lab: Lab) -> None:
    first, second = lab.controller("a"), lab.controller("b")
    lab.source.say(20.0)
    for _ in range(10):
        await lab.steps(first)
        await lab.steps(second)
    assert lab.api.objects[LEASE]["spec"]["leaseTransitions"] == 1
    assert lab.api.writes.count(REVISION) == 1


async def test_a_new_revision_takes_over_and_the_old_one_gets_its_own_back(lab: Lab) -> None:
    controller = await raised(lab)
    new = copy.deepcopy(lab.api.objects[REVISION])
    new["metadata"].update(name="f-predictor-00002", annotations={MIN: "0"})
    lab.api.objects[f"{SPACE}/f-predictor-00002"] = new
    traffic = [{"revisionName": "f-predictor-00002", "percent": 100}]
    lab.isvc["status"]["components"]["predictor"] = {"traffic": traffic}
    controller.saw(copy.deepcopy(lab.isvc), is_gone=False)
    lab.source.answer = Readings({"default/f-predictor-00002": {"concurrency": 20.0}})
    await lab.steps(controller)
    assert lab.min_scale == "1"
    # At once: what is known is known of the service, not of the revision.
    assert lab.api.objects[f"{SPACE}/f-predictor-00002"]["metadata"]["annotations"][MIN] == "3"


async def test_its_report_says_what_it_costs(lab: Lab) -> None:
    controller = await raised(lab)
    pod = {
        "metadata": {
            "name": "p", "creationTimestamp": "2026-11-22T01:00:00Z", "labels": {"component": "predictor"},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T01:00:08Z"}]},
    }  # fmt: skip
    lab.api.objects["/api/v1/namespaces/default/pods/p"] = pod
    await lab.steps(controller, 30)
    report = json.loads(lab.api.objects[STATE]["data"]["report"])["components"]["predictor"]
    assert (report["floor"], report["startSeconds"], report["starts"]) == (3, 8.0, 1)
    account = report["account"]
    assert account["seconds"] > 60
    # One ready pod of ten for a demand of twenty: most of it waits, and that is what it says.
    assert account["replicaSeconds"] == pytest.approx(account["seconds"], abs=20)
    assert account["lateShare"] > 0.5 > account["reactiveLateShare"]
    assert account["reactiveReplicaSeconds"] > account["replicaSeconds"]


async def test_an_event_that_is_refused_stops_nothing(lab: Lab) -> None:
    async def refuse(path: str, body: Object) -> Object:
        if path.endswith("/events"):
            raise ApiError("no events here")
        return await FakeApi.create(lab.api, path, body)

    lab.api.create = refuse  # type: ignore[method-assign]
    await raised(lab)
