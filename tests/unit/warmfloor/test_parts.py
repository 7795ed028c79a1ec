"""Start times, the lease, revisions, memory and demand: the small pure parts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug.operators import lease
from glowplug.operators.lease import Seen
from glowplug.spec.autoscaling import CONCURRENCY, RPS
from glowplug.warmfloor import demand, memory, revisions
from glowplug.warmfloor.decision import Demand, State, decide
from glowplug.warmfloor.demand import MachinePage, NoDemand, Readings
from glowplug.warmfloor.memory import Memory
from glowplug.warmfloor.revisions import Grip, Live
from glowplug.warmfloor.settings import Settings
from glowplug.warmfloor.starts import Start, StartTime, start_of

MIN = "autoscaling.knative.dev/min-scale"


def local_pod(ms: dict[str, float]) -> dict[str, Any]:
    start = {"kserve-container": {"at": "2026-11-22T01:00:00.000Z", "how": "fork", "restart": 0, "ms": ms}}
    return {"metadata": {"annotations": {"glowplug.dev/cold-start": json.dumps(start)}}}


def cluster_pod(ready: str, restarts: int = 0, status: str = "True") -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, "lastTransitionTime": ready}
    return {
        "metadata": {"creationTimestamp": "2026-11-22T01:00:00Z"},
        "status": {"conditions": [condition], "containerStatuses": [{"restartCount": restarts}]},
    }


def test_a_start_is_read_from_either_pod() -> None:
    local = start_of(local_pod({"decided": 10, "loaded": 200, "ready": 40, "first_byte": 9000}))
    assert local is not None and local.took_s == pytest.approx(0.25)
    assert start_of(cluster_pod("2026-11-22T01:00:18Z")) == Start(1795309200.0, 18.0)


@pytest.mark.parametrize(
    "pod",
    [
        {"metadata": {}},
        local_pod({"decided": 10}),
        {"metadata": {"annotations": {"glowplug.dev/cold-start": "nonsense"}}},
        {"metadata": {"annotations": {"glowplug.dev/cold-start": '{"a": 1}'}}},
        cluster_pod("2026-11-22T01:00:18Z", restarts=1),
        cluster_pod("2026-11-22T01:00:18Z", status="False"),
        cluster_pod("2026-11-22T00:00:18Z"),
        cluster_pod("soon"),
    ],
)
def test_what_tells_no_start_is_none(pod: dict[str, Any]) -> None:
    assert start_of(pod) is None


def test_the_start_time_is_a_weighted_mean_that_counts_each_start_once() -> None:
    first = StartTime().with_starts([Start(100.0, 10.0)])
    assert (first.mean_s, first.count) == (10.0, 1)
    second = first.with_starts([Start(100.0, 10.0), Start(200.0, 20.0)])
    assert (second.mean_s, second.count) == (13.0, 2)
    assert second.with_starts([Start(100.0, 10.0), Start(200.0, 20.0)]) == second


def test_a_lease_has_one_holder() -> None:
    mine, seen = lease.claim({}, "a", 15, Seen(), 100.0)
    assert mine is not None and mine["holderIdentity"] == "a" and mine["leaseTransitions"] == 1
    renewed, _ = lease.claim(mine, "a", 15, seen, 110.0)
    assert renewed is not None and renewed["leaseTransitions"] == 1
    assert renewed["acquireTime"] == mine["acquireTime"] and renewed["renewTime"] != mine["renewTime"]
    # Another one waits until it has not seen a renewal for the duration, by its own clock.
    refused, other = lease.claim(renewed, "b", 15, Seen(), 5000.0)
    assert refused is None
    assert lease.claim(renewed, "b", 15, other, 5014.9)[0] is None
    again, _ = lease.claim(mine, "b", 15, other, 5015.0)
    assert again is None, "it was renewed in between"
    taken, _ = lease.claim(renewed, "b", 15, other, 5015.0)
    assert taken is not None and taken["leaseTransitions"] == 2
    given_back, _ = lease.claim(lease.released(renewed), "b", 15, Seen(), 200.0)
    assert given_back is not None


def revision(name: str, **annotations: str) -> dict[str, Any]:
    notes = {f"autoscaling.knative.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"metadata": {"name": name, "annotations": notes}, "spec": {"containerConcurrency": 4}}


def test_live_revisions_are_those_with_traffic() -> None:
    traffic = [
        {"revisionName": "new", "percent": 10, "latestRevision": True},
        {"revisionName": "old", "percent": 90},
        {"revisionName": "old", "percent": 0, "tag": "prev"},
    ]
    isvc = {"status": {"components": {"predictor": {"latestReadyRevision": "new", "traffic": traffic}}}}
    known = [revision("new"), revision("old"), revision("older")]
    assert [(each.name, each.share) for each in revisions.live(isvc, known)] == [("new", 0.1), ("old", 0.9)]
    plain = {"status": {"components": {"predictor": {"latestReadyRevision": "old"}}}}
    (only,) = revisions.live(plain, known)
    assert (only.name, only.share, only.container_concurrency, only.parameters.target) == ("old", 1.0, 4, 2.8)
    cpu = [revision("old", **{"class": "hpa.autoscaling.knative.dev"})]
    assert revisions.live(plain, cpu) == [], "Kubernetes' own autoscaler knows no min-scale of ours"
    assert revisions.live({}, known) == []


def live(**annotations: str) -> Live:
    return Live("r", "predictor", 1.0, revision("r", **annotations)["metadata"]["annotations"], 4)


def test_the_floor_is_never_below_the_users_nor_above_max_scale() -> None:
    assert revisions.wanted(Grip("2"), live(min_scale="9"), 1) == "2"
    assert revisions.wanted(Grip("2"), live(min_scale="9"), 5) == "5"
    assert revisions.wanted(Grip(None), live(), 0) is None
    assert revisions.wanted(Grip(None), live(max_scale="3"), 5) == "3"
    # The older spelling is the user's own floor, too.
    assert (
        revisions.wanted(Grip(None), Live("r", "p", 1.0, {"autoscaling.knative.dev/minScale": "4"}, 0), 3)
        is None
    )


def test_a_value_that_is_none_of_ours_is_the_users_from_now_on() -> None:
    ours = Grip("1", ("1", "4"))
    assert revisions.gripped(ours, {MIN: "4"}) == ours
    assert revisions.gripped(ours, {MIN: "1"}) == ours
    assert revisions.gripped(ours, {MIN: "7"}) == Grip("7")
    assert revisions.gripped(ours, {}) == Grip(None)
    assert revisions.gripped(None, {MIN: "7"}) == Grip("7")


def learned() -> State:
    state = State()
    for tick in range(400):
        state, _ = decide(Settings(season_s=600.0), state, Demand(tick % 30, 50.0), 7.0, 5.0, tick * 5.0)
    return state


def test_memory_survives_as_text_and_stays_small() -> None:
    state = learned()
    before = Memory({"predictor": state}, {"r-1": Grip(None, (None, "3")), "r-2": Grip("2")})
    data = memory.dump(before)
    assert sum(map(len, data.values())) < 10_000
    after = memory.load(data, "x-warm-floor")
    assert after.grips == before.grips
    found = after.states["predictor"]
    assert found.starts == state.starts and found.forecast_floor == state.forecast_floor
    assert found.model.slots == pytest.approx(state.model.slots, rel=1e-4)
    assert found.model.trend.errors == state.model.trend.errors
    assert memory.dump(after) == data


def test_what_was_learned_can_be_lost_but_not_what_was_done() -> None:
    good = memory.dump(Memory({"predictor": learned()}, {"r": Grip("1", ("1", "2"))}))
    assert memory.load({**good, memory.STATE: "{"}, "x").states == {}
    assert memory.load({**good, memory.STATE: '{"predictor": {"slots": [1]}}'}, "x").grips == {
        "r": Grip("1", ("1", "2"))
    }
    with pytest.raises(ConfigError, match=r"ConfigMap x: data\.grips cannot be read"):
        memory.load({**good, memory.GRIPS: '{"r": {"own": 1}}'}, "x")
    assert memory.load({}, "x") == Memory()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(-5, 500),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["slots", "level", "starts", "a"]), inner)
    ),
)


@given(JSON)
def test_any_state_is_read_or_forgotten(found: Any) -> None:
    assert isinstance(memory.load({memory.STATE: json.dumps(found)}, "x"), Memory)


PAGE = """# TYPE glowplug_ingress_measured gauge
glowplug_ingress_measured 1
glowplug_revision_request_seconds_total{{namespace="default",revision="f-predictor-00001"}} {seconds}
glowplug_revision_requests_total{{namespace="default",revision="f-predictor-00001"}} {requests}
glowplug_revision_requests_total{{namespace="default",revision="bad"}} none
"""


async def test_the_machines_counters_become_rates() -> None:
    pages = [
        PAGE.format(seconds=10, requests=100),
        PAGE.format(seconds=20, requests=300),
        PAGE.format(seconds=5, requests=50),
    ]
    pages += ["glowplug_ingress_measured 0\n", "apiserver_requests 5\n", PAGE.format(seconds=5, requests=50)]

    async def fetch() -> str:
        return pages.pop(0)

    source = MachinePage(fetch)
    assert isinstance(await source.read(100.0), NoDemand)
    second = await source.read(105.0)
    assert isinstance(second, Readings)
    assert second.of("default/f-predictor-00001", CONCURRENCY) == 2.0
    assert second.of("default/f-predictor-00001", RPS) == 40.0
    assert second.of("default/nobody", CONCURRENCY) == 0.0
    anew = await source.read(110.0)
    assert isinstance(anew, Readings) and anew.of("default/f-predictor-00001", CONCURRENCY) == 1.0
    silent = await source.read(115.0)
    assert isinstance(silent, NoDemand) and "cannot measure" in silent.why
    cluster = await source.read(120.0)
    assert isinstance(cluster, NoDemand) and "--prometheus-url" in cluster.why
    assert isinstance(await source.read(125.0), NoDemand), "what lies before the gap is no beginning"


def series(value: str, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [1700000000, value]}


def test_prometheus_series_are_summed_by_revision() -> None:
    name = {"k8s_namespace_name": "default", "kn_revision_name": "r"}
    result = [
        series("2", __name__="kn_revision_concurrency_panic", **name),
        series("3", __name__="kn_revision_concurrency_panic", **name),
        series("40", __name__="kn_revision_rps_panic", **name),
        series("7", namespace="other", revision="s"),
        series("NaN", namespace="other", revision="t"),
        series("1", namespace="other"),
    ]
    found = demand.from_prometheus({"status": "success", "data": {"result": result}})
    assert isinstance(found, Readings)
    assert found.known == {
        "default/r": {CONCURRENCY: 5.0, RPS: 40.0},
        "other/s": {CONCURRENCY: 7.0, RPS: 7.0},
    }
    empty = demand.from_prometheus({"status": "success", "data": {"result": []}})
    assert isinstance(empty, NoDemand), "no series at all is a wrong query, not no demand"
    error = demand.from_prometheus({"status": "error", "error": "parse error"})
    assert isinstance(error, NoDemand) and "parse error" in error.why


@given(JSON)
def test_any_answer_of_prometheus_is_read_or_refused(answer: Any) -> None:
    for found in (
        answer,
        {"status": "success", "data": answer},
        {"status": "success", "data": {"result": answer}},
    ):
        assert isinstance(demand.from_prometheus(found), Readings | NoDemand)
