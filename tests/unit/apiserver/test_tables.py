"""Tables: the columns of each kind, the words for pods, and the JSON paths behind the columns of CRDs."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

import pytest

from glowplug.apiserver.columns_paths import json_path
from glowplug.apiserver.columns_pods import summarize
from glowplug.apiserver.tables import table
from glowplug.errors import BadRequest
from glowplug.spec import kinds
from glowplug.spec.kinds import KINDS, Kind

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, 1, tzinfo=timezone.utc)
BORN = "2026-01-01T00:55:00Z"


def cells(kind: Kind, obj: Object, *, wide: bool = False) -> dict[str, Any]:
    obj = {"metadata": {"name": "x", "creationTimestamp": BORN}, **obj}
    shown = table(kind, [obj], now=NOW)
    names = [column for column in shown["columnDefinitions"] if wide or not column["priority"]]
    values = dict(
        zip([column["name"] for column in shown["columnDefinitions"]], shown["rows"][0]["cells"], strict=True)
    )
    return {column["name"]: values[column["name"]] for column in names}


def ready(status: str = "True", reason: str = "") -> list[Object]:
    return [{"type": "Other", "status": "False"}, {"type": "Ready", "status": status, "reason": reason}]


def test_an_inference_service_in_the_midst_of_a_rollout() -> None:
    traffic = [
        {"latestRevision": True, "percent": 20, "revisionName": "x-00002"},
        {"tag": "prev", "percent": 80, "revisionName": "x-00001"},
    ]
    status = {"url": "http://x", "conditions": ready(), "components": {"predictor": {"traffic": traffic}}}
    assert cells(kinds.INFERENCE_SERVICE, {"status": status}) == {
        "Name": "x",
        "URL": "http://x",
        "Ready": "True",
        "Prev": 80,
        "Latest": 20,
        "PrevRolledoutRevision": "x-00001",
        "LatestReadyRevision": "x-00002",
        "Age": "5m",
    }


def test_an_inference_service_without_a_status_has_empty_cells() -> None:
    found = cells(kinds.INFERENCE_SERVICE, {})
    assert [found[name] for name in ("URL", "Ready", "Prev", "Latest")] == [None] * 4
    assert (found["Name"], found["Age"]) == ("x", "5m")


def test_knative_kinds() -> None:
    status = {
        "url": "http://x",
        "latestCreatedRevisionName": "x-2",
        "latestReadyRevisionName": "x-1",
        "conditions": ready("False", "RevisionFailed"),
    }
    assert cells(kinds.KNATIVE_SERVICE, {"status": status}) == {
        "Name": "x",
        "URL": "http://x",
        "LatestCreated": "x-2",
        "LatestReady": "x-1",
        "Ready": "False",
        "Reason": "RevisionFailed",
    }
    labels = {"serving.knative.dev/configuration": "c", "serving.knative.dev/configurationGeneration": "2"}
    revision = {
        "metadata": {"name": "x", "labels": labels},
        "status": {"actualReplicas": 1, "desiredReplicas": 2, "conditions": ready()},
    }
    assert list(cells(kinds.REVISION, revision).items()) == [
        ("Name", "x"),
        ("Config Name", "c"),
        ("Generation", "2"),
        ("Ready", "True"),
        ("Reason", ""),
        ("Actual Replicas", 1),
        ("Desired Replicas", 2),
    ]
    scale = {"status": {"desiredScale": 0, "actualScale": 3}}
    assert list(cells(kinds.POD_AUTOSCALER, scale).values()) == ["x", 0, 3, None, None]


def test_runtimes_show_the_first_of_their_formats_and_containers() -> None:
    spec = {
        "disabled": False,
        "supportedModelFormats": [{"name": "xgboost"}, {"name": "lightgbm"}],
        "containers": [{"name": "kserve-container"}],
    }
    assert list(cells(kinds.CLUSTER_SERVING_RUNTIME, {"spec": spec}).values()) == [
        "x", False, "xgboost", "kserve-container", "5m",
    ]  # fmt: skip


def test_configuration_and_accounts() -> None:
    assert cells(kinds.CONFIG_MAP, {"data": {"a": "b"}, "binaryData": {"c": "d"}})["Data"] == 2
    assert cells(kinds.CONFIG_MAP, {})["Data"] == 0
    secret = cells(kinds.SECRET, {"type": "Opaque", "data": {"a": "b"}})
    assert (secret["Type"], secret["Data"]) == ("Opaque", 1)
    assert cells(kinds.NAMESPACE, {"status": {"phase": "Active"}})["Status"] == "Active"
    assert cells(kinds.SERVICE_ACCOUNT, {"secrets": [{"name": "a"}]})["Secrets"] == 1
    assert cells(kinds.LEASE, {"spec": {"holderIdentity": "me"}})["Holder"] == "me"
    assert cells(kinds.CUSTOM_RESOURCE_DEFINITION, {}) == {"Name": "x", "Created At": BORN}


def test_events() -> None:
    event = {
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:59:50Z",
        "count": 4,
        "type": "Warning",
        "reason": "BackOff",
        "message": " restarting \n",
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
        "source": {"component": "supervisor", "host": "here"},
    }
    assert list(cells(kinds.EVENT, event).items()) == [
        ("Last Seen", "10s"),
        ("Type", "Warning"),
        ("Reason", "BackOff"),
        ("Object", "pod/p"),
        ("Message", "restarting"),
    ]
    wide = cells(kinds.EVENT, event, wide=True)
    assert (wide["First Seen"], wide["Count"], wide["Source"]) == ("60m", 4, "supervisor, here")
    fresh = {"eventTime": "2026-01-01T00:59:00.000000Z", "involvedObject": {"kind": "Node"}}
    assert cells(kinds.EVENT, fresh)["Last Seen"] == "60s"
    series = {"series": {"count": 7, "lastObservedTime": "2026-01-01T00:59:59.000000Z"}}
    assert cells(kinds.EVENT, series, wide=True)["Count"] == 7
    assert cells(kinds.EVENT, series)["Last Seen"] == "1s"


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"spec": {"completions": 3}}, ("Running", "0/3", "")),
        ({"spec": {"parallelism": 4}, "status": {"succeeded": 1}}, ("Running", "1/1 of 4", "")),
        ({"status": {"startTime": "2026-01-01T00:58:00Z"}}, ("Running", "0/1", "2m")),
        (
            {
                "spec": {"completions": 1},
                "status": {
                    "succeeded": 1,
                    "startTime": "2026-01-01T00:00:00Z",
                    "completionTime": "2026-01-01T00:00:07Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            ("Complete", "1/1", "7s"),
        ),
        ({"status": {"conditions": [{"type": "Failed", "status": "True"}]}}, ("Failed", "0/1", "")),
        ({"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}, ("Suspended", "0/1", "")),
        ({"status": {"conditions": [{"type": "Failed", "status": "False"}]}}, ("Running", "0/1", "")),
    ],
)
def test_jobs(job: Object, expected: tuple[str, str, str]) -> None:
    found = cells(kinds.JOB, job)
    assert (found["Status"], found["Completions"], found["Duration"]) == expected


def running(name: str = "c", **more: Any) -> Object:
    return {"name": name, "ready": True, "state": {"running": {}}, "restartCount": 0, **more}


def waiting(reason: str, **more: Any) -> Object:
    return {"name": "c", "ready": False, "state": {"waiting": {"reason": reason}}, "restartCount": 0, **more}


def ended(code: int, reason: str = "", **more: Any) -> Object:
    state = {"terminated": {"exitCode": code, **({"reason": reason} if reason else {})}}
    return {"name": "c", "ready": False, "state": state, "restartCount": 0, **more}


def a_pod(mains: list[Object], inits: list[Object] | None = None, **status: Any) -> Object:
    spec: Object = {"containers": [{"name": item["name"]} for item in mains] or [{"name": "c"}]}
    if inits is not None:
        spec["initContainers"] = [{"name": item["name"]} for item in inits]
        status["initContainerStatuses"] = inits
    return {"metadata": {"name": "x"}, "spec": spec, "status": {"containerStatuses": mains, **status}}


READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("pod", "ready", "status"),
    [
        (a_pod([], phase="Pending"), "0/1", "Pending"),
        (a_pod([running()], phase="Running"), "1/1", "Running"),
        (a_pod([running(), running("d", ready=False)], phase="Running"), "1/2", "Running"),
        (a_pod([waiting("ContainerCreating")], phase="Pending"), "0/1", "ContainerCreating"),
        (a_pod([waiting("CrashLoopBackOff")], phase="Running"), "0/1", "CrashLoopBackOff"),
        (a_pod([waiting("ErrImagePull"), running("d")], phase="Pending"), "1/2", "ErrImagePull"),
        (a_pod([ended(1, "Error")], phase="Running"), "0/1", "Error"),
        (a_pod([ended(137, "OOMKilled")], phase="Running"), "0/1", "OOMKilled"),
        (a_pod([ended(3)], phase="Failed"), "0/1", "ExitCode:3"),
        (a_pod([ended(0, "Completed")], phase="Succeeded"), "0/1", "Completed"),
        (a_pod([running(), ended(0, "Completed")], phase="Running", conditions=READY), "1/2", "Running"),
        (a_pod([running(), ended(0, "Completed")], phase="Running"), "1/2", "NotReady"),
        (a_pod([waiting("PodInitializing")], [running("i")], phase="Pending"), "0/1", "Init:0/1"),
        (
            a_pod([waiting("PodInitializing")], [waiting("PodInitializing")], phase="Pending"),
            "0/1",
            "Init:0/1",
        ),
        (a_pod([waiting("PodInitializing")], [ended(0), running("j")], phase="Pending"), "0/1", "Init:1/2"),
        (a_pod([waiting("PodInitializing")], [ended(1, "Error")], phase="Pending"), "0/1", "Init:Error"),
        (a_pod([waiting("PodInitializing")], [ended(9)], phase="Pending"), "0/1", "Init:ExitCode:9"),
        (a_pod([waiting("PodInitializing")], [waiting("CrashLoopBackOff")]), "0/1", "Init:CrashLoopBackOff"),
        (a_pod([running()], [ended(0, "Completed")], phase="Running"), "1/1", "Running"),
        (a_pod([], phase="Failed", reason="Evicted"), "0/1", "Evicted"),
        (
            a_pod([], conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
            "0/1",
            "SchedulingGated",
        ),
    ],
)
def test_the_word_for_a_pod(pod: Object, ready: str, status: str) -> None:
    found = cells(kinds.POD, pod)
    assert (found["Ready"], found["Status"]) == (ready, status)


@pytest.mark.parametrize(
    ("phase", "reason", "status"),
    [("Running", None, "Terminating"), ("Succeeded", None, "Succeeded"), ("Running", "NodeLost", "Unknown")],
)
def test_the_word_for_a_pod_being_deleted(phase: str, reason: str | None, status: str) -> None:
    pod = a_pod([running()], phase=phase, reason=reason) if reason else a_pod([running()], phase=phase)
    pod["metadata"]["deletionTimestamp"] = BORN
    assert summarize(pod).status == status


def test_sidecars_count_as_containers() -> None:
    pod = a_pod([running()], [running("s", started=True, restartCount=2)], phase="Running")
    pod["spec"]["initContainers"][0]["restartPolicy"] = "Always"
    found = summarize(pod)
    assert (found.ready, found.status, found.restarts) == ("2/2", "Running", 2)


def test_restarts_tell_when_the_last_one_was() -> None:
    last = {"terminated": {"finishedAt": "2026-01-01T00:59:50Z"}}
    earlier = {"terminated": {"finishedAt": "2026-01-01T00:10:00Z"}}
    mains = [running(restartCount=2, lastState=last), running("d", restartCount=1, lastState=earlier)]
    assert cells(kinds.POD, a_pod(mains, phase="Running"))["Restarts"] == "3 (10s ago)"
    assert cells(kinds.POD, a_pod([running(restartCount=3)]))["Restarts"] == "3"
    assert cells(kinds.POD, a_pod([running()]))["Restarts"] == "0"


def test_wide_columns_of_pods() -> None:
    pod = a_pod([running()], podIP="127.0.0.1", conditions=[{"type": "g", "status": "True"}])
    pod["spec"] |= {"nodeName": "here", "readinessGates": [{"conditionType": "g"}, {"conditionType": "h"}]}
    wide = cells(kinds.POD, pod, wide=True)
    assert [wide[name] for name in ("IP", "Node", "Nominated Node", "Readiness Gates")] == [
        "127.0.0.1", "here", "<none>", "1/2",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
def test_every_kind_has_a_table_even_of_an_empty_object(kind: Kind) -> None:
    shown = table(kind, [{}, {"metadata": {}, "spec": {}, "status": {}}], now=NOW)
    assert (shown["kind"], shown["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    for row in shown["rows"]:
        assert len(row["cells"]) == len(shown["columnDefinitions"])
    assert [column["name"] for column in shown["columnDefinitions"] if column["format"] == "name"] == ["Name"]
    for column in shown["columnDefinitions"]:
        assert set(column) == {"name", "type", "format", "description", "priority"}


def test_what_rows_carry() -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}}
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "x"}}
    for include, carried in (("Metadata", partial), ("", partial), ("Object", obj), ("None", None)):
        rows = table(kinds.CONFIG_MAP, [obj], now=NOW, include_object=include)["rows"]
        assert rows[0]["object"] == carried
    with pytest.raises(BadRequest, match="includeObject"):
        table(kinds.CONFIG_MAP, [obj], now=NOW, include_object="Some")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", 1),
        (".a.nothing", None),
        (".list[0].k", "x"),
        (".list[-1].k", "y"),
        (".list[7].k", None),
        (".list[*].v", True),
        (".list[?(@.k=='y')].v", True),
        ('.list[?(@.k=="y")].v', True),
        (".list[?(@.v==true)].k", "y"),
        (".list[?(@.n==1)].k", "x"),
        (".list[?(@.n==true)].k", None),
        (".list[?(@.deep.er=='z')].k", "z"),
        (r".a['dotted\.key/name']", 2),
        (".a['plain']", 3),
        (".list.k", None),
    ],
)
def test_json_paths(path: str, found: object) -> None:
    obj = {
        "a": {"b": 1, "dotted.key/name": 2, "plain": 3},
        "list": [{"k": "x", "n": 1}, {"k": "z", "deep": {"er": "z"}}, {"k": "y", "v": True}],
    }
    assert json_path(path)(obj) == found


@pytest.mark.parametrize("path", ["a", ".a[", ".a[?(@.b>1)]", ".a..b", ".a[0:2]"])
def test_json_paths_beyond_the_subset_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        json_path(path)


def test_a_thousand_rows_take_a_moment() -> None:
    objects = [
        {
            "metadata": {"name": f"x{n}", "creationTimestamp": BORN},
            "status": {"url": "x", "conditions": ready()},
        }
        for n in range(1000)
    ]
    began = time.perf_counter()
    assert len(table(kinds.INFERENCE_SERVICE, objects, now=NOW)["rows"]) == 1000
    # Some 20 ms on a free core; the bound leaves room for a busy computer, not for another order of growth.
    assert time.perf_counter() - began < 1.0
