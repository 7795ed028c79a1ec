from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.router.envoy_model import clusters_of, rewritten, route_of, weights
from unit.router.tables import CONFIG, PREFIXES, SEGMENTS, TAGS, snapshot_of, tables

from glowplug.router import xds
from glowplug.router.clusters import ENTRY
from glowplug.router.layout import LOCAL_FILE, ROUTES_FILE
from glowplug.router.routes import main_routes
from glowplug.spec.routes import Backend, Endpoint, RouteEntry, RouteTable, Split

REVISION = "default/flights-00001"
READY = Backend(REVISION, (Endpoint("default/p", "127.0.0.1", 40001, 40002),), 0, 30.0)


def entry(
    name: str = "flights",
    *prefixes: str,
    hosts: tuple[str, ...] = (),
    splits: tuple[Split, ...] | None = None,
) -> RouteEntry:
    return RouteEntry("default", name, hosts, prefixes, (Split(REVISION, 100),) if splits is None else splits)


@given(
    st.dictionaries(PREFIXES, st.sampled_from("xyz"), max_size=6),
    st.lists(SEGMENTS, max_size=4),
    st.sampled_from(["", "/", "?a=b", "/?/"]),
)
def test_the_longest_prefix_of_whole_segments_wins_and_is_cut_off(
    prefixes: dict[str, str], parts: list[str], end: str
) -> None:
    entries = [entry(name, *(p for p, n in prefixes.items() if n == name)) for name in "xyz"]
    configuration = main_routes(entries, {REVISION: READY}, CONFIG)
    pure = "".join(f"/{part}" for part in parts)
    path = pure + end if pure or end.startswith("/") else "/" + end

    beginnings = ["/" + "/".join(parts[:n]) for n in range(len(parts), 0, -1)]
    expected = next((prefix for prefix in beginnings if prefix in prefixes), None)
    route = route_of(configuration, "127.0.0.1:8080", path)
    if expected is None:
        assert route is None
    else:
        assert route is not None
        assert route["name"] == f"default/{prefixes[expected]}"
        rest = path[len(expected) :]
        assert rewritten(route, path) == (rest if rest.startswith("/") else "/" + rest)


@given(tables())
def test_each_address_leads_to_its_splits(table: RouteTable) -> None:
    configuration = snapshot_of(table).routes[ROUTES_FILE]
    backends = {backend.revision: backend for backend in table.backends}
    for route_entry in table.routes:
        expected = {split.revision: split.percent for split in route_entry.splits if split.percent}
        is_live = any(backends[r].endpoints for r in expected if r in backends)
        for is_grpc, suffix in ((False, ""), (True, "/grpc")):
            route = route_of(configuration, f"{route_entry.name}.default:80", "/v2/x", is_grpc=is_grpc)
            assert route is not None
            if is_live:
                found = weights(route)
                assert set(found) == {revision + suffix for revision in expected}
                assert sum(found.values()) == 100
                if len(found) > 1:
                    assert found == {revision + suffix: percent for revision, percent in expected.items()}
            else:
                assert route["direct_response"]["status"] == 503


@given(tables())
def test_each_tag_leads_to_its_revision_and_any_other_to_the_splits(table: RouteTable) -> None:
    configuration = snapshot_of(table).routes
    backends = {backend.revision: backend for backend in table.backends}
    for route_entry in table.routes:
        tags = dict(route_entry.tags)
        for tag in TAGS:
            for is_grpc, suffix in ((False, ""), (True, "/grpc")):
                host = f"{route_entry.name}.default"
                main = configuration[ROUTES_FILE]
                route = route_of(main, host, "/v2/x", is_grpc=is_grpc, tag=tag)
                assert route is not None
                if tag not in tags:
                    assert route == route_of(main, host, "/v2/x", is_grpc=is_grpc)
                elif tags[tag] in backends and backends[tags[tag]].endpoints:
                    assert weights(route) == {tags[tag] + suffix: 100}
                else:
                    assert route["direct_response"]["status"] == 503
                    assert tags[tag] in route["direct_response"]["body"]["inline_string"]


