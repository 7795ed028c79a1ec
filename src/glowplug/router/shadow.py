"""Shadow traffic's part of Envoy, pure: which share of a route is copied, and the way of a shadow's own requests.

Envoy's own mirroring throws the answers away, so requests and answers are copied, see `copies`.

Whoever takes the copies sends the requests to the shadow through a listener on a unix socket of its own, straight to
the activator's entrance: so they are asked for and counted there, they are in no statistics of the revision's clusters
and in no access log, and they are not copied again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from glowplug.router.clusters import ENTRY, TYPE, Resource
from glowplug.router.copies import shadowed
from glowplug.spec import names
from glowplug.spec.routes import Shadow

_LISTENER = "shadow"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
# A weight of one percent, so that a shadow's share may be a ten thousandth of it.
_PARTS = 10_000


def weights(
    shares: Iterable[tuple[str, Resource]],
    shadow: Shadow,
    service: str,
    *,
    prefix: str,
    is_by_caller: bool,
    keys: Mapping[str, str],
) -> list[Resource]:
    """A route's weighted clusters (by revision), of which the shadow's share of each other revision is copied.

    Where callers are known (`is_by_caller`) they keep their revision, so the sum of the weights has to stay: the sample
    is of callers then, in whole percents. `keys` are those of the revisions whose pods copy by themselves.
    """
    parts = 1 if is_by_caller else _PARTS
    found: list[Resource] = []
    for revision, cluster in shares:
        whole = cluster["weight"] * parts
        copied = 0 if revision == shadow.revision else max(1, round(whole * shadow.percent / 100))
        if whole > copied:
            found.append({**cluster, "weight": whole - copied})
        if copied:
            about = {
                names.COPY_SERVICE: service,
                names.COPY_REVISION: revision,
                names.COPY_SHADOW: shadow.revision,
            }
            found.append(shadowed({**cluster, "weight": copied}, about, prefix, keys.get(revision, "")))
    return found


def timed(route: Resource) -> Resource:
    """The same route for the requests of shadows alone, whose answers say how long the pod took."""
    is_shadows = {"name": names.SHADOW_HEADER, "present_match": True}
    # What x-envoy-upstream-service-time is to the revision in use; no number where the pod has sent nothing.
    time = {"key": names.POD_TIME_HEADER, "value": "%COMMON_DURATION(US_TX_END:US_RX_BEG:ms)%"}
    return {
        **route,
        "match": {**route["match"], "headers": [is_shadows]},
        "response_headers_to_add": [{"header": time, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def listener(shadow: Path) -> Resource:
    """Where the requests for shadows come in, with the headers that name their revision."""
    to = {"cluster": ENTRY, "timeout": "0s", "idle_timeout": "0s"}
    manager = {
        "@type": TYPE + _MANAGER,
        "stat_prefix": _LISTENER,
        "codec_type": "AUTO",
        # gRPC comes as HTTP/1.1, with its status in trailers.
        "http_protocol_options": {"enable_trailers": True},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": TYPE + _ROUTER, "suppress_envoy_headers": True},
            }
        ],
        "route_config": {
            "name": _LISTENER,
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": to}]}
            ],
        },
        "server_header_transformation": "PASS_THROUGH",
        "use_remote_address": False,
        "skip_xff_append": True,
        "generate_request_id": False,
        "stream_idle_timeout": "0s",
    }
    return {
        "name": _LISTENER,
        "address": {"pipe": {"path": str(shadow), "mode": 0o600}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
