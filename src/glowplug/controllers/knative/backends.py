"""A revision as the router knows it: the pods that take its requests now. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from glowplug.spec import names
from glowplug.spec.logger import logger_of
from glowplug.spec.revisions import DEFAULT_TIMEOUT_S
from glowplug.spec.routes import Backend, Endpoint, Mode

from ..metadata import Object, annotations_of, at, name_of, namespace_of
from .pods import is_h2c, is_ready, serving_container


def make_backend(
    revision: Object,
    pods: list[Object],
    is_held: bool,
    copy_key_of: Callable[[str], str] = lambda image: "",
) -> Backend:
    """The revision as the router knows it: its ready pods that have said where they listen."""
    serving = serving_container(revision["spec"])
    endpoints = [endpoint for endpoint in map(make_endpoint, pods) if endpoint is not None]
    return Backend(
        revision=f"{namespace_of(revision)}/{name_of(revision)}",
        endpoints=tuple(sorted(endpoints, key=lambda endpoint: endpoint.pod)),
        container_concurrency=at(revision, "spec", "containerConcurrency") or 0,
        timeout_s=float(at(revision, "spec", "timeoutSeconds") or DEFAULT_TIMEOUT_S),
        mode=Mode.PROXY if is_held else Mode.SERVE,
        logger=logger_of(revision),
        is_h2c=is_h2c(revision["spec"]),
        # A command is anybody's program, whatever the image.
        copy_key="" if serving.get("command") else copy_key_of(serving.get("image") or ""),
    )


def make_endpoint(pod: Object) -> Endpoint | None:
    """Where a pod takes requests; None while it does not."""
    if not is_ready(pod):
        return None
    try:
        ports: Any = json.loads(annotations_of(pod).get(names.ENDPOINT_PORTS, "null"))
        http, grpc = int(ports["http"]), ports.get("grpc")
    except (ValueError, TypeError, KeyError):
        return None
    host = str(at(pod, "status", "podIP") or "127.0.0.1")
    return Endpoint(f"{namespace_of(pod)}/{name_of(pod)}", host, http, int(grpc) if grpc else None)