@given(tables())
def test_whatever_a_route_leads_to_has_a_cluster(table: RouteTable) -> None:
    state = snapshot_of(table)
    for file in (ROUTES_FILE, LOCAL_FILE):
        assert clusters_of(state.routes[file]) <= set(state.clusters) | {ENTRY}


@given(tables())
def test_a_split_knows_its_callers_only_where_that_is_asked_for(table: RouteTable) -> None:
    configuration = snapshot_of(table).routes[ROUTES_FILE]
    for route_entry in table.routes:
        route = route_of(configuration, f"{route_entry.name}.default", "/v2/x")
        assert route is not None
        if "route" in route:
            is_asked = route_entry.affinity is not None and len(weights(route)) > 1
            assert ("hash_policy" in route["route"]) is is_asked
            assert ("use_hash_policy" in route["route"]["weighted_clusters"]) is is_asked


def test_a_service_without_tags_costs_no_route_more_and_tells_its_pods_nothing() -> None:
    (host, rest) = main_routes([entry("x", "/x", hosts=("x.default",))], {REVISION: READY}, CONFIG)[
        "virtual_hosts"
    ]
    assert len(host["routes"]) == 2
    assert "knative-serving-tag" not in str((host, rest))
    assert "default-route" not in str((host, rest))


@given(tables(), st.randoms())
def test_the_order_of_the_table_does_not_matter(table: RouteTable, rng: random.Random) -> None:
    routes, backends = list(table.routes), list(table.backends)
    rng.shuffle(routes)
    rng.shuffle(backends)
    one, other = snapshot_of(table), snapshot_of(RouteTable(tuple(routes), tuple(backends)))
    assert xds.cluster_document(one.clusters) == xds.cluster_document(other.clusters)
    for file in (ROUTES_FILE, LOCAL_FILE):
        assert xds.route_document(file, one.routes[file]) == xds.route_document(file, other.routes[file])


def test_a_doubled_address_goes_to_the_first_by_name() -> None:
    entries = [entry(name, "/serving/default/x", hosts=("x.default",)) for name in ("b", "a")]
    configuration = main_routes(entries, {REVISION: READY}, CONFIG)
    for host, path in (("x.default", "/"), ("other", "/serving/default/x")):
        route = route_of(configuration, host, path)
        assert route is not None
        assert route["name"] == "default/a"


@pytest.mark.parametrize("host", ["", "*", "a b", "a/b", "-a", "a:80"])
def test_a_host_that_envoy_would_refuse_is_left_out(host: str) -> None:
    configuration = main_routes([entry("x", hosts=(host, "Good.default"))], {REVISION: READY}, CONFIG)
    assert [vh["domains"] for vh in configuration["virtual_hosts"]] == [["good.default"], ["*"]]


@pytest.mark.parametrize("prefix", ["", "/", "a", "/a b", "/a?b", "//", "/a//b"])
def test_a_prefix_that_envoy_would_refuse_is_left_out(prefix: str) -> None:
    configuration = main_routes([entry("x", prefix)], {REVISION: READY}, CONFIG)
    assert configuration["virtual_hosts"] == [main_routes([], {}, CONFIG)["virtual_hosts"][0]]


def test_a_revision_without_pods_is_named_with_what_to_type() -> None:
    configuration = main_routes([entry("x", "/x")], {}, CONFIG)
    route = route_of(configuration, "", "/x/v2")
    assert route is not None
    message = route["direct_response"]["body"]["inline_string"]
    assert REVISION in message
    assert "kubectl get pods -n default -l serving.knative.dev/revision=flights-00001" in message


def test_the_longest_timeout_of_the_revisions_counts() -> None:
    slow = Backend("default/slow", (), 0, 600.0)
    splits = (Split(REVISION, 90), Split("default/slow", 10))
    configuration = main_routes(
        [entry("x", "/x", splits=splits)], {REVISION: READY, "default/slow": slow}, CONFIG
    )
    route = route_of(configuration, "", "/x/")
    assert route is not None
    assert route["route"]["idle_timeout"] == "600.000s"
