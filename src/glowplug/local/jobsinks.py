"""Where JobSinks take events: `POST /jobsink/<namespace>/<name>` on the broker's port.

202 is said when the Job and the Secret with the event are on the disk. The same event again finds its Job there.
Answers are those of knative.dev/eventing cmd/jobsink, except that what is not there is a 404 and that an event too
large for a Secret is refused before there is a Job.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote, unquote

from glowplug.broker.connection import Handler, Request, Response
from glowplug.controllers.eventing import jobsink
from glowplug.errors import AlreadyExists, ApiError, NotFound
from glowplug.spec.kinds import JOB, JOB_SINK, SECRET, Kind
from glowplug.wire.events import CloudEvent, EventProblem, decode, structured_json

PREFIX = "/jobsink/"
# What a Secret holds at most.
_MAX_EVENT_BYTES = 1024 * 1024
_ALLOW = {"allow": "POST, GET"}
# Where the Job of an event is asked for: namespaces/<namespace>/name/<name>/sources/<source>/ids/<id>
_LOCATION_WORDS = ("namespaces", "name", "sources", "ids")

Object = dict[str, Any]


class Objects(Protocol):
    """The part of the in-process API that this needs; a write that returned is on the disk."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object: ...
    def create(self, kind: Kind, obj: Object) -> Object: ...


class JobSinks:
    """Answers what is for JobSinks, and leaves the rest to `inner`."""

    def __init__(self, objects: Objects, inner: Handler) -> None:
        self._objects = objects
        self._inner = inner

    def handle(self, request: Request, answer: Callable[[Response], None]) -> None:
        """Answers at once."""
        if not request.path.startswith(PREFIX):
            self._inner.handle(request, answer)
            return
        try:
            answer(self._answer(request))
        except ApiError as error:
            # A full disk above all: whoever sent the event has it still.
            answer(Response(error.code, error.message))

    def _answer(self, request: Request) -> Response:
        path = request.path.partition("?")[0].removeprefix(PREFIX).strip("/")
        segments = [unquote(segment) for segment in path.split("/")]
        if request.method == "GET" and len(segments) == 8 and tuple(segments[::2]) == _LOCATION_WORDS:
            return self._state_of(*segments[1::2])
        if len(segments) != 2 or not all(segments):
            return Response(404, f"{request.path[:200]}, expected {PREFIX}<namespace>/<name>")
        if request.method != "POST":
            return Response(405, f"{request.method}, expected POST", _ALLOW)
        namespace, name = segments
        try:
            sink = self._objects.get(JOB_SINK, namespace, name)
        except NotFound:
            return Response(404, f"there is no JobSink {name[:200]} in namespace {namespace[:200]}")
        try:
            events = decode(request.headers, request.body)
        except EventProblem as error:
            return Response(error.status, error.message)
        if len(events) != 1:
            return Response(400, f"a batch of {len(events)} events, expected one event")
        return self._take(sink, events[0])

    def _take(self, sink: Object, event: CloudEvent) -> Response:
        content = structured_json(event)
        if len(content) > _MAX_EVENT_BYTES:
            return Response(
                413, f"the event has {len(content)} bytes, a JobSink takes {_MAX_EVENT_BYTES} at most"
            )
        namespace, sink_name = sink["metadata"]["namespace"], sink["metadata"]["name"]
        source, id = event.text("source"), event.text("id")
        name = jobsink.job_name(sink_name, source, id)
        try:
            job = self._objects.create(JOB, jobsink.make_job(sink, name))
        except AlreadyExists:
            job = self._objects.get(JOB, namespace, name)
        # Also beside a Job that is there: whatever came between the two has not kept its event from it.
        with contextlib.suppress(AlreadyExists):
            self._objects.create(SECRET, jobsink.make_secret(job, content))
        return Response(202, "", {"location": _location(namespace, sink_name, source, id)})

    def _state_of(self, namespace: str, sink: str, source: str, id: str) -> Response:
        name = jobsink.job_name(sink, source, id)
        try:
            job = self._objects.get(JOB, namespace, name)
        except NotFound:
            return Response(404, f"there is no Job {name} in namespace {namespace[:200]}")
        held = {
            each["type"]
            for each in (job.get("status") or {}).get("conditions") or ()
            if each["status"] == "True"
        }
        if "Failed" in held:
            return Response(400, f"Job {name} has failed", {"reason": "Failed"})
        if "Complete" in held:
            return Response(200, "", {"reason": "Complete"})
        return Response(202, "", {"location": _location(namespace, sink, source, id)})


def _location(*values: str) -> str:
    parts = (f"{word}/{quote(value, safe='')}" for word, value in zip(_LOCATION_WORDS, values, strict=True))
    return PREFIX + "/".join(parts)
