"""Which part of a route is copied for the payload logger."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.copies.script import ROUTE
from glowplug.copies.settings import Settings
from glowplug.router.copies import COPIES, PAYLOADS, logged
from glowplug.router.ways import way
from glowplug.spec import names
from glowplug.spec.logger import Logger
from glowplug.spec.routes import Backend, Endpoint, RouteEntry, Shadow, Split

ENDPOINT = Endpoint("default/pod", "127.0.0.1", 1000, None)
LOGGER = Logger("flights", "default", "predictor", "flights-00001", "http://sink/")
STABLE, CANARY = "default/flights-00001", "default/flights-00002"


def clusters_of(entry: RouteEntry, **loggers: Logger | None) -> list[dict[str, Any]]:
    backends = {
        name: Backend(name, (ENDPOINT,), 0, 60.0, logger=loggers.get(key))
        for key, name in (("stable", STABLE), ("canary", CANARY))
    }
    routes = way(entry, backends).routes({"prefix": "/"})
    found: list[dict[str, Any]] = routes[0]["route"]["weighted_clusters"]["clusters"]
    return found


def route(cluster: dict[str, Any], name: str = PAYLOADS) -> list[str]:
    """The lines of the settings that the script gets: what is said, which parts, the names of headers."""
    config = cluster.get("typed_per_filter_config", {}).get(name)
    return config["filter_context"][ROUTE].split("\n") if config else ["{}", "", ""]


def about(cluster: dict[str, Any], name: str = PAYLOADS) -> dict[str, str]:
    found: dict[str, str] = json.loads(route(cluster, name)[0])
    return found


def entry(canary: int = 0, shadow: Shadow | None = None) -> RouteEntry:
    splits = (Split(STABLE, 100 - canary), Split(CANARY, canary))
    return RouteEntry("default", "flights", ("flights",), (), splits, shadow=shadow)


def test_everything_of_a_revision_that_logs_and_nothing_of_another() -> None:
    stable, canary = clusters_of(entry(10), stable=LOGGER)
    assert Logger.from_text(about(stable)[names.COPY_LOGGER]) == LOGGER
    assert not about(canary)
    assert (stable["weight"], canary["weight"]) == (90, 10)


def test_each_revision_has_its_own_logger() -> None:
    other = replace(LOGGER, revision="flights-00002", url="http://other/")
    found = [
        json.loads(about(c)[names.COPY_LOGGER])["url"]
        for c in clusters_of(entry(10), stable=LOGGER, canary=other)
    ]
    assert found == ["http://sink/", "http://other/"]


@pytest.mark.parametrize(("mode", "parts"), [("all", ""), ("request", "request"), ("response", "answer")])
def test_only_what_is_told_of_is_copied(mode: str, parts: str) -> None:
    headers = ("X-User", "no name", "x-user", "ce-id")
    (cluster,) = clusters_of(entry(), stable=replace(LOGGER, mode=mode, headers=headers))
    _, copied, wanted = route(cluster)
    assert copied == parts and (names.COPY_REQUEST_ONLY in about(cluster)) == (mode == "request")
    assert sorted(wanted.split()) == [
        ":path", "ce-id", "content-type", "inference-header-content-length", "x-glowplug-shadow", "x-user",
    ]  # fmt: skip


def test_a_shadow_and_a_logger_take_their_copies_apart() -> None:
    shadow = Shadow(CANARY, 25.0)
    found = clusters_of(entry(10, shadow), stable=replace(LOGGER, percent=50.0), canary=None)
    total = sum(cluster["weight"] for cluster in found)
    by_pair = {
        (bool(about(cluster)), bool(about(cluster, COPIES))): cluster["weight"] / total
        for cluster in found
        if cluster["name"].startswith(STABLE)
    }
    expected = {
        (True, True): 0.1125,
        (True, False): 0.3375,
        (False, True): 0.1125,
        (False, False): 0.3375,
    }
    assert by_pair.keys() == expected.keys()
    assert all(abs(by_pair[key] - expected[key]) < 1e-6 for key in expected)
    assert total < 2**32


def asked(cluster: dict[str, Any]) -> dict[str, str]:
    """What the pods are asked to copy: settings by the header's name, as Envoy sends them."""
    headers = [each["header"] for each in cluster["request_headers_to_add"]]
    return {h["key"]: h["value"].replace("%%", "%") for h in headers if h["key"].startswith("glowplug-copy-")}


def test_pods_that_copy_by_themselves_are_asked_to_and_others_are_not() -> None:
    logger = replace(LOGGER, annotations=(("team", "flights, 100 %"),))
    key = {"copy_key": "secret"}
    backends = {
        STABLE: Backend(STABLE, (ENDPOINT,), 0, 60.0, logger=logger, **key),
        CANARY: Backend(CANARY, (ENDPOINT,), 0, 60.0, logger=logger),
    }
    shadow = Shadow("default/flights-00003", 100.0)
    backends[shadow.revision] = Backend(shadow.revision, (ENDPOINT,), 0, 60.0)
    found = way(entry(10, shadow), backends).routes({"prefix": "/serving/flights"}, prefix_rewrite="/")
    stable, canary = found[0]["route"]["weighted_clusters"]["clusters"]
    assert not asked(canary) and about(canary) and about(canary, COPIES)
    assert about(canary)[names.COPY_PREFIX] == "/serving/flights"
    assert "typed_per_filter_config" not in stable
    logged, shadowed = (
        asked(stable)["glowplug-copy-payloads-secret"],
        asked(stable)["glowplug-copy-copies-secret"],
    )
    settings = Settings.from_header(logged)
    told = json.loads(settings.about)
    assert Logger.from_text(told[names.COPY_LOGGER]) == logger
    # The pod sees no prefix.
    assert (
        told[names.COPY_PREFIX] == "" == json.loads(Settings.from_header(shadowed).about)[names.COPY_PREFIX]
    )
    assert settings.headers[0] == ":path" and not Settings.from_header(shadowed).headers
    assert "secret" not in repr(backends[STABLE])


def test_settings_too_long_for_a_header_go_to_envoy() -> None:
    long = replace(LOGGER, annotations=(("team", "x" * 2000),))
    backends = {STABLE: Backend(STABLE, (ENDPOINT,), 0, 60.0, logger=long, copy_key="secret")}
    to = way(RouteEntry("default", "flights", ("flights",), (), (Split(STABLE, 100),)), backends)
    (cluster,) = to.routes({"prefix": "/"})[0]["route"]["weighted_clusters"]["clusters"]
    assert not asked(cluster) and Logger.from_text(about(cluster)[names.COPY_LOGGER]) == long


@given(st.floats(0, 100), st.integers(1, 99), st.booleans())
def test_a_share_changes_no_split(percent: float, weight: int, is_by_caller: bool) -> None:
    shares = [
        (STABLE, {"name": STABLE, "weight": weight}),
        (CANARY, {"name": CANARY, "weight": 100 - weight}),
    ]
    loggers = {STABLE: replace(LOGGER, percent=percent)}
    found = logged(shares, loggers, prefix="", is_by_caller=is_by_caller, keys={})
    total = sum(cluster["weight"] for _, cluster in found)
    stable = sum(cluster["weight"] for revision, cluster in found if revision == STABLE)
    assert stable * 100 == weight * total
    assert total == 100 or not is_by_caller
    copied = sum(cluster["weight"] for _, cluster in found if about(cluster))
    assert bool(copied) is (percent > 0)
    assert abs(copied / stable - percent / 100) <= 1 / min(stable, weight if is_by_caller else stable)
