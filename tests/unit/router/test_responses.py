"""Envoy's statistics of answers: their names and what they mean."""

from __future__ import annotations

import itertools

import pytest

from glowplug.router.responses import BOUNDS_US, Responses, code_class, parse


def test_a_fifth_more_is_seen_at_any_latency() -> None:
    assert BOUNDS_US[0] == 480
    assert BOUNDS_US[-1] >= 60_000_000
    assert max(b / a for a, b in itertools.pairwise(BOUNDS_US)) <= 1.15


def test_bounds_are_edges_of_envoy_s_bins() -> None:
    """Two significant digits: a time is never counted on the wrong side of a bound."""
    for bound in BOUNDS_US:
        assert int(f"{bound:.1e}".replace(".", "")[:2]) == pytest.approx(bound / 10 ** (len(str(bound)) - 2))


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [("200", "", "2xx"), ("404", "", "4xx"), ("503", "", "5xx"), ("200", "0", "2xx"), ("200", "3", "4xx"),
     ("200", "13", "5xx"), ("200", "14", "5xx"), ("200", "4", "5xx"), ("200", "1", "4xx"), ("200", "8", "4xx")],
)  # fmt: skip
def test_grpc_answers_are_told_by_their_status(code: str, status: str, kind: str) -> None:
    assert code_class(code, status) == kind


def test_statistics_are_added_up_by_revision() -> None:
    bins = [
        {"lower_bound": 1000, "width": 100, "count": 3},
        {"lower_bound": 90_000_000, "width": 1e6, "count": 1},
    ]
    stats = [
        {"name": "responses.answered.revision.ns/r.code.200.grpc.", "value": 4},
        {"name": "responses.answered.revision.ns/r.code.204.grpc.", "value": 1},
        {"name": "responses.answered.revision.ns/r.code.200.grpc.13", "value": 2},
        {"name": "responses.answered.revision.ns/r.code.0.grpc.", "value": 9},
        {"name": "server.live", "value": 1},
        {
            "histograms": {
                "details": [
                    {"name": "responses.pod_us.revision.ns/r.via.127.0.0.1", "totals": bins},
                    {"name": "responses.pod_us.revision.ns/r.via.envoy://activator/", "totals": bins},
                    {"name": "responses.pod_us.revision.ns/s.via.127.0.0.1", "totals": bins[:1]},
                ]
            }
        },
    ]
    assert parse(stats) == {
        "ns/r": Responses({"2xx": 5, "5xx": 2}, {1100: 3, BOUNDS_US[-1]: 1}),
        "ns/s": Responses({}, {1100: 3}),
    }
