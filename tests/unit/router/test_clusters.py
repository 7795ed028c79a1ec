from __future__ import annotations

from hypothesis import given
from unit.router.tables import CONFIG, snapshot_of, tables

from glowplug.router.clusters import Host, assignment, clusters, endpoints, revision_of
from glowplug.spec.routes import Backend, Endpoint, RouteTable

BOTH = Endpoint("default/a", "127.0.0.1", 40001, 40002)
H2C = Endpoint("default/b", "127.0.0.1", 40003, None)


def test_grpc_goes_to_its_own_port_or_to_the_only_one() -> None:
    found = endpoints(Backend("default/r", (H2C, BOTH), 0, 30.0))
    assert found["default/r"].hosts == (Host("127.0.0.1", 40001, BOTH.pod), Host("127.0.0.1", 40003, H2C.pod))
    assert found["default/r/grpc"].hosts == (
        Host("127.0.0.1", 40002, BOTH.pod),
        Host("127.0.0.1", 40003, H2C.pod),
    )


def test_container_concurrency_limits_each_pod() -> None:
    found = clusters(Backend("default/r", (BOTH,), 3, 30.0), CONFIG)
    http, grpc = found["default/r"], found["default/r/grpc"]
    assert http["circuit_breakers"]["per_host_thresholds"] == [{"max_connections": 3}]
    assert grpc["circuit_breakers"]["per_host_thresholds"] == [{"max_connections": 1}]
    (options,) = grpc["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"]["http2_protocol_options"]["max_concurrent_streams"] == 3


def test_no_container_concurrency_is_no_limit() -> None:
    for cluster in clusters(Backend("default/r", (BOTH,), 0, 30.0), CONFIG).values():
        assert "per_host_thresholds" not in cluster["circuit_breakers"]


def test_a_leaving_host_is_draining() -> None:
    found = endpoints(Backend("default/r", (BOTH,), 1, 30.0))["default/r"]
    leaving = type(found)((Host("127.0.0.1", 1, "default/x", is_leaving=True), *found.hosts), 1)
    hosts = assignment("default/r", leaving)["endpoints"][0]["lb_endpoints"]
    assert [host.get("health_status") for host in hosts] == ["DRAINING", None]


@given(tables())
def test_every_revision_with_a_pod_has_two_clusters_with_their_endpoints(table: RouteTable) -> None:
    found = snapshot_of(table)
    assert found.clusters.keys() == found.endpoints.keys()
    ready = {backend.revision for backend in table.backends if backend.endpoints}
    with_hosts = {name for name, value in found.endpoints.items() if value.hosts}
    assert with_hosts == {name for revision in ready for name in (revision, revision + "/grpc")}
    assert all(revision_of(name) in ready or not found.endpoints[name].hosts for name in found.clusters)


def test_a_pod_whose_port_is_h2c_is_spoken_to_in_http2_alone() -> None:
    found = clusters(Backend("default/r", (H2C,), 3, 30.0, is_h2c=True), CONFIG)
    ways = [cluster["typed_extension_protocol_options"] for cluster in found.values()]
    assert ways[0] == ways[1]
