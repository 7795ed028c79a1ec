"""GET: one object, lists, and watches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from time import monotonic

import anyio

from glowplug.apiserver import options
from glowplug.apiserver.changes import ADDED, DELETED, MODIFIED, Change, Ref
from glowplug.apiserver.codec import decode, encode
from glowplug.apiserver.http import Request, Response, Stream
from glowplug.apiserver.negotiate import Renderer, choose, splice
from glowplug.apiserver.objects import Objects
from glowplug.apiserver.options import WatchOptions
from glowplug.apiserver.paging import Page
from glowplug.apiserver.routes import Target
from glowplug.apiserver.selectors import Selector
from glowplug.apiserver.watch import Hub, Watcher
from glowplug.errors import Gone

_INITIAL_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class ReadConfig:
    """Times of a watch: its length unless the client names one, and how often a quiet one is told the revision."""

    watch_timeout_s: float = 1800.0
    bookmark_interval_s: float = 60.0


class Reader:
    """Answers GET on objects and collections."""

    def __init__(self, objects: Objects, hub: Hub, config: ReadConfig) -> None:
        self._objects = objects
        self._hub = hub
        self._config = config

    def get(self, target: Target, request: Request) -> Response:
        """One object. Raises NotFound."""
        renderer = self._renderer(target, request)
        raw = self._objects.raw(Ref(target.kind, target.namespace, target.name))
        return Response(renderer.one(raw), content_type=renderer.content_type)

    def list(self, target: Target, request: Request) -> Response:
        """One page of a collection."""
        renderer = self._renderer(target, request)
        page = options.page(target.kind, request.query, self._objects.revision)
        listing = self._objects.page(target.kind, target.namespace, page)
        return Response(renderer.many(listing), content_type=renderer.content_type)

    def watch(self, target: Target, request: Request) -> Stream:
        """A stream of changes, one JSON line each."""
        renderer = self._renderer(target, request)
        wanted = options.watch_options(target.kind, request.query)
        return Stream(self._lines(target, wanted, renderer))

    def _renderer(self, target: Target, request: Request) -> Renderer:
        include = request.query.get("includeObject", "")
        return Renderer(target.kind, choose(request.accept), self._objects.now(), include)

    async def _lines(
        self, target: Target, wanted: WatchOptions, renderer: Renderer
    ) -> AsyncGenerator[bytes, None]:
        try:
            watcher = self._hub.watch(target.kind, wanted.revision)
        except Gone as error:
            yield _line("ERROR", encode(error.status()))
            return
        try:
            if wanted.revision is None:
                for line in self._existing(target, wanted, renderer):
                    yield line
            async for lines in self._following(target, wanted, renderer, watcher):
                yield lines
        except Gone as error:
            yield _line("ERROR", encode(error.status()))
        finally:
            self._hub.leave(watcher)

    def _existing(self, target: Target, wanted: WatchOptions, renderer: Renderer) -> Iterable[bytes]:
        listing = self._objects.page(target.kind, target.namespace, Page(wanted.selector))
        chunk = [_line(ADDED, renderer.event(raw)) for raw in listing.items]
        if wanted.sends_initial:
            chunk.append(_bookmark(target, listing.revision, {_INITIAL_END: "true"}))
        return [b"".join(chunk)] if chunk else []

    async def _following(
        self, target: Target, wanted: WatchOptions, renderer: Renderer, watcher: Watcher
    ) -> AsyncGenerator[bytes, None]:
        end = monotonic() + min(
            wanted.timeout_s or self._config.watch_timeout_s, self._config.watch_timeout_s
        )
        while not watcher.is_closed and (left := end - monotonic()) > 0:
            nap = min(left, self._config.bookmark_interval_s) if wanted.has_bookmarks else left
            with anyio.move_on_after(nap):
                await watcher.wait()
            lines = [
                _line(type_, renderer.event(raw))
                for change in watcher.take()
                for type_, raw in _seen(change, target.namespace, wanted.selector)
            ]
            if lines:
                yield b"".join(lines)
            elif wanted.has_bookmarks:
                yield _bookmark(target, self._hub.revision, {})


def _seen(change: Change, namespace: str, selector: Selector) -> Iterable[tuple[str, bytes]]:
    """The change as a watcher with this selector sees it: what starts to match is added, what ceases is deleted."""
    if namespace and change.ref.namespace != namespace:
        return
    if selector.is_empty:
        yield change.type, change.raw
        return
    did = change.previous is not None and _matches(selector, change.previous)
    does = change.type != DELETED and _matches(selector, change.raw)
    if does:
        yield (MODIFIED if did else ADDED), change.raw
    elif did:
        last = decode(change.previous or b"")
        last["metadata"]["resourceVersion"] = str(change.revision)
        yield DELETED, encode(last)


def _matches(selector: Selector, raw: bytes) -> bool:
    return selector.may_match(raw) and selector.matches(decode(raw))


def _bookmark(target: Target, revision: int, annotations: dict[str, str]) -> bytes:
    metadata: dict[str, object] = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    obj = {"kind": target.kind.name, "apiVersion": target.kind.api_version, "metadata": metadata}
    return _line("BOOKMARK", encode(obj))


def _line(type_: str, raw: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (type_.encode(), raw)


def list_of(target: Target, raws: list[bytes], revision: int) -> bytes:
    """A plain list of objects' bytes."""
    return splice(
        f"{target.kind.name}List", target.kind.api_version, {"resourceVersion": str(revision)}, raws
    )
