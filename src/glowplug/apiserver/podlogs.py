"""`GET pods/<name>/log`: the query to a call of whoever has the lines, and a byte limit on what comes back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from math import ceil
from typing import Protocol

from glowplug.apiserver.codec import Object
from glowplug.apiserver.http import Request, Stream
from glowplug.apiserver.objects import Objects
from glowplug.apiserver.options import flag, number
from glowplug.apiserver.routes import Target
from glowplug.errors import ApiError, BadRequest
from glowplug.spec.kinds import POD
from glowplug.spec.times import parse_time

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


class LogSource(Protocol):
    """Has the output of the pods' processes."""

    def read(
        self,
        namespace: str,
        pod: str,
        container: str | None,
        *,
        follow: bool,
        tail_lines: int | None,
        since_seconds: int | None,
        previous: bool,
        timestamps: bool,
    ) -> AsyncIterator[bytes]:
        """The lines, oldest first; with `follow` it ends when the container does.

        An ApiError is answered with its code if the call raises it, as text if the iteration does.
        """
        ...


def read_log(objects: Objects, source: LogSource, target: Target, request: Request) -> Stream:
    """The answer to a log request. Raises NotFound (the pod), BadRequest (the container, a parameter)."""
    pod = objects.get(POD, target.namespace, target.name)
    query = request.query
    lines = source.read(
        target.namespace,
        target.name,
        _container(pod, query.get("container", "")),
        follow=flag(query, "follow"),
        tail_lines=number(query, "tailLines"),
        since_seconds=_since_s(query, objects.now()),
        previous=flag(query, "previous"),
        timestamps=flag(query, "timestamps"),
    )
    return Stream(_limited(lines, number(query, "limitBytes")), "text/plain")


def _container(pod: Object, wanted: str) -> str:
    spec = pod.get("spec") or {}
    names = [one["name"] for one in spec.get("containers") or []]
    extra = [one["name"] for one in spec.get("initContainers") or []]
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
    # The storage initializer is told in the status only: the machine runs it, no manifest names it.
    extra += [one["name"] for one in statuses if one["name"] not in extra]
    name = pod["metadata"]["name"]
    if wanted:
        if wanted not in (*names, *extra):
            raise BadRequest(
                f"container {wanted} is not valid for pod {name}", hint=f"it has {', '.join(names)}"
            )
        return wanted
    default = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER, "")
    if len(names) != 1 and default not in names:
        raise BadRequest(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
        )
    return str(default) if default in names else str(names[0])


def _since_s(query: dict[str, str], now: datetime) -> int | None:
    if not query.get("sinceTime"):
        return number(query, "sinceSeconds")
    if query.get("sinceSeconds"):
        raise BadRequest("only one of sinceSeconds and sinceTime may be given")
    since = parse_time(query["sinceTime"])
    if since is None:
        raise BadRequest(f"sinceTime is {query['sinceTime']!r}, must be a time of RFC 3339")
    return max(0, ceil((now - since).total_seconds()))


async def _limited(lines: AsyncIterator[bytes], limit: int | None) -> AsyncGenerator[bytes, None]:
    left = limit
    try:
        async for chunk in lines:
            if left is None:
                yield chunk
                continue
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return
    except ApiError as error:
        # The headers are out: as Kubernetes does, the text says what went wrong.
        yield f"{error.message}\n".encode()
    finally:
        if isinstance(lines, AsyncGenerator):
            await lines.aclose()
