"""The controller against an API in memory, in virtual time: cut off at any write, two at a time, told or not."""

from __future__ import annotations

import asyncio
import copy
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.rollout.rollout_lab import KServe, container, service

from glowplug.errors import AlreadyExists, Conflict, NotFound
from glowplug.rollout import record
from glowplug.rollout.admission import admit
from glowplug.rollout.announcer import Announcer
from glowplug.rollout.controller import Controller, ControllerConfig, wants_attention
from glowplug.rollout.evidence import Evidence, Histogram, NoEvidence, Sample
from glowplug.rollout.sink import CloudEvent
from glowplug.rollout.state import Phase, State
from glowplug.spec import names

Object = dict[str, Any]
ISVC = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/f"
METRICS = frozenset({"errors", "latency"})
CANARY, STABLE = "default/f-predictor-00002", "default/f-predictor-00001"


class Cut(BaseException):
    """The process is killed."""


class FakeApi:
    """One InferenceService, with leases and events. `cuts` are the numbers of writes at which the process is killed,
    before the write where negative, after it where positive."""

    def __init__(self, kserve: KServe) -> None:
        self.kserve = kserve
        self.others: dict[str, Object] = {}
        self.events: list[Object] = []
        self.pods: list[Object] = []
        self.cuts: set[int] = set()
        self.writes = 0
        self.patches: list[Object] = []

    async def get(self, path: str, **params: str) -> Object:
        if path == ISVC:
            return copy.deepcopy(self.kserve.isvc)
        if path.endswith("/services"):
            return {"items": self.kserve.knative_services()}
        if path.endswith("/pods"):
            return {"items": copy.deepcopy(self.pods)}
        revision = self.kserve.revision(path.rpartition("/")[2]) if "/revisions/" in path else None
        if revision is None and path not in self.others:
            raise NotFound(path)
        return revision or copy.deepcopy(self.others[path])

    async def create(self, path: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        if path.endswith("/events"):
            if any(event["metadata"]["name"] == name for event in self.events):
                raise AlreadyExists(name)
            with_cut = self._cutting()
            self.events.append(body)
            with_cut()
            return body
        self.others[f"{path}/{name}"] = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
        return body

    async def replace(self, path: str, body: Object) -> Object:
        if path not in self.others:
            raise NotFound(path)
        self.others[path] = copy.deepcopy(body)
        return body

    async def merge(self, path: str, patch: Object) -> Object:
        isvc = self.kserve.isvc
        if patch["metadata"].get("resourceVersion") != isvc["metadata"]["resourceVersion"]:
            raise Conflict(path)
        with_cut = self._cutting()
        self.patches.append(copy.deepcopy(patch))
        merge(isvc, {key: value for key, value in patch.items() if key != "metadata"})
        merge(isvc["metadata"], {"annotations": patch["metadata"].get("annotations") or {}})
        self.wrote()
        with_cut()
        return copy.deepcopy(isvc)

    def wrote(self) -> None:
        metadata = self.kserve.isvc["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        self.kserve.settle()

    def apply(self, change: Any, now: float, *, has_webhook: bool = True) -> None:
        """Somebody writes the InferenceService that `change` makes of a copy."""
        old = copy.deepcopy(self.kserve.isvc)
        new = copy.deepcopy(old)
        change(new)
        stored = admit(old, copy.deepcopy(new), METRICS, now) if has_webhook else None
        for key, value in (stored or new).items():
            self.kserve.isvc[key] = value
        self.wrote()

    def _cutting(self) -> Any:
        self.writes += 1
        if -self.writes in self.cuts:
            raise Cut

        def cut() -> None:
            if self.writes in self.cuts:
                raise Cut

        return cut


def merge(found: Object, patch: Object) -> None:
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            merge(found.setdefault(key, {}), value)
        else:
            found[key] = value


class Source:
    """20 requests of each side a second; `errors` of the canary's fail. `why` is what keeps it from being read."""

    metrics = METRICS

    def __init__(self) -> None:
        self.errors, self.why = 0, ""

    async def read(self, canary: str, stable: str) -> Evidence | NoEvidence:
        assert (canary.rpartition("-")[0], stable) == (CANARY.rpartition("-")[0], STABLE)
        if self.why:
            raise OSError(self.why)
        latency = Histogram((0.01, 0.1), (20, 0, 0))
        return Evidence(Sample(20, self.errors, latency), Sample(20, 0, latency))


class SlowSink:
    """Delivers what it is offered for the fifth time it is asked."""

    def __init__(self) -> None:
        self.offered: dict[str, CloudEvent] = {}
        self.asked: dict[str, int] = {}
        self.forgotten: list[str] = []

    def offer(self, event: CloudEvent) -> None:
        self.offered[event.id] = event

    def is_settled(self, id: str) -> bool:
        self.asked[id] = self.asked.get(id, 0) + 1
        return self.asked[id] >= 5

    def forget(self, id: str) -> None:
        self.forgotten.append(id)


class Lab:
    def __init__(self, **annotations: str) -> None:
        asked = {"rollout_steps": "10,50", "rollout_interval": "30s", "rollout_gates": "errors<=+5%"}
        self.kserve = KServe(service(**{**asked, **annotations}))
        self.api, self.source, self.now = FakeApi(self.kserve), Source(), 1_000_000.0
        self.controller = self.start("a")

    def start(self, identity: str, sink: SlowSink | None = None) -> Controller:
        config = ControllerConfig(identity, blind_after_s=5)
        announcer = Announcer(self.api, sink)  # type: ignore[arg-type]
        found = Controller(
            self.api,  # type: ignore[arg-type]
            lambda metrics: self.source,
            self.source.metrics,
            announcer,
            config,
            lambda: self.now,
        )
        found.saw(copy.deepcopy(self.kserve.isvc), is_gone=False)
        return found

    def change(self, version: str, *, has_webhook: bool = True) -> None:
        def change(isvc: Object) -> None:
            percent = isvc["spec"]["predictor"].get("canaryTrafficPercent")
            isvc["spec"]["predictor"] = container(version)
            if percent is not None:
                isvc["spec"]["predictor"]["canaryTrafficPercent"] = percent

        self.api.apply(change, self.now, has_webhook=has_webhook)
        self.controller.saw(copy.deepcopy(self.kserve.isvc), is_gone=False)

    async def turn(self, count: int = 1) -> None:
        for _ in range(count):
            self.now += 1
            try:
                await self.controller.step(self.now)
            except Cut:
                self.api.others.clear()  # as if its lease had run out
                self.controller = self.start(f"after-{self.api.writes}")

    @property
    def state(self) -> State:
        return record.load(self.kserve.isvc["metadata"]["annotations"].get(names.ROLLOUT_STATE)) or State()

    @property
    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.api.events]

    def conditions(self) -> dict[str, Object]:
        return {each["type"]: each for each in self.kserve.isvc["status"].get("conditions", ())}


async def test_a_good_version_is_promoted_and_then_nothing_is_written_any_more() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn(120)
    assert lab.state.phase is Phase.PROMOTED
    assert lab.kserve.shares == {"f-predictor-00002": 100}
    assert lab.reasons == [
        "RolloutStarted", "RolloutAdvanced", "RolloutAdvanced", "RolloutPromoting", "RolloutPromoted",
    ]  # fmt: skip
    assert (lab.conditions()["RolloutProgressing"]["status"], lab.state.news) == ("False", ())
    assert lab.conditions()["RolloutProgressing"]["reason"] == "Promoted"
    assert not wants_attention(lab.kserve.isvc, METRICS)
    writes = lab.api.writes
    await lab.turn(100)
    assert lab.api.writes == writes
    # Some saves of what was measured, and no write every second.
    assert writes < 40


async def test_the_weight_and_what_it_stands_for_are_one_write() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn(120)
    moves = [patch for patch in lab.api.patches if "spec" in patch]
    assert [patch["spec"]["predictor"]["canaryTrafficPercent"] for patch in moves] == [10, 50, 100, None]
    for patch in moves:
        state = record.load(patch["metadata"]["annotations"][names.ROLLOUT_STATE])
        assert state is not None
        assert state.weight == patch["spec"]["predictor"]["canaryTrafficPercent"]


async def test_a_bad_version_is_rolled_back_with_its_numbers() -> None:
    lab = Lab()
    lab.change("two")
    lab.source.errors = 4
    await lab.turn(30)
    assert lab.state.phase is Phase.ROLLED_BACK
    assert lab.kserve.shares == {"f-predictor-00002": 0, "f-predictor-00001": 100}
    healthy = lab.conditions()["RolloutHealthy"]
    assert (healthy["status"], healthy["reason"]) == ("False", "Fail")
    assert "errors 20.00 % against 0.00 %" in healthy["message"]
    assert lab.reasons[-1] == "RolloutRolledBack"
    assert "errors 20.00 %" in lab.api.events[-1]["message"]


async def test_news_is_kept_until_the_sink_has_it() -> None:
    lab = Lab()
    sink = SlowSink()
    lab.controller = lab.start("a", sink)
    lab.change("two")
    lab.source.errors = 4
    await lab.turn(3)
    assert [news.reason for news in lab.state.news] == ["RolloutAdvanced"]
    await lab.turn(30)
    assert (lab.state.phase, lab.state.news) == (Phase.ROLLED_BACK, ())
    assert [event.type.rpartition(".")[2] for event in sink.offered.values()] == ["advanced", "rolledback"]
    assert sink.forgotten == list(sink.offered)
    data = sink.offered[sink.forgotten[-1]].data
    assert (data["namespace"], data["name"], data["verdict"]["outcome"]) == ("default", "f", "fail")
    # Each event once, however often it was looked after.
    assert len(lab.reasons) == len(set(lab.reasons))


@given(st.sets(st.integers(-40, 40), max_size=6), st.booleans())
@settings(max_examples=40)
def test_cut_off_anywhere_it_ends_in_the_same_place(cuts: set[int], is_good: bool) -> None:
    async def play(cuts: set[int]) -> tuple[Phase, dict[str, int], list[str], list[int]]:
        lab = Lab()
        lab.source.errors = 0 if is_good else 4
        lab.api.cuts = cuts
        lab.change("two")
        await lab.turn(110)
        return lab.state.phase, lab.kserve.shares, lab.reasons, lab.kserve.history

    phase, shares, reasons, history = asyncio.run(play(cuts))
    steps = [weight for weight, before in zip(history[2:], history[1:], strict=False) if weight != before]
    if is_good:
        assert (phase, shares, steps) == (Phase.PROMOTED, {"f-predictor-00002": 100}, [10, 50, 100])
        told = ["RolloutStarted", "RolloutAdvanced", "RolloutAdvanced", "RolloutPromoting", "RolloutPromoted"]
    else:
        assert (phase, steps) == (Phase.ROLLED_BACK, [10, 0])
        assert shares == {"f-predictor-00001": 100, "f-predictor-00002": 0}
        told = ["RolloutStarted", "RolloutAdvanced", "RolloutRollingBack", "RolloutRolledBack"]
    assert reasons == told


async def test_who_takes_over_goes_on_with_what_was_measured() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn(25)
    requests = lab.state.evidence["predictor"].canary.requests
    assert requests >= 200
    lab.now += 20
    lab.controller = lab.start("b")
    await lab.turn(18)  # the lease has not been renewed for as long by then
    assert lab.state.weight == 50
    verdict = lab.state.verdict
    assert verdict is None or verdict.gates[0].requests < requests


async def test_of_two_controllers_one_acts() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn()
    second = lab.start("b")
    patches = len(lab.api.patches)
    for _ in range(20):
        await second.step(lab.now)
        await lab.turn()
    lease = lab.api.others["/apis/coordination.k8s.io/v1/namespaces/default/leases/glowplug-rollout"]
    assert lease["spec"]["holderIdentity"] == "a"
    saves = len(lab.api.patches) - patches
    await lab.controller.close()
    await second.step(lab.now + 1)
    lease = lab.api.others["/apis/coordination.k8s.io/v1/namespaces/default/leases/glowplug-rollout"]
    assert lease["spec"]["holderIdentity"] == "b"
    assert saves < 12


async def test_while_there_is_nothing_to_do_it_is_to_be_seen_that_somebody_is_there() -> None:
    api = FakeApi(KServe(service(rollout_steps="10")))
    config = ControllerConfig("idle", lease_duration_s=1)
    announcer = Announcer(api, None)  # type: ignore[arg-type]
    idle = Controller(api, lambda metrics: Source(), METRICS, announcer, config, time.time)  # type: ignore[arg-type]
    running = asyncio.create_task(idle.run(), name="idle")
    renewed: set[str] = set()
    deadline = time.monotonic() + 30
    while len(renewed) < 3 and time.monotonic() < deadline:
        renewed |= {lease["spec"]["renewTime"] for lease in api.others.values()}
        await asyncio.sleep(0.01)
    running.cancel()
    assert len(renewed) == 3


async def test_a_service_that_does_not_answer_keeps_no_other_waiting() -> None:
    lab = Lab()
    stuck = copy.deepcopy(lab.kserve.isvc)
    stuck["metadata"]["name"] = "stuck"
    stuck["metadata"]["annotations"][names.ROLLOUT_ACTION] = "pause"
    lab.controller.saw(stuck, is_gone=False)
    lab.change("two")
    get, asked = lab.api.get, []

    async def stuck_get(path: str, **params: str) -> Object:
        if path.endswith("/stuck"):
            asked.append(path)
            await asyncio.Event().wait()
        return await get(path, **params)

    lab.api.get = stuck_get  # type: ignore[method-assign]
    task = asyncio.create_task(lab.controller.step(lab.now + 1))
    for _ in range(100):
        await asyncio.sleep(0)
    assert asked
    assert lab.state.phase is Phase.PROGRESSING
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_clock_that_is_set_back_does_not_lose_the_lease() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn()
    lab.now -= 3600
    await lab.turn()
    lease = lab.api.others["/apis/coordination.k8s.io/v1/namespaces/default/leases/glowplug-rollout"]
    assert lease["spec"]["renewTime"] == datetime.fromtimestamp(lab.now, timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )


async def test_a_source_that_cannot_be_read_holds_the_weight_and_says_so() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn(20)
    lab.source.why = "connection refused"
    await lab.turn(100)
    assert lab.kserve.shares["f-predictor-00002"] == 10
    assert lab.reasons.count("RolloutUnmeasured") == 1
    progressing = lab.conditions()["RolloutProgressing"]
    assert (progressing["status"], progressing["reason"]) == ("True", "Held")
    assert "connection refused" in progressing["message"]
    lab.source.why = ""
    await lab.turn(100)
    assert lab.state.phase is Phase.PROMOTED


async def test_wrong_annotations_are_told_once_and_change_nothing() -> None:
    lab = Lab(rollout_steps="50,10")
    lab.change("two", has_webhook=False)
    for _ in range(5):
        lab.controller.saw(copy.deepcopy(lab.kserve.isvc), is_gone=False)
        await lab.turn()
    assert lab.reasons == ["RolloutInvalid"]
    assert lab.conditions()["RolloutProgressing"]["reason"] == "Invalid"
    assert "must rise, but 10 follows 50" in lab.conditions()["RolloutProgressing"]["message"]
    lab.kserve.isvc["metadata"]["annotations"][names.ROLLOUT_STEPS] = "10,50"
    lab.api.wrote()
    lab.controller.saw(copy.deepcopy(lab.kserve.isvc), is_gone=False)
    await lab.turn()
    assert "RolloutProgressing" not in lab.conditions()


async def test_a_gate_without_a_source_is_refused() -> None:
    lab = Lab(rollout_gates="loss<=1.05x")
    lab.change("two", has_webhook=False)
    await lab.turn()
    assert lab.reasons == ["RolloutInvalid"]
    assert "gates without a metric source: loss<=1.05x" in lab.api.events[0]["message"]


@pytest.mark.parametrize(("action", "phase"), [("promote", Phase.PROMOTED), ("abort", Phase.ROLLED_BACK)])
async def test_an_action_is_taken_and_removed(action: str, phase: Phase) -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn(3)
    lab.api.apply(
        lambda isvc: isvc["metadata"]["annotations"].update({names.ROLLOUT_ACTION: action}), lab.now
    )
    await lab.turn(4)
    assert lab.state.phase is phase
    assert names.ROLLOUT_ACTION not in lab.kserve.isvc["metadata"]["annotations"]


async def test_an_action_that_nobody_knows_is_told_and_removed() -> None:
    lab = Lab()
    lab.kserve.isvc["metadata"]["annotations"][names.ROLLOUT_ACTION] = "undo"
    lab.api.wrote()
    lab.controller.saw(copy.deepcopy(lab.kserve.isvc), is_gone=False)
    await lab.turn(2)
    assert lab.reasons == ["RolloutActionRefused"]
    assert names.ROLLOUT_ACTION not in lab.kserve.isvc["metadata"]["annotations"]


async def test_pods_that_crash_again_and_again_roll_it_back() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn(3)
    status = {"name": "kserve-container", "restartCount": 3, "state": {"running": {}}}
    lab.api.pods = [
        {
            "metadata": {"name": name, "labels": {names.REVISION_LABEL: name.rpartition("-")[0]}},
            "status": {"containerStatuses": [status]},
        }
        for name in ("f-predictor-00001-a", "other-00001-a")
    ]
    await lab.turn(3)
    assert lab.state.phase is Phase.PROGRESSING
    lab.api.pods[0]["metadata"]["labels"][names.REVISION_LABEL] = "f-predictor-00002"
    await lab.turn(3)
    assert lab.state.phase is Phase.ROLLED_BACK


async def test_who_asks_no_more_keeps_the_weight() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn(5)
    lab.api.apply(lambda isvc: isvc["metadata"]["annotations"].pop(names.ROLLOUT_STEPS), lab.now)
    await lab.turn(50)
    assert names.ROLLOUT_STATE not in lab.kserve.isvc["metadata"]["annotations"]
    assert lab.kserve.shares["f-predictor-00002"] == 10
    assert lab.api.events[-1]["message"].endswith("canaryTrafficPercent stays: predictor at 10")
    assert lab.reasons.count("RolloutLeft") == 1
    assert not lab.conditions()


async def test_a_stable_revision_that_kserve_has_lost_is_restored() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn(110)
    assert lab.state.phase is Phase.PROMOTED
    lab.kserve.stuck.add("f-predictor-00003")
    lab.change("three")
    await lab.turn()
    # As KServe does that looks between the split and the new revision.
    status = lab.kserve.isvc["status"]["components"]["predictor"]
    status["latestRolledoutRevision"] = "f-predictor-00001"
    lab.api.wrote()
    assert lab.kserve.shares == {"f-predictor-00002": 0, "f-predictor-00001": 100}
    await lab.turn(2)
    assert lab.kserve.shares == {"f-predictor-00002": 100}
    assert lab.reasons[-1] == "RolloutStableRestored"
    assert lab.state.members["predictor"].stable == "f-predictor-00002"


async def test_a_write_in_between_is_not_overwritten() -> None:
    lab = Lab()
    lab.change("two")
    await lab.turn(3)
    get = lab.api.get

    async def get_and_change(path: str, **params: str) -> Object:
        found = await get(path, **params)
        if path == ISVC:
            lab.api.get = get  # type: ignore[method-assign]
            lab.api.apply(
                lambda isvc: isvc["metadata"]["annotations"].update({names.ROLLOUT_ACTION: "abort"}), lab.now
            )
        return found

    lab.api.get = get_and_change  # type: ignore[method-assign]
    lab.source.errors = 20
    await lab.turn()
    assert lab.state.phase is Phase.PROGRESSING
    await lab.turn(3)
    assert lab.state.hold == "aborted by hand"
