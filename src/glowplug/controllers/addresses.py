"""URLs and host names of what is served, each spelled once.

A URL in a status is the path form under the ingress, so that it works as it stands on this computer; the host names
are what the ingress also answers to.
"""

from __future__ import annotations

from .config import ControllersConfig


def path(namespace: str, name: str) -> str:
    return f"/serving/{namespace}/{name}"


def url(config: ControllersConfig, namespace: str, name: str) -> str:
    return config.ingress_url.rstrip("/") + path(namespace, name)


def hosts(config: ControllersConfig, namespace: str, name: str) -> tuple[str, ...]:
    """The public name, and those of a Service inside a cluster; without port."""
    return (
        f"{name}.{namespace}.{config.domain}",
        f"{name}.{namespace}.svc.cluster.local",
        f"{name}.{namespace}.svc",
        f"{name}.{namespace}",
    )


def tagged(tag: str, name: str) -> str:
    """The name of one tag of a route, as Knative's default tag template makes it."""
    return f"{tag}-{name}"
