"""Copies of requests and answers, pure: for a shadow, and for the payload logger.

A pod of our own server copies by itself, once its answer is on its way, where a header of the request says so: its name
is a secret of this run (`Backend.copy_key`), so that no client can ask for it. For all other pods Envoy copies. Either
way it is turned on for a part of the weight of a route.

Envoy's Lua filter runs a script (`glowplug.copies.script`) that writes copies to a unix socket as they pass, and waits
for nothing. Each taker has a filter and a socket of its own: the process of one may be behind, or gone, without the
other's noticing. The filters are off; one part of the weight of a route has them on, so a sample is Envoy's own random
choice, and what is not in it does not meet the filter at all. They are in the outer listeners: a request that waits for
a pod is copied once, and so is one that is tried again.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/lua_filter
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from glowplug.copies import script
from glowplug.copies.settings import Parts, Settings, Taker, takers_text
from glowplug.router.clusters import TYPE, Resource
from glowplug.router.layout import Layout
from glowplug.spec import names
from glowplug.spec.logger import MAX_BODY_BYTES as MAX_LOGGED_BYTES
from glowplug.spec.logger import Logger
from glowplug.spec.shadowing import MAX_BODY_BYTES as MAX_SHADOWED_BYTES

# The shadow's copies, and the payload logger's: names of filters, and of their statistics.
COPIES = "copies"
PAYLOADS = "payloads"
# Requests that the payload logger was to get and did not: whoever takes them is gone, or so far behind that no more may
# wait for it; or the script has failed.
UNCOPIED = rf"http\.(ingress|local)\.lua\.{PAYLOADS}\.(uncopied|errors)"
_LUA = "envoy.extensions.filters.http.lua.v3."
# The one script of a filter.
_SCRIPT = "copy"
# What events and `copies.inference` ask for, beside the headers that a logger names.
_LOGGED_REQUEST = (":path", "content-type", "ce-id", "inference-header-content-length", names.SHADOW_HEADER)
_LOGGED_ANSWER = (":status", "content-type", "inference-header-content-length")
# What `shadow.comparing` asks for. Of a request everything is sent on.
_COMPARED_ANSWER = (*_LOGGED_ANSWER, "content-encoding", "x-envoy-upstream-service-time")
# A weight of one percent, so that a share may be a thousandth of it; a shadow's share multiplies it again, and all
# weights of a route have to stay below 2**32.
_PARTS = 1000
_WHITE = frozenset(string.whitespace)
# Of a header that asks a pod to copy. Envoy takes 60 KiB of headers from a client, and our server 64 with these.
_MAX_HEADER_BYTES = 1536


def filters(layout: Layout) -> list[Resource]:
    """The filters of the listeners: off, but for the routes that turn them on."""
    return [
        _filter(COPIES, layout.copies, MAX_SHADOWED_BYTES, _COMPARED_ANSWER),
        _filter(PAYLOADS, layout.payloads, MAX_LOGGED_BYTES, _LOGGED_ANSWER),
    ]


def environment(layout: Layout, key: str) -> str:
    """What tells a pod that copies by itself where to, and by which headers it is asked to."""
    shadows = Taker(_header(COPIES, key), str(layout.copies), MAX_SHADOWED_BYTES, _COMPARED_ANSWER, lost="")
    loggers = Taker(
        _header(PAYLOADS, key), str(layout.payloads), MAX_LOGGED_BYTES, _LOGGED_ANSWER, str(layout.uncopied)
    )
    return takers_text((shadows, loggers))


def shadowed(cluster: Resource, about: Mapping[str, str], prefix: str, key: str) -> Resource:
    """A weighted cluster of which all is copied for a shadow: whoever takes the copies is told `about` with each."""
    return _copied(cluster, COPIES, key, lambda cut: Settings.of({**about, names.COPY_PREFIX: cut}), prefix)


def logged(
    shares: Iterable[tuple[str, Resource]],
    loggers: Mapping[str, Logger],
    *,
    prefix: str,
    is_by_caller: bool,
    keys: Mapping[str, str],
) -> list[tuple[str, Resource]]:
    """A route's weighted clusters (by revision), of which each logger's share of its own revision is copied.

    Where callers are known (`is_by_caller`) they keep their revision, so the sum of the weights has to stay: the sample
    is of callers then, in whole percents. `keys` are those of the revisions whose pods copy by themselves.
    """
    is_whole = is_by_caller or all(logger.percent in (0.0, 100.0) for logger in loggers.values())
    parts = 1 if is_whole else _PARTS
    found: list[tuple[str, Resource]] = []
    for revision, cluster in shares:
        whole = cluster["weight"] * parts
        logger = loggers.get(revision)
        copied = max(1, round(whole * logger.percent / 100)) if logger and logger.percent else 0
        if whole > copied:
            found.append((revision, {**cluster, "weight": whole - copied}))
        if copied and logger:
            part = {**cluster, "weight": copied}
            found.append((revision, _logged(part, logger, prefix, keys.get(revision, ""))))
    return found


def _logged(cluster: Resource, logger: Logger, prefix: str, key: str) -> Resource:
    return _copied(cluster, PAYLOADS, key, lambda cut: _logging(logger, cut), prefix)


def _logging(logger: Logger, prefix: str) -> Settings:
    about = {names.COPY_LOGGER: logger.to_text(), names.COPY_PREFIX: prefix}
    parts = Parts.ALL if logger.tells_requests else Parts.ANSWER
    if not logger.tells_responses:
        about[names.COPY_REQUEST_ONLY] = "true"
        parts = Parts.REQUEST
    # What is no header's name is in no request.
    headers = (name.lower() for name in logger.headers if not _WHITE.intersection(name))
    return Settings.of(about, parts, (*_LOGGED_REQUEST, *headers))


def _copied(
    cluster: Resource, taker: str, key: str, settings_of: Callable[[str], Settings], prefix: str
) -> Resource:
    """The cluster with its copies turned on: by its pods where it has a key, else by Envoy, who sees the prefix yet."""
    if key and len(text := settings_of("").to_header()) <= _MAX_HEADER_BYTES:
        # Envoy takes a % for the beginning of a variable.
        asked = {"key": _header(taker, key), "value": text.replace("%", "%%")}
        added = {"header": asked, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        return {**cluster, "request_headers_to_add": [*cluster.get("request_headers_to_add", ()), added]}
    per_route = {
        "@type": TYPE + _LUA + "LuaPerRoute",
        "name": _SCRIPT,
        "filter_context": {script.ROUTE: settings_of(prefix).to_script()},
    }
    return {
        **cluster,
        "typed_per_filter_config": {**cluster.get("typed_per_filter_config", {}), taker: per_route},
    }


def _header(taker: str, key: str) -> str:
    return f"glowplug-copy-{taker}-{key}"


def _filter(name: str, socket: Path, max_body_bytes: int, answer_headers: Iterable[str]) -> Resource:
    text = script.source(socket, f"glowplug.{name}", max_body_bytes, answer_headers)
    config = {
        "@type": TYPE + _LUA + "Lua",
        "source_codes": {_SCRIPT: {"inline_string": text}},
        "stat_prefix": name,
    }
    return {"name": name, "disabled": True, "typed_config": config}
