"""`glowplug coldstart`: what is made of annotations, statuses and metrics."""

from __future__ import annotations

import json

import pytest

from glowplug.cli import coldstart
from glowplug.errors import Forbidden, NotFound
from glowplug.spec import names


def a_pod(name: str, **annotations: str) -> dict:
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T10:00:00Z", "annotations": annotations},
        "spec": {"containers": [{"name": "kserve-container"}, {"name": "queue-proxy"}]},
        "status": {
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T10:00:01Z"},
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T10:00:09Z"},
            ],
            "initContainerStatuses": [
                {
                    "name": "storage-initializer",
                    "state": {"terminated": {"finishedAt": "2026-01-01T10:00:04Z"}},
                }
            ],
            "containerStatuses": [
                {"name": "kserve-container", "state": {"running": {"startedAt": "2026-01-01T10:00:05Z"}}}
            ],
        },
    }


TIMELINE = json.dumps(
    {"main": {"at": "2026-01-01T10:00:00.000Z", "how": "fork", "restart": 0, "ms": {"started": 10.0, "ready": 30.0}}}
)  # fmt: skip


class FakeCluster:
    """Answers by path; `metrics` None is a proxy that lets nobody through."""

    namespace = "default"

    def __init__(self, pods: list[dict], events: list[dict] = (), metrics: str | None = None) -> None:
        self._pods, self._events, self._metrics = pods, list(events), metrics

    def get(self, path: str, **params: str) -> dict:
        if path.endswith("/pods"):
            return {"items": self._pods}
        if path.endswith("/events"):
            return {"items": self._events}
        raise NotFound(f"{path} not found")

    def request(self, method: str, path: str):
        assert path.endswith(":8080/proxy/metrics")
        if self._metrics is None:
            raise Forbidden("no")
        return type("Answer", (), {"text": self._metrics})


def test_bars_share_one_time_axis(capsys):
    coldstart.print_starts(FakeCluster([a_pod("one", **{names.COLD_START: TIMELINE})]), "flights")
    title, started, ready = capsys.readouterr().out.splitlines()
    assert title == "one/main  2026-01-01T10:00:00.000Z  ready in 40 ms, started from the warm pool"
    assert started.split()[:3] == ["started", "10", "ms"] and started.count("█") == 10
    assert ready.endswith("  " + " " * 10 + "█" * 30)


def test_a_cluster_tells_whole_seconds():
    start = coldstart.from_status(a_pod("one"), "kserve-container", {})
    assert dict(start.ms) == {"decided": 1000.0, "downloaded": 3000.0, "started": 1000.0, "ready": 4000.0}
    assert start.is_rough and "ready in ~9.00 s" in coldstart.lines(start)[0]


def test_what_the_server_says_of_itself_fills_the_gap(capsys):
    page = 'glowplug_start_phase_seconds{phase="imported"} 0.5\nglowplug_start_phase_seconds{phase="loaded"} 1.5\n'
    assert coldstart.inner_phases(page + "other 1\n") == {"imported": 0.5, "loaded": 1.5}
    coldstart.print_starts(FakeCluster([a_pod("one")], metrics=page), "flights")
    shown = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown == [
        ["decided", "1.00", "s"], ["downloaded", "3.00", "s"], ["started", "1.00", "s"], ["imported", "500", "ms"],
        ["loaded", "1.50", "s"], ["ready", "2.00", "s"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "written", ["", "x", "[]", '{"main": 1}', '{"main": {"at": "", "how": "", "ms": {"a": "b"}}}']
)
def test_an_annotation_of_somebody_else_is_not_an_error(written):
    assert coldstart.from_annotation(a_pod("one", **{names.COLD_START: written})) == []


def test_pods_that_are_gone_are_told_by_events(capsys):
    def event(pod: str, **fields: str) -> dict:
        return {
            "reason": "ColdStart", "involvedObject": {"kind": "Pod", "name": pod}, "message": f"ready {pod}",
            "lastTimestamp": "2026-01-01T09:00:00Z", **fields,
        }  # fmt: skip

    events = [
        event("flights-predictor-00001-x"),
        event("flights-more-predictor-00001-x"),
        event("flights-predictor-2", reason="Started"),
    ]
    coldstart.print_starts(FakeCluster([], events), "flights")
    assert capsys.readouterr().out.splitlines() == [
        "pods that are gone:", "  2026-01-01T09:00:00Z  flights-predictor-00001-x  ready flights-predictor-00001-x",
    ]  # fmt: skip


def test_an_unknown_name_is_an_error_and_a_pod_that_is_not_ready_is_not(capsys):
    with pytest.raises(NotFound, match="flights"):
        coldstart.print_starts(FakeCluster([]), "flights")
    pod = a_pod("one")
    pod["status"] = {}
    coldstart.print_starts(FakeCluster([pod]), "flights")
    assert "no pod of flights has been ready yet" in capsys.readouterr().err
