"""Where the router and Envoy keep things: one folder that no other user can enter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CLUSTERS_FILE = "cds.json"
LISTENERS_FILE = "lds.json"
ROUTES_FILE = "rds.json"
LOCAL_FILE = "rds-local.json"

# What a socket's address holds on the smallest of the systems (macOS), less the longest name below.
MAX_SOCKETS_PATH = 103 - len("/endpoints.sock")


@dataclass(frozen=True)
class Layout:
    """`directory` holds everything but the sockets, which may need a shorter path."""

    directory: Path
    sockets: Path

    @property
    def xds(self) -> Path:
        """The files that Envoy follows; each is replaced by a rename within this folder."""
        return self.directory / "xds"

    @property
    def bootstrap(self) -> Path:
        return self.directory / "envoy.json"

    @property
    def access_log(self) -> Path:
        return self.directory / "access.log"

    @property
    def admin(self) -> Path:
        return self.sockets / "admin.sock"

    @property
    def probe(self) -> Path:
        return self.sockets / "probe.sock"

    @property
    def endpoints(self) -> Path:
        return self.sockets / "endpoints.sock"

    @property
    def copies(self) -> Path:
        """Where Envoy sends copies of requests; this socket is the shadow's."""
        return self.sockets / "copies.sock"

    @property
    def payloads(self) -> Path:
        """Where Envoy sends copies of what is logged; this socket is the payload logger's."""
        return self.sockets / "payloads.sock"

    @property
    def uncopied(self) -> Path:
        """A folder: how many copies each of the pods that copy by themselves could not hand over."""
        return self.directory / "uncopied"

    @property
    def shadow(self) -> Path:
        """Where Envoy takes requests for shadows."""
        return self.sockets / "shadow.sock"

    @property
    def admission(self) -> Path:
        """Where Envoy asks the activator; this socket is the activator's."""
        return self.sockets / "admission.sock"
