from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from unit.router.envoy_model import clusters_of
from unit.router.tables import snapshot_of, tables

from glowplug.router.layout import LOCAL_FILE, ROUTES_FILE
from glowplug.router.update import (
    Leaver,
    finished,
    leavers,
    pods,
    steps,
    takes_requests,
    with_leavers,
    with_lingering,
)
from glowplug.router.xds import Snapshot
from glowplug.spec.routes import RouteTable


def routed(state: Snapshot) -> set[str]:
    return clusters_of(state.routes[ROUTES_FILE]) | clusters_of(state.routes[LOCAL_FILE])


@given(tables(), tables())
def test_no_step_leads_to_a_gap(old: RouteTable, new: RouteTable) -> None:
    applied, desired = snapshot_of(old), snapshot_of(new)
    path = [applied, *steps(applied, desired)]
    assert path[-1] == desired
    for before, state in itertools.pairwise(path):
        # While Envoy takes a step it may have the routes of one with the clusters of the other.
        assert routed(before) | routed(state) <= before.clusters.keys() & state.clusters.keys()
        table = desired if state.routes == desired.routes else applied
        for cluster in routed(state):
            assert takes_requests(state, cluster) or not takes_requests(table, cluster)


@given(tables(), tables())
def test_only_what_changes_is_a_step(old: RouteTable, new: RouteTable) -> None:
    applied, desired = snapshot_of(old), snapshot_of(new)
    path = [applied, *steps(applied, desired)]
    assert all(one != other for one, other in itertools.pairwise(path))
    assert len(path) <= 4
    assert steps(desired, desired) == []


@given(tables(), tables(), st.data())
def test_hosts_with_a_queue_leave_only_when_released(
    old: RouteTable, new: RouteTable, data: st.DataObject
) -> None:
    applied, desired = snapshot_of(old), snapshot_of(new)
    everyone = sorted(leavers(with_leavers(desired, applied, ())))
    released = (
        frozenset(data.draw(st.lists(st.sampled_from(everyone), unique=True))) if everyone else frozenset()
    )
    result = with_leavers(desired, applied, released)

    assert leavers(result) == set(everyone) - released
    assert result.clusters.keys() == result.endpoints.keys()
    assert pods(desired) <= pods(result) <= pods(desired) | pods(applied)
    for cluster, endpoints in result.endpoints.items():
        present = {host for host in endpoints.hosts if not host.is_leaving}
        wanted = desired.endpoints[cluster].hosts if cluster in desired.endpoints else ()
        assert present == set(wanted)
        assert endpoints.limit or not leavers(result) & {
            Leaver(cluster, host.address, host.port) for host in endpoints.hosts
        }
    assert routed(result) <= result.clusters.keys()


@given(tables(), tables())
def test_all_released_is_the_table_itself(old: RouteTable, new: RouteTable) -> None:
    applied, desired = snapshot_of(old), snapshot_of(new)
    everyone = leavers(with_leavers(desired, applied, ()))
    assert with_leavers(desired, applied, everyone) == desired


def test_a_queue_is_waited_for_until_it_is_empty_or_takes_too_long() -> None:
    busy, idle, old = (Leaver("default/r", "127.0.0.1", port) for port in (1, 2, 3))
    queues = {
        ("default/r", "127.0.0.1:1"): 2,
        ("default/r", "127.0.0.1:2"): 0,
        ("default/r", "127.0.0.1:3"): 1,
    }
    since = {busy: 95.0, idle: 99.0, old: 60.0}
    assert finished(since, queues, now=100.0, timeout_s=30.0) == {idle, old}


@given(tables(), tables(), st.data())
def test_clusters_without_a_route_linger_without_hosts_until_expired(
    old: RouteTable, new: RouteTable, data: st.DataObject
) -> None:
    applied, desired = snapshot_of(old), snapshot_of(new)
    gone = sorted(applied.clusters.keys() - desired.clusters.keys())
    expired = set(data.draw(st.lists(st.sampled_from(gone), unique=True))) if gone else set()
    result = with_lingering(desired, applied, expired)
    assert result.clusters == {
        **desired.clusters,
        **{name: applied.clusters[name] for name in gone if name not in expired},
    }
    assert result.clusters.keys() == result.endpoints.keys()
    assert pods(result) == pods(desired)
    assert steps(applied, result)[-1:] in ([result], [])
