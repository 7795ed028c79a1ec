"""What each revision answered and how long it took, in Envoy's statistics: their configuration and their meaning.

Envoy counts at the end of each request, by the revision that the route chose, whichever way the request went: answers
by HTTP code and gRPC status as the caller saw them, after retries; and times from the first byte to the pod to the
last byte of its answer, without the wait for a pod. So one access log is in the outer listeners, and one, for the time
of requests that were held, in the listener within Envoy. A statistic begins with a revision's first request: who gets
none costs nothing. Nothing is read until somebody asks.

Envoy keeps times in bins of two significant digits, which `BOUNDS_US` are edges of: no rounding is added.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from glowplug.router import admin
from glowplug.router.clusters import TYPE, Resource
from glowplug.spec import names

_SCOPE = "responses"
STATISTICS = rf"{_SCOPE}\.(answered|pod_us)\..*"
# Of two neighbours the greater is at most an eighth more, mostly a tenth.
_DIGITS = (10, 11, 12, 13, 14, 16, 18, 20, 22, 24, 27, 30, 33, 36, 40, 44, 48, 53, 58, 64, 70, 77, 85, 93)
BOUNDS_US = tuple(
    digits * 10**power
    for power in range(1, 7)
    for digits in _DIGITS
    if 480 <= digits * 10**power <= 64_000_000
)
# gRPC's own table of HTTP equivalents (google.rpc.Code): what is the server's fault is a 5xx. UNKNOWN,
# DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
_GRPC_SERVER_ERRORS = frozenset({"2", "4", "12", "13", "14", "15"})
_INTERNAL = "envoy:"
_ANSWERED = re.compile(rf"{_SCOPE}\.answered\.revision\.(.+?)\.code\.(\d+)\.grpc\.(\d*)")
_POD = re.compile(rf"{_SCOPE}\.pod_us\.revision\.(.+?)\.via\.(.*)")


@dataclass(frozen=True)
class Responses:
    """Since Envoy started: answers by class (`2xx`...), and times in pods by bound in microseconds, not cumulated.

    Times above the last bound are counted under it.
    """

    answered: Mapping[str, int]
    times: Mapping[int, int]


def outer_log() -> Resource:
    """For the listeners where requests come in."""
    tags = [
        _REVISION,
        {"name": "code", "value_format": "%RESPONSE_CODE%"},
        {"name": "grpc", "value_format": "%GRPC_STATUS_NUMBER%"},
    ]
    return _log(counters=[{"stat": {"name": "answered", "tags": tags}, "value_fixed": 1}])


def inner_log() -> Resource:
    """For the listener within Envoy; a copy for a shadow is no request of the revision's."""
    header = {"name": names.SHADOW_HEADER, "present_match": True, "invert_match": True}
    return {**_log(), "filter": {"header_filter": {"header": header}}}


def forgotten_headers() -> list[Resource]:
    """The mutations that take from a request what only a route may say of it."""
    return [{"remove": header} for header in (names.NAMESPACE_HEADER, names.REVISION_HEADER)]


_REVISION = {
    "name": "revision",
    "value_format": f"%REQ({names.NAMESPACE_HEADER})%/%REQ({names.REVISION_HEADER})%",
}


def _log(**more: Any) -> Resource:
    # Seen from outside, the time of a held request has the wait in it; the tag tells such times from the others.
    via = {"name": "via", "value_format": "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}
    time = {
        "stat": {"name": "pod_us", "tags": [_REVISION, via]},
        "unit": "Microseconds",
        "value_format": "%COMMON_DURATION(US_TX_BEG:DS_TX_END:us)%",
    }
    config = {
        "@type": TYPE + "envoy.extensions.access_loggers.stats.v3.Config",
        "stats_scope": {"prefix": _SCOPE},
        "histograms": [time],
        **more,
    }
    return {"name": "envoy.access_loggers.stats", "typed_config": config}


async def read(socket: Path) -> dict[str, Responses]:
    """By revision, what Envoy has counted. Raises OSError or TimeoutError while it is not there."""
    # Workers hand over their times after an answer of the admin interface: asked once, it has those of the time before.
    await admin.request(socket, "/stats?filter=%5E%24")
    query = f"/stats?format=json&histogram_buckets=detailed&filter={quote(f'^{STATISTICS}$', safe='')}"
    status, body = await admin.request(socket, query)
    if status != 200:
        raise ConnectionError(f"{socket}: /stats answered {status}: {body[:200]}")
    return parse(orjson.loads(body)["stats"])


def parse(stats: Iterable[Mapping[str, Any]]) -> dict[str, Responses]:
    """Reads Envoy's statistics as JSON, with detailed histograms."""
    answered: dict[str, dict[str, int]] = {}
    times: dict[str, dict[int, int]] = {}
    for stat in stats:
        for histogram in stat.get("histograms", {}).get("details", ()):
            match = _POD.fullmatch(histogram["name"])
            if match and not match[2].startswith(_INTERNAL):
                _add(times.setdefault(match[1], {}), histogram["totals"])
        match = _ANSWERED.fullmatch(stat.get("name", ""))
        # Without a code: the caller was gone before there was an answer.
        if match and match[2] != "0":
            of_revision = answered.setdefault(match[1], {})
            kind = code_class(match[2], match[3])
            of_revision[kind] = of_revision.get(kind, 0) + stat["value"]
    return {
        revision: Responses(answered.get(revision, {}), times.get(revision, {}))
        for revision in sorted(answered.keys() | times.keys())
    }


def code_class(code: str, grpc_status: str) -> str:
    """`2xx` to `5xx`; what is wrong with a gRPC answer is in its status."""
    if grpc_status in ("", "0"):
        return f"{code[0]}xx"
    return "5xx" if grpc_status in _GRPC_SERVER_ERRORS else "4xx"


def _add(times: dict[int, int], bins: Iterable[Mapping[str, float]]) -> None:
    for one in bins:
        place = bisect_left(BOUNDS_US, round(one["lower_bound"] + one["width"]))
        bound = BOUNDS_US[min(place, len(BOUNDS_US) - 1)]
        times[bound] = times.get(bound, 0) + int(one["count"])
