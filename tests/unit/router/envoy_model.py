"""How Envoy reads a route configuration, as far as ours go: which route a request takes, and to what path."""

from __future__ import annotations

from typing import Any

Resource = dict[str, Any]


def route_of(
    configuration: Resource, host: str, path: str, *, is_grpc: bool = False, tag: str = ""
) -> Resource | None:
    """The route that Envoy takes, or None (404); `tag` is what the request's header names."""
    hosts = {domain: vh for vh in configuration["virtual_hosts"] for domain in vh["domains"]}
    assert len(hosts) == sum(len(vh["domains"]) for vh in configuration["virtual_hosts"]), "doubled domain"
    virtual_host = hosts.get(host.lower().partition(":")[0], hosts["*"])
    return next(
        (r for r in _candidates(virtual_host, path) if _matches(r["match"], path, is_grpc, tag)), None
    )


def rewritten(route: Resource, path: str) -> str:
    """What arrives at the pod."""
    rewrite = route["route"].get("prefix_rewrite")
    if rewrite is None:
        return path
    matched = route["match"].get("prefix") or route["match"]["path"]
    return str(rewrite + path[len(matched) :])


def weights(route: Resource) -> dict[str, int]:
    """Where the route leads, by cluster."""
    action = route["route"]
    if "cluster" in action:
        return {action["cluster"]: 100}
    return {part["name"]: part["weight"] for part in action["weighted_clusters"]["clusters"]}


def clusters_of(configuration: Resource) -> set[str]:
    """Every cluster that some route leads to."""
    routes = [r for vh in configuration["virtual_hosts"] for r in _all_routes(vh)]
    return {cluster for route in routes if "route" in route for cluster in weights(route)}


def _all_routes(virtual_host: Resource) -> list[Resource]:
    if "routes" in virtual_host:
        return list(virtual_host["routes"])
    (tree,) = (value for key, value in virtual_host["matcher"]["matcher_tree"].items() if key != "input")
    return [r for action in tree["map"].values() for r in action["action"]["typed_config"]["routes"]]


def _candidates(virtual_host: Resource, path: str) -> list[Resource]:
    if "routes" in virtual_host:
        return list(virtual_host["routes"])
    tree = virtual_host["matcher"]["matcher_tree"]["prefix_match_map"]["map"]
    keys = [key for key in tree if path.startswith(key)]
    return list(tree[max(keys, key=len)]["action"]["typed_config"]["routes"]) if keys else []


def _matches(match: Resource, path: str, is_grpc: bool, tag: str) -> bool:
    for header in match.get("headers", ()):
        assert header["name"] == "knative-serving-tag"
        if header["string_match"]["exact"] != tag:
            return False
    if "grpc" in match and not is_grpc:
        return False
    pure = path.partition("?")[0]
    if "path" in match:
        return bool(pure == match["path"])
    if "path_separated_prefix" in match:
        prefix = match["path_separated_prefix"]
        return bool(pure == prefix or pure.startswith(prefix + "/"))
    return path.startswith(match["prefix"])
