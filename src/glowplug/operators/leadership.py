"""The lease on the API: taken, renewed and given back."""

from __future__ import annotations

import logging

from glowplug.errors import AlreadyExists, ApiError, Conflict, NotFound

from . import lease
from .api import Api, Object
from .lease import Seen

_log = logging.getLogger(__name__)
_KIND = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}


class Leadership:
    """Of the controllers that name the same lease, the one of this `identity` acts while it holds it."""

    def __init__(self, api: Api, name: str, namespace: str, identity: str, duration_s: int) -> None:
        self._api, self._name, self._identity, self._duration_s = api, name, identity, duration_s
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._seen = Seen()
        self._lease: Object | None = None

    @property
    def is_held(self) -> bool:
        """Whether it was this controller's when it was last asked for."""
        return self._lease is not None

    async def holds(self, now: float) -> bool:
        """Takes or renews the lease if it can be; `now` in seconds since the epoch. Raises what the API raises."""
        found: Object = {"metadata": {"name": self._name}, "spec": {}}
        is_new = False
        try:
            found = await self._api.get(f"{self._leases}/{self._name}")
        except NotFound:
            is_new = True
        spec, self._seen = lease.claim(
            found.get("spec") or {}, self._identity, self._duration_s, self._seen, now
        )
        if spec is None:
            self._lease = None
            return False
        body = {**_KIND, **found, "spec": spec}
        try:
            if is_new:
                self._lease = await self._api.create(self._leases, body)
            else:
                self._lease = await self._api.replace(f"{self._leases}/{self._name}", body)
        except (AlreadyExists, Conflict):
            self._lease = None  # somebody else was faster
        return self.is_held

    async def release(self) -> None:
        """Gives the lease away; where that fails it runs out by itself."""
        if self._lease is None:
            return
        spec = lease.released(self._lease["spec"])
        try:
            await self._api.replace(f"{self._leases}/{self._name}", {**self._lease, "spec": spec})
        except (ApiError, OSError) as error:
            _log.warning("the lease runs out by itself: %s", error)
        self._lease = None
