"""Route entries → Envoy route configurations, pure.

Hosts become virtual hosts, which Envoy looks up in a hash table. Path prefixes go into one trie on `:path`, since a
list of routes would be walked for every request. A prefix ends at a segment: `/serving/default/flights` does not
match `/serving/default/flights2`. gRPC goes to the same address and is told apart by its content type.

What a service becomes is remembered: a table of a thousand services is a new table when one of them changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from glowplug.router.clusters import TYPE, Resource
from glowplug.router.config import RouterConfig
from glowplug.router.listeners import LISTENER_HEADER, LOCAL, local_name
from glowplug.router.replies import UNREACHED
from glowplug.router.ways import Way, no_way, way
from glowplug.spec.routes import Backend, RouteEntry

MAIN = "main"

# One bad name makes Envoy refuse the whole route configuration, so names that it would not take are left out.
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")
_REMEMBERED = 16384


def main_routes(
    entries: Sequence[RouteEntry], backends: Mapping[str, Backend], config: RouterConfig
) -> Resource:
    """The ingress: every host and every path prefix. The first entry, in order of name, keeps a doubled address."""
    hosts: set[str] = set()
    prefixes: dict[str, Way] = {}
    virtual_hosts: list[Resource] = []
    for entry in sorted(entries, key=lambda e: (e.namespace, e.name)):
        to = way(entry, backends)
        new = tuple(sorted({h for h in map(str.lower, entry.hosts) if h not in hosts and _HOST.fullmatch(h)}))
        hosts.update(new)
        if new:
            virtual_hosts.append(_host(new, to, config.max_retries))
        for prefix in (prefix.rstrip("/") for prefix in entry.path_prefixes):
            if _PREFIX.fullmatch(prefix):
                prefixes.setdefault(prefix, to)
    rest = _virtual_host(("*",), config.max_retries, _by_path(prefixes))
    return _configuration(MAIN, [*virtual_hosts, rest])


def local_routes(
    services: Iterable[tuple[str, str]],
    entries: Sequence[RouteEntry],
    backends: Mapping[str, Backend],
    config: RouterConfig,
) -> Resource:
    """The cluster-local listeners: every request to the listener of a (namespace, service) goes to that service."""
    actions: Resource = {}
    for namespace, service in sorted(services):
        entry = _service(namespace, service, entries)
        to = no_way(namespace, service) if entry is None else way(entry, backends)
        actions[local_name(namespace, service)] = _action(_all_routes(to))
    by_listener = _matcher(LISTENER_HEADER, "exact_match_map", actions)
    return _configuration(LOCAL, [_virtual_host(("*",), config.max_retries, by_listener)])


def _service(namespace: str, service: str, entries: Sequence[RouteEntry]) -> RouteEntry | None:
    in_namespace = [entry for entry in entries if entry.namespace == namespace]
    host = f"{service}.{namespace}.svc.cluster.local"
    by_host = (entry for entry in in_namespace if host in entry.hosts)
    by_name = (entry for entry in in_namespace if entry.name == service)
    return next(by_host, None) or next(by_name, None)


def _configuration(name: str, virtual_hosts: list[Resource]) -> Resource:
    return {
        "@type": TYPE + "envoy.config.route.v3.RouteConfiguration",
        "name": name,
        "ignore_port_in_host_matching": True,
        # X-Forwarded-For says the same as Envoy's own; each header takes memory while its request waits.
        "request_headers_to_remove": [LISTENER_HEADER, "x-envoy-external-address"],
        "response_headers_to_remove": [UNREACHED],
        "virtual_hosts": virtual_hosts,
    }


@lru_cache(_REMEMBERED)
def _host(domains: tuple[str, ...], to: Way, max_retries: int) -> Resource:
    # A virtual host that only excuses itself needs no retries; they are half of its size.
    is_live = any(each.weights for _, each in to.choices())
    return _virtual_host(domains, max_retries if is_live else 0, {"routes": _all_routes(to)})


def _all_routes(to: Way) -> list[Resource]:
    """Of an address that is the service's own."""
    return [route for only, each in to.choices() for route in each.routes({"prefix": "/", **only})]


def _virtual_host(domains: Sequence[str], max_retries: int, content: Resource) -> Resource:
    policy = {"retry_policy": _retry_policy(max_retries)} if max_retries else {}
    # The activator chooses another pod for a second attempt.
    count = {"include_request_attempt_count": True} if max_retries else {}
    return {"name": domains[0], "domains": list(domains), **policy, **count, **content}


def _retry_policy(max_retries: int) -> Resource:
    # Also where the pod died over the request: to predict twice does no harm, a failed request does.
    previous_hosts = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    return {
        "retry_on": "connect-failure,refused-stream,reset,retriable-headers",
        "retriable_headers": [{"name": UNREACHED, "present_match": True}],
        "num_retries": max_retries,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": TYPE + previous_hosts},
            }
        ],
        # Of two pods, one of them dead and idle, a choice is the other one in 1 of 32 cases, see `clusters`.
        "host_selection_retry_max_attempts": "100",
        "retry_back_off": {"base_interval": "0.020s", "max_interval": "0.250s"},
    }


def _by_path(prefixes: Mapping[str, Way]) -> Resource:
    """A trie of prefixes. It finds the longest that `:path` starts with, which may end within a segment; that
    prefix's routes then don't match, so the routes of the shorter prefixes that it starts with follow them."""
    actions: Resource = {}
    for prefix in sorted(prefixes):
        shorter = tuple(s for s in (prefix[:n] for n in range(len(prefix), 0, -1)) if s in prefixes)
        actions[prefix] = _prefix(tuple((s, prefixes[s]) for s in shorter))
    return _matcher(":path", "prefix_match_map", actions)


@lru_cache(_REMEMBERED)
def _prefix(ways: tuple[tuple[str, Way], ...]) -> Resource:
    return _action([route for prefix, to in ways for route in _prefix_routes(prefix, to)])


def _prefix_routes(prefix: str, to: Way) -> list[Resource]:
    routes: list[Resource] = []
    for only, each in to.choices():
        if not each.weights:
            routes += each.routes({"path_separated_prefix": prefix, **only})
            continue
        routes += each.routes({"prefix": prefix + "/", **only}, prefix_rewrite="/")
        # gRPC has always a method below the prefix.
        routes += each.routes({"path": prefix, **only}, prefix_rewrite="/")[1:]
    return routes


def _action(routes: list[Resource]) -> Resource:
    config = {"@type": TYPE + "envoy.config.route.v3.RouteList", "routes": routes}
    return {"action": {"name": "routes", "typed_config": config}}


def _matcher(header: str, kind: str, actions: Resource) -> Resource:
    """The content of a virtual host that chooses by a header; Envoy takes no map that is empty."""
    if not actions:
        return {"routes": []}
    config = {"@type": TYPE + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": header}
    input_ = {"name": header.lstrip(":"), "typed_config": config}
    return {"matcher": {"matcher_tree": {"input": input_, kind: {"map": actions}}}}
