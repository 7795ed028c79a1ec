"""Any sequence of edits, pod fates, pauses and `kill -9`s ends in a world that is at rest and tells the truth.

`Machine` checks every table that is published on the way: shares sum to 100, and no route moves to a revision that
never was ready, or that has no ready pod, while the one it leaves had some.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.controllers.fakes import CRASH, HANG, READY, FakeObjects
from unit.controllers.machine import Machine, inference_service, is_ready, knative_service, runtime

from glowplug.controllers import ControllersConfig
from glowplug.spec import kinds

IMAGES = st.sampled_from(["app:1", "app:2", "app:3", f"bad-{CRASH}", f"slow-{HANG}"])
SCALES = st.sampled_from([None, "0", "1", "3"])
TARGETS = st.lists(
    st.tuples(st.sampled_from([None, 1, 2, 3]), st.integers(0, 100), st.sampled_from([None, "a", "b"])),
    min_size=1,
    max_size=3,
)


@st.composite
def service_edits(draw: st.DrawFn) -> tuple[Any, ...]:
    return ("service", draw(IMAGES), draw(SCALES), draw(st.none() | TARGETS))


@st.composite
def isvc_edits(draw: st.DrawFn) -> tuple[Any, ...]:
    percent = draw(st.sampled_from([None, None, 0, 10, 100]))
    return (
        "isvc",
        draw(IMAGES),
        percent,
        draw(st.booleans()),
        draw(st.sampled_from([False, False, False, True])),
    )


OPERATIONS = st.lists(
    st.one_of(
        service_edits(),
        isvc_edits(),
        st.tuples(
            st.just("fate"), st.integers(0, 20), st.sampled_from([READY, READY, CRASH, HANG, "failed"])
        ),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 5, 50, 700])),
        st.tuples(st.just("rush")),
        st.tuples(st.just("kill"), st.integers(1, 30)),
        st.tuples(
            st.just("delete"), st.sampled_from(["web", "flights", "revision", "pod"]), st.integers(0, 20)
        ),
        st.tuples(st.just("runtime"), st.sampled_from(["glowplug/xgboost", "glowplug/xgboost:2"])),
    ),
    min_size=1,
    max_size=12,
)


def perform(machine: Machine, operation: tuple[Any, ...]) -> None:
    what, *rest = operation
    if what == "service":
        image, scale, targets = rest
        annotations = {} if scale is None else {"autoscaling.knative.dev/min-scale": scale}
        service = knative_service(image=image, annotations=annotations, traffic=traffic_of(targets))
        machine.apply(kinds.KNATIVE_SERVICE, service)
    elif what == "isvc":
        machine.apply(kinds.INFERENCE_SERVICE, isvc_of(*rest))
    elif what == "fate":
        pods = machine.names(kinds.POD)
        if pods:
            machine.node.orders[pods[rest[0] % len(pods)]] = rest[1]
    elif what == "wait":
        machine.advance(rest[0])
    elif what == "rush":
        machine.settle(node=False)
    elif what == "kill":
        machine.objects.fuse = rest[0]
    elif what == "delete":
        delete(machine, *rest)
    else:
        changed = runtime()
        changed["spec"]["containers"][0]["image"] = rest[0]
        machine.apply(kinds.CLUSTER_SERVING_RUNTIME, changed)


def traffic_of(targets: list[tuple[int | None, int, str | None]] | None) -> list[Any] | None:
    if targets is None:
        return None
    total = sum(percent for _, percent, _ in targets) or 1
    shares = [percent * 100 // total for _, percent, _ in targets]
    shares[0] += 100 - sum(shares)
    found, tags = [], set()
    for (revision, _, tag), share in zip(targets, shares, strict=True):
        target: dict[str, Any] = {"percent": share, "latestRevision": revision is None}
        if revision is not None:
            target["revisionName"] = f"web-0000{revision}"
        if tag is not None and tag not in tags:
            tags.add(tag)
            target["tag"] = tag
        found.append(target)
    return found


def isvc_of(image: str, percent: int | None, has_transformer: bool, is_stopped: bool) -> Any:
    extra: dict[str, Any] = {"transformer": {"containers": [{"image": "lookup"}]}} if has_transformer else {}
    annotations = {"serving.kserve.io/stop": "true"} if is_stopped else {}
    if image == "app:1":
        predictor = None
        extra |= {} if percent is None else {"canaryTrafficPercent": percent}
    else:
        predictor = {"containers": [{"image": image}]}
        predictor |= {} if percent is None else {"canaryTrafficPercent": percent}  # type: ignore[dict-item]
    return inference_service(predictor=predictor, annotations=annotations, **extra)


def delete(machine: Machine, what: str, which: int) -> None:
    kind = {"web": kinds.KNATIVE_SERVICE, "flights": kinds.INFERENCE_SERVICE}.get(what)
    if kind is None:
        kind = kinds.REVISION if what == "revision" else kinds.POD
        present = machine.names(kind)
        name = present[which % len(present)] if present else ""
    else:
        name = what
    if (kind, "default", name) in machine.objects.live:
        fuse, machine.objects.fuse = machine.objects.fuse, None
        machine.objects.delete(kind, "default", name)
        machine.objects.fuse = fuse


def assert_truthful(machine: Machine) -> None:
    pods = machine.objects.list(kinds.POD)
    assert not any("deletionTimestamp" in pod["metadata"] for pod in pods)
    for revision in machine.objects.list(kinds.REVISION):
        name = revision["metadata"]["name"]
        own = machine.pods(name)
        status = revision["status"]
        assert status["actualReplicas"] == sum(map(is_ready, own))
        assert status["desiredReplicas"] == len(own)
        assert status["observedGeneration"] == revision["metadata"]["generation"]
        autoscaler = machine.get(kinds.POD_AUTOSCALER, name)
        assert autoscaler["status"]["desiredScale"] == len(own)
        if machine.condition(kinds.REVISION, name, "Active")[0] == "True":
            assert status["actualReplicas"] > 0
    assert_table(machine)
    for kind in (kinds.KNATIVE_SERVICE, kinds.CONFIGURATION, kinds.ROUTE):
        for obj in machine.objects.list(kind):
            assert obj["status"]["observedGeneration"] == obj["metadata"]["generation"]
    for service in machine.objects.list(kinds.KNATIVE_SERVICE):
        name = service["metadata"]["name"]
        if machine.condition(kinds.KNATIVE_SERVICE, name)[0] == "True":
            latest = service["status"]["latestReadyRevisionName"]
            assert latest == service["status"]["latestCreatedRevisionName"]
            assert sum(machine.splits(name).values()) == 100
    for isvc in machine.objects.list(kinds.INFERENCE_SERVICE):
        if machine.condition(kinds.INFERENCE_SERVICE, isvc["metadata"]["name"])[0] == "True":
            assert machine.splits(isvc["metadata"]["name"])
            assert isvc["status"]["url"].endswith("/serving/default/flights")


def assert_table(machine: Machine) -> None:
    if not machine.tables:
        return
    table = machine.tables[-1]
    routed = {split.revision for route in table.routes for split in route.splits}
    assert {backend.revision for backend in table.backends} == routed
    for backend in table.backends:
        ready = {
            f"default/{p['metadata']['name']}"
            for p in machine.pods(backend.revision.split("/")[1])
            if is_ready(p)
        }
        assert {endpoint.pod for endpoint in backend.endpoints} == ready
    traffic = {
        route["metadata"]["name"]
        for route in machine.objects.list(kinds.ROUTE)
        if route["status"].get("traffic")
    }
    assert traffic <= {route.name for route in table.routes}


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(OPERATIONS)
def test_any_history_ends_at_rest_and_in_truth(operations: list[tuple[Any, ...]]) -> None:
    machine = Machine(ControllersConfig(kept_revisions=2))
    machine.apply(kinds.CLUSTER_SERVING_RUNTIME, runtime())
    for operation in operations:
        perform(machine, operation)
    machine.objects.fuse = None
    machine.advance(2000)
    machine.assert_settled()
    assert_truthful(machine)


def outcome(machine: Machine) -> str:
    """What is there in the end, without names and times that differ from run to run."""
    kept = []
    for (kind, _, name), obj in sorted(
        machine.objects.live.items(), key=lambda item: (item[0][0].name, item[0][2])
    ):
        if kind == kinds.POD:
            continue
        status = json.loads(json.dumps(obj.get("status") or {}))
        for condition in status.get("conditions", ()):
            condition.pop("lastTransitionTime")
        kept.append([kind.name, name, obj.get("spec"), status])
    splits = [
        [route.name, [[s.revision, s.percent] for s in route.splits]] for route in machine.tables[-1].routes
    ]
    return json.dumps([kept, splits, len(machine.names(kinds.POD))], sort_keys=True)


def rollout(fuse: int | None) -> Machine:
    machine = Machine()
    machine.apply(kinds.CLUSTER_SERVING_RUNTIME, runtime())
    steps = [
        inference_service(transformer={"containers": [{"image": "lookup"}]}),
        inference_service(predictor={"containers": [{"image": "v2"}], "canaryTrafficPercent": 10}),
        inference_service(predictor={"containers": [{"image": "v2"}]}),
    ]
    for position, step in enumerate(steps):
        machine.apply(kinds.INFERENCE_SERVICE, step)
        if fuse is not None and position == fuse % len(steps):
            machine.objects.fuse = fuse // len(steps) + 1
        machine.advance(20)
        machine.objects.fuse = None
    return machine


def test_a_kill_after_any_single_write_changes_nothing_in_the_end() -> None:
    expected = outcome(rollout(None))
    kills = 0
    for fuse in range(3 * 45):
        machine = rollout(fuse)
        kills += machine.kills
        assert outcome(machine) == expected, f"killed after write {fuse // 3 + 1} of step {fuse % 3}"
    assert kills > 80


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=25))
def test_kills_in_any_rhythm_change_nothing_in_the_end(fuses: list[int]) -> None:
    machine = Machine()
    machine.apply(kinds.CLUSTER_SERVING_RUNTIME, runtime())
    machine.apply(
        kinds.INFERENCE_SERVICE, inference_service(transformer={"containers": [{"image": "lookup"}]})
    )
    for fuse in fuses:
        machine.objects.fuse = fuse
        machine.settle()
    machine.objects.fuse = None
    machine.apply(kinds.INFERENCE_SERVICE, inference_service())
    machine.advance(60)
    machine.assert_settled()
    assert_truthful(machine)
    assert machine.names(kinds.REVISION) == ["flights-predictor-00001"]
    assert len(machine.names(kinds.POD)) == 1


def test_the_fake_keeps_the_api_s_rules() -> None:
    objects = FakeObjects(lambda: 0.0)
    made = objects.create(kinds.KNATIVE_SERVICE, knative_service())
    changed = {**made, "spec": {"template": {}}, "status": {"ignored": True}}
    updated = objects.update(kinds.KNATIVE_SERVICE, changed)
    assert updated["metadata"]["generation"] == 2 and "status" not in updated
    writes = objects.writes
    objects.update(kinds.KNATIVE_SERVICE, updated)
    assert objects.writes == writes
    try:
        objects.update_status(kinds.KNATIVE_SERVICE, {**made, "status": {}})
    except Exception as error:
        assert type(error).__name__ == "Conflict"
    else:
        raise AssertionError("a stale write must be refused")
