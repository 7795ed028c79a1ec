"""Paths to targets, and query parameters to options."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.apiserver import options, routes
from glowplug.apiserver.routes import Target
from glowplug.errors import BadRequest, Gone, Invalid, NotFound
from glowplug.spec.kinds import (
    CLUSTER_SERVING_RUNTIME,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    NAMESPACE,
    POD,
)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target(POD)),
        ("/api/v1/namespaces", Target(NAMESPACE)),
        ("/api/v1/namespaces/lab", Target(NAMESPACE, "", "lab")),
        ("/api/v1/namespaces/lab/status", Target(NAMESPACE, "", "lab", "status")),
        ("/api/v1/namespaces/lab/pods", Target(POD, "lab")),
        ("/api/v1/namespaces/lab/pods/p/log", Target(POD, "lab", "p", "log")),
        ("/api/v1/namespaces/lab/configmaps/a%2Fb", Target(CONFIG_MAP, "lab", "a/b")),
        ("/apis/serving.kserve.io/v1beta1/inferenceservices", Target(INFERENCE_SERVICE)),
        (
            "/apis/serving.kserve.io/v1beta1/namespaces/lab/inferenceservices/x/status",
            Target(INFERENCE_SERVICE, "lab", "x", "status"),
        ),
        (
            "/apis/serving.kserve.io/v1alpha1/clusterservingruntimes/rt",
            Target(CLUSTER_SERVING_RUNTIME, "", "rt"),
        ),
    ],
)
def test_paths(path: str, target: Target) -> None:
    assert routes.resource(routes.split(path)) == target


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/widgets",
        "/api/v2/pods",
        "/apis/apps/v1/deployments",
        "/api/v1/namespaces/lab/pods/p/exec",
        "/api/v1/namespaces/lab/configmaps/c/status",
        "/api/v1/namespaces/lab/pods/p/log/more",
        "/api/v1/pods/p",
        "/apis/serving.kserve.io/v1alpha1/namespaces/lab/clusterservingruntimes",
        "/apis/serving.kserve.io/v1/inferenceservices",
        "/other",
    ],
)
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(NotFound, match="could not find the requested resource"):
        routes.resource(routes.split(path))


@given(st.text(max_size=80))
def test_any_path_is_a_target_or_not_found(path: str) -> None:
    segments = routes.split(f"/apis/{path}")
    with suppress(NotFound):
        assert routes.resource(segments).kind


def test_hint_says_what_is_served() -> None:
    with pytest.raises(NotFound) as caught:
        routes.resource(("api", "v1", "services"))
    assert "configmaps" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        routes.resource(("apis", "apps", "v1", "deployments"))
    assert "serving.kserve.io/v1beta1" in caught.value.hint


def test_write_options() -> None:
    wanted = options.write_options(
        {"dryRun": "All", "force": "true", "fieldValidation": "Strict"}, "kubectl/v1.37 (x)"
    )
    assert (wanted.is_dry_run, wanted.is_forced, wanted.validation) == (True, True, "Strict")
    assert wanted.manager == "kubectl"
    assert options.write_options({"fieldManager": "me"}, "").manager == "me"
    assert options.write_options({}, "").validation == "Warn"
    for query in ({"dryRun": "all"}, {"fieldValidation": "strict"}, {"force": "yes please"}):
        with pytest.raises(BadRequest):
            options.write_options(query, "")
    with pytest.raises(Invalid, match="required for apply patch"):
        options.required_manager({})


def test_list_options() -> None:
    assert options.page(CONFIG_MAP, {"resourceVersion": "0"}, 5).revision is None
    exact = {"resourceVersion": "3", "resourceVersionMatch": "Exact"}
    assert options.page(CONFIG_MAP, exact, 5).revision == 3
    assert options.page(CONFIG_MAP, {"limit": "7", "continue": "x"}, 5).limit == 7
    with pytest.raises(Gone, match="Too large resource version: 9, current: 5"):
        options.page(CONFIG_MAP, {"resourceVersion": "9"}, 5)
    for query in (
        {"limit": "-1"},
        {"limit": "many"},
        {"resourceVersion": "x"},
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "Newest", "resourceVersion": "1"},
    ):
        with pytest.raises(BadRequest):
            options.page(CONFIG_MAP, query, 5)


def test_watch_options() -> None:
    assert options.watch_options(CONFIG_MAP, {"resourceVersion": "0"}).revision is None
    wanted = options.watch_options(
        CONFIG_MAP, {"resourceVersion": "7", "allowWatchBookmarks": "1", "timeoutSeconds": "9"}
    )
    assert (wanted.revision, wanted.has_bookmarks, wanted.timeout_s) == (7, True, 9)
    initial = options.watch_options(CONFIG_MAP, {"resourceVersion": "7", "sendInitialEvents": "true"})
    assert (initial.revision, initial.sends_initial) == (None, True)


def test_delete_options() -> None:
    body = {
        "gracePeriodSeconds": 3,
        "propagationPolicy": "Orphan",
        "preconditions": {"uid": "u", "resourceVersion": "9"},
        "dryRun": ["All"],
    }
    wanted = options.delete_options({"propagationPolicy": "Foreground"}, body)
    assert (wanted.grace_period_s, wanted.propagation) == (3, "Orphan")
    assert (wanted.uid, wanted.revision, wanted.is_dry_run) == ("u", "9", True)
    wanted = options.delete_options({"gracePeriodSeconds": "0", "propagationPolicy": "Foreground"}, {})
    assert (wanted.grace_period_s, wanted.propagation, wanted.is_dry_run) == (0, "Foreground", False)
    assert options.delete_options({"orphanDependents": "true"}, {}).propagation == "Orphan"
    for bad in (
        {"propagationPolicy": "Never"},
        {"gracePeriodSeconds": "x"},
        {"preconditions": []},
        {"dryRun": ["x"]},
    ):
        with pytest.raises(BadRequest):
            options.delete_options({}, bad)
