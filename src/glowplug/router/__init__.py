"""The ingress: a route table, made true by the real Envoy.

Pure: `xds` and its parts (what Envoy shall run) and `update` (in which order it gets a change). Loops and I/O:
`router`, `feed`, `keeper`, `endpoints`. It decides nothing about where traffic goes; the table does.
"""

from glowplug.router.admin import RevisionStats
from glowplug.router.config import RouterConfig
from glowplug.router.router import Router

__all__ = ["RevisionStats", "Router", "RouterConfig"]
