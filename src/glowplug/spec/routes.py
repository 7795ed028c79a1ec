"""The route table: what the route controller decides and the router makes true.

A table is whole, never a difference: the router compares it with what Envoy runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from glowplug.spec.affinity import Affinity
from glowplug.spec.logger import Logger


@dataclass(frozen=True)
class Endpoint:
    """One ready pod: `pod` is `namespace/name`; `grpc_port` is None where the pod speaks gRPC on `http_port`."""

    pod: str
    host: str
    http_port: int
    grpc_port: int | None


class Mode(Enum):
    """How requests reach a revision: as Knative's ServerlessService has it, straight to its pods (`SERVE`), or through
    the activator (`PROXY`), which holds them while no pod is free. `PROXY` also where there is no pod yet.
    """

    SERVE = "Serve"
    PROXY = "Proxy"


@dataclass(frozen=True)
class Backend:
    """One revision, `namespace/name`, and the pods that serve it now (none while it has no ready pod).

    Without pods, in mode `SERVE`, its requests are refused: nothing will come that could take them. Pods whose port is
    named `h2c` get every request over HTTP/2. `copy_key`: its pods copy requests and answers by themselves where a
    request says so under this secret, see `router.copies`; empty where Envoy has to.
    """

    revision: str
    endpoints: tuple[Endpoint, ...]
    container_concurrency: int  # requests at a time in one pod; 0 is no limit
    timeout_s: float
    mode: Mode = Mode.SERVE
    logger: Logger | None = None
    is_h2c: bool = False
    copy_key: str = field(default="", repr=False)

    @property
    def takes_requests(self) -> bool:
        """Whether a request for it is served, now or when a pod is there."""
        return bool(self.endpoints) or self.mode is Mode.PROXY

    @property
    def is_held(self) -> bool:
        """Whether its requests have to ask the activator. Of pods that take any number of requests at a time, one is
        always free, so while there is one the activator would let everybody go: it need not be asked."""
        return self.mode is Mode.PROXY and (self.container_concurrency > 0 or not self.endpoints)


@dataclass(frozen=True)
class Split:
    """`percent` of a route's requests go to `revision` (`namespace/name`)."""

    revision: str
    percent: int


@dataclass(frozen=True)
class Shadow:
    """Of the requests that go to other revisions, `percent` are also sent to `revision` (`namespace/name`), unseen."""

    revision: str
    percent: float


@dataclass(frozen=True)
class RouteEntry:
    """One address: any of `hosts` (without port), or any of `path_prefixes`, leads to `splits` (percents sum to 100).

    A prefix is cut off before the request goes on: `/serving/default/flights/v2/...` arrives as `/v2/...`.

    A request whose header `Knative-Serving-Tag` is one of `tags` goes to the revision beside it instead. `tag` is that
    of an address which belongs to one tag; its requests tell the pod so.
    """

    namespace: str
    name: str
    hosts: tuple[str, ...]
    path_prefixes: tuple[str, ...]
    splits: tuple[Split, ...]
    tags: tuple[tuple[str, str], ...] = ()
    tag: str = ""
    affinity: Affinity | None = None
    shadow: Shadow | None = None


@dataclass(frozen=True)
class RouteTable:
    """Every address of the machine, and every revision that one of them leads to."""

    routes: tuple[RouteEntry, ...] = ()
    backends: tuple[Backend, ...] = ()
