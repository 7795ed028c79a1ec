"""Routes of which a share is copied for a shadow."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.router.tables import CONFIG

from glowplug.copies.script import ROUTE
from glowplug.router.copies import COPIES
from glowplug.router.routes import main_routes
from glowplug.router.shadow import weights
from glowplug.spec import names
from glowplug.spec.affinity import Affinity, Source
from glowplug.spec.routes import Backend, Endpoint, Mode, RouteEntry, Shadow, Split

STABLE, CANARY = "default/flights-1", "default/flights-2"
BACKENDS = {
    name: Backend(name, (Endpoint(f"{name}-pod", "127.0.0.1", 4000, None),), 0, 30.0)
    for name in (STABLE, CANARY)
}


def entry(percent: float, *, canary: int = 0, **more: object) -> RouteEntry:
    splits = (Split(STABLE, 100 - canary), Split(CANARY, canary))
    shadow = Shadow(CANARY, percent)
    made = RouteEntry(
        "default", "flights", ("flights.default",), ("/serving/flights",), splits, shadow=shadow
    )
    return replace(made, **more)  # type: ignore[arg-type]


def route_of(of: RouteEntry, backends: dict[str, Backend] = BACKENDS) -> dict:
    (host, _) = main_routes([of], backends, CONFIG)["virtual_hosts"]
    return host["routes"][-1]["route"]


def shares(route: dict) -> list[tuple[str, float, bool]]:
    """By cluster, its part of all, and whether that part is copied."""
    clusters = route["weighted_clusters"]["clusters"]
    total = sum(cluster["weight"] for cluster in clusters)
    return [(c["name"], 100 * c["weight"] / total, "typed_per_filter_config" in c) for c in clusters]


def test_a_share_of_what_goes_to_others_is_copied() -> None:
    assert shares(route_of(entry(20))) == [(STABLE, 80, False), (STABLE, 20, True)]
    assert shares(route_of(entry(50, canary=10))) == [
        (STABLE, 45, False),
        (STABLE, 45, True),
        (CANARY, 10, False),
    ]
    assert shares(route_of(entry(100))) == [(STABLE, 100, True)]
    assert shares(route_of(entry(0.01))) == [(STABLE, 99.99, False), (STABLE, 0.01, True)]


@given(st.floats(0.0001, 100), st.lists(st.integers(1, 100), min_size=1, max_size=3), st.booleans())
def test_nobody_gets_more_or_less_for_it(
    percent: float, given_weights: list[int], is_by_caller: bool
) -> None:
    plain = [(f"default/r{n}", {"name": f"r{n}", "weight": w}) for n, w in enumerate(given_weights)]
    found = weights(plain, Shadow("default/r1", percent), "s", prefix="", is_by_caller=is_by_caller, keys={})
    scale = sum(cluster["weight"] for cluster in found) / sum(given_weights)
    assert scale == (1 if is_by_caller else 10_000)
    assert all(cluster["weight"] > 0 for cluster in found)
    for name, cluster in plain:
        parts = [c for c in found if c["name"] == cluster["name"]]
        assert sum(part["weight"] for part in parts) == cluster["weight"] * scale
        copied = [part["weight"] for part in parts if "typed_per_filter_config" in part]
        assert len(copied) == (name != "default/r1")
        if copied:
            assert copied[0] == pytest.approx(cluster["weight"] * scale * percent / 100, abs=1.0)


def test_callers_keep_their_revision() -> None:
    affinity = Affinity(Source.HEADER, "x-user")
    with_it, without = (
        entry(20, canary=10, affinity=affinity),
        entry(20, canary=10, affinity=affinity, shadow=None),
    )
    total = [
        sum(c["weight"] for c in route_of(e)["weighted_clusters"]["clusters"]) for e in (with_it, without)
    ]
    assert total == [100, 100]


def test_the_copies_say_what_they_are_copies_of() -> None:
    (_, rest) = main_routes([entry(100)], BACKENDS, CONFIG)["virtual_hosts"]
    (action,) = rest["matcher"]["matcher_tree"]["prefix_match_map"]["map"].values()
    routes = action["action"]["typed_config"]["routes"]
    for route in routes:
        (cluster,) = route["route"]["weighted_clusters"]["clusters"]
        told, parts, headers = cluster["typed_per_filter_config"][COPIES]["filter_context"][ROUTE].split("\n")
        assert (parts, headers) == ("", "")
        assert json.loads(told) == {
            names.COPY_SERVICE: "default/flights",
            names.COPY_REVISION: STABLE,
            names.COPY_SHADOW: CANARY,
            names.COPY_PREFIX: "/serving/flights",
        }


def test_a_shadow_that_nothing_can_serve_gets_no_copies() -> None:
    empty = Backend(CANARY, (), 0, 30.0)
    for backends in ({STABLE: BACKENDS[STABLE]}, {**BACKENDS, CANARY: empty}):
        assert shares(route_of(entry(20), backends)) == [(STABLE, 100, False)]
    waking = {**BACKENDS, CANARY: replace(empty, mode=Mode.PROXY)}
    assert len(shares(route_of(entry(20), waking))) == 2


def test_whoever_names_a_tag_is_not_copied() -> None:
    of = entry(20, tags=(("prev", STABLE),))
    (host, _) = main_routes([of], BACKENDS, CONFIG)["virtual_hosts"]
    is_copied = [COPIES in str(route) for route in host["routes"]]
    assert is_copied == [False, False, True, True]
