"""POST, PUT, PATCH and DELETE: body → patch → admission → field managers → objects.

Between reading the live object and writing the next one there is no await, so a patch never meets a conflict of
the server's own making.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import orjson
from anyio.lowlevel import checkpoint

from glowplug.apiserver import options
from glowplug.apiserver.admission import Admission, Admitted
from glowplug.apiserver.admission import decode as decode_body
from glowplug.apiserver.apply import server_side_apply, track_update
from glowplug.apiserver.changes import Ref
from glowplug.apiserver.codec import Object, copy, decode, encode
from glowplug.apiserver.http import Request, Response, read_object
from glowplug.apiserver.negotiate import Renderer, choose
from glowplug.apiserver.objects import Objects
from glowplug.apiserver.options import WriteOptions
from glowplug.apiserver.patch import json_patch, merge_patch, strategic_merge_patch
from glowplug.apiserver.reading import list_of
from glowplug.apiserver.routes import Target
from glowplug.errors import BadRequest, Invalid, MethodNotAllowed, NotFound, Problem, UnsupportedMedia
from glowplug.spec.kinds import Kind

_STATUS = "status"
_JSON_PATCH = "application/json-patch+json"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"
# Kinds that Kubernetes itself compiles in: they alone know strategic merge patches and unconditional updates.
_BUILT_IN_GROUPS = ("", "batch", "coordination.k8s.io")


@dataclass(frozen=True)
class _Call:
    """One write on its way: what was asked, and the fields that its body gave twice."""

    target: Target
    request: Request
    options: WriteOptions
    duplicates: tuple[str, ...] = ()


class Writer:
    """Answers the verbs that change something."""

    def __init__(self, objects: Objects, admission: Admission) -> None:
        self._objects = objects
        self._admission = admission

    async def create(self, target: Target, request: Request) -> Response:
        """POST. Raises AlreadyExists, NotFound (the namespace), Forbidden (that is ending), Invalid, BadRequest."""
        obj, call = await self._read(target, request)
        meta = obj["metadata"]
        if meta.get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        if meta.get("generateName") and not meta.get("name"):
            meta["name"] = self._objects.new_ref(target.kind, meta).name
        return self._create(call, obj)

    async def update(self, target: Target, request: Request) -> Response:
        """PUT on an object or its status. Raises NotFound, Conflict, Invalid, BadRequest."""
        obj, call = await self._read(target, request)
        live = self._objects.get(target.kind, target.namespace, target.name)
        if target.kind.group not in _BUILT_IN_GROUPS and not obj["metadata"].get("resourceVersion"):
            raise _invalid(
                target, "metadata.resourceVersion", "Invalid value: 0: must be specified for an update"
            )
        return self._update(call, live, _scoped(target, live, obj))

    async def patch(self, target: Target, request: Request) -> Response:
        """PATCH in all its forms. Raises like `update`, and UnsupportedMedia for a form that the kind has not."""
        wanted = options.write_options(request.query, request.user_agent)
        body = await request.body()
        if request.content_type == _APPLY:
            return self._apply(_Call(target, request, wanted), body)
        live = self._objects.get(target.kind, target.namespace, target.name)
        patched, duplicates = _patched(target.kind, live, body, request.content_type)
        _check_identity(target, patched)
        return self._update(_Call(target, request, wanted, duplicates), live, _scoped(target, live, patched))

    async def delete(self, target: Target, request: Request) -> Response:
        """DELETE of an object: a Status when it is gone, the object while something holds it."""
        wanted = options.delete_options(request.query, await _options_body(request))
        obj, is_gone = self._objects.remove(Ref(target.kind, target.namespace, target.name), wanted)
        if not is_gone:
            return self._answer(target, request, obj)
        details = {**target.details, "uid": obj["metadata"]["uid"]}
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }
        return Response(encode(status))

    async def delete_collection(self, target: Target, request: Request) -> Response:
        """DELETE of all that a selector matches."""
        wanted = options.delete_options(request.query, await _options_body(request))
        page = options.page(target.kind, request.query, self._objects.revision)
        listing = self._objects.page(target.kind, target.namespace, page)
        for raw in listing.items:
            meta = decode(raw)["metadata"]
            with suppress(NotFound):
                self._objects.remove(Ref(target.kind, meta.get("namespace", ""), meta["name"]), wanted)
            await checkpoint()
        return Response(list_of(target, listing.items, self._objects.revision))

    def _create(self, call: _Call, obj: Object, *, is_applied: bool = False) -> Response:
        kind, wanted = call.target.kind, call.options
        admitted = self._admit(call, obj, None)
        new = admitted.object
        if not is_applied:
            new = track_update(None, new, manager=wanted.manager, now=self._objects.now())
        created = self._objects.create(kind, new, is_dry_run=wanted.is_dry_run)
        return self._answer(call.target, call.request, created, 201, admitted.warnings)

    def _update(self, call: _Call, live: Object, obj: Object, *, is_applied: bool = False) -> Response:
        target, wanted = call.target, call.options
        admitted = self._admit(call, obj, live)
        new = admitted.object
        if not is_applied:
            now = self._objects.now()
            new = track_update(live, new, manager=wanted.manager, now=now, subresource=target.subresource)
        write = self._objects.update_status if target.subresource == _STATUS else self._objects.update
        result = write(target.kind, new, is_dry_run=wanted.is_dry_run)
        return self._answer(target, call.request, result, 200, admitted.warnings)

    def _apply(self, call: _Call, body: bytes) -> Response:
        target, wanted = call.target, call.options
        options.required_manager(call.request.query)
        applied, duplicates = decode_body(body, "application/yaml")
        for key in ("apiVersion", "kind"):
            if not applied.get(key):
                raise BadRequest(f"{key} is not set: an applied configuration names its type")
        _check_type(target.kind, applied)
        _default_meta(target, applied)
        live = self._live(target)
        if live is None and target.subresource:
            raise NotFound(f"{Ref(target.kind, target.namespace, target.name)} not found")
        result = server_side_apply(
            live,
            applied,
            manager=wanted.manager,
            force=wanted.is_forced,
            now=self._objects.now(),
            subresource=target.subresource,
        )
        call = replace(call, duplicates=duplicates)
        if live is None:
            return self._create(call, result, is_applied=True)
        return self._update(call, live, result, is_applied=True)

    def _admit(self, call: _Call, obj: Object, old: Object | None) -> Admitted:
        return self._admission.admit(
            call.target.kind,
            obj,
            old,
            validation=call.options.validation,
            duplicates=call.duplicates,
            subresource=call.target.subresource,
        )

    async def _read(self, target: Target, request: Request) -> tuple[Object, _Call]:
        wanted = options.write_options(request.query, request.user_agent)
        obj, duplicates = await read_object(request)
        _check_type(target.kind, obj)
        _default_meta(target, obj)
        return obj, _Call(target, request, wanted, duplicates)

    def _answer(
        self, target: Target, request: Request, obj: Object, code: int = 200, warnings: tuple[str, ...] = ()
    ) -> Response:
        renderer = Renderer(target.kind, choose(request.accept), self._objects.now())
        return Response(renderer.one(encode(obj)), code, renderer.content_type, warnings)

    def _live(self, target: Target) -> Object | None:
        try:
            return self._objects.get(target.kind, target.namespace, target.name)
        except NotFound:
            return None


def _patched(kind: Kind, live: Object, body: bytes, content_type: str) -> tuple[Object, tuple[str, ...]]:
    is_built_in = kind.group in _BUILT_IN_GROUPS
    if content_type == _JSON_PATCH:
        return json_patch(copy(live), _operations(body)), ()
    if content_type == _MERGE:
        patch, duplicates = decode_body(body, "application/json")
        return merge_patch(copy(live), patch), duplicates
    if content_type == _STRATEGIC and is_built_in:
        patch, duplicates = decode_body(body, "application/json")
        return strategic_merge_patch(copy(live), patch), duplicates
    strategic = (_STRATEGIC,) if is_built_in else ()
    raise _unsupported(content_type, (_JSON_PATCH, _MERGE, *strategic, _APPLY))


def _operations(body: bytes) -> list[Object]:
    try:
        operations: list[Object] = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the JSON patch cannot be read: {error}") from error
    return operations


def _unsupported(content_type: str, accepted: tuple[str, ...]) -> UnsupportedMedia:
    return UnsupportedMedia(
        f"the body of the request was in an unknown format ({content_type!r}) - "
        f"accepted media types include: {', '.join(accepted)}"
    )


def _check_type(kind: Kind, obj: Object) -> None:
    """Set apiVersion and kind where the body has none: its address says them. Raises BadRequest for others."""
    for key, expected in (("apiVersion", kind.api_version), ("kind", kind.name)):
        if not obj.get(key):
            obj[key] = expected
        elif obj[key] != expected:
            raise BadRequest(f"{key} is {obj.get(key)!r}, but this address takes {expected!r}")


def _default_meta(target: Target, obj: Object) -> None:
    meta = obj.setdefault("metadata", {})
    if not isinstance(meta, dict):
        raise BadRequest(f"metadata is {meta!r}, must be an object")
    for key, own in (("name", target.name), ("namespace", target.namespace)):
        given = meta.get(key)
        if given is not None and not isinstance(given, str):
            raise BadRequest(f"metadata.{key} is {given!r}, must be a string")
        if own and given and given != own:
            raise BadRequest(f"the {key} of the object ({given}) does not match the {key} on the URL ({own})")
        if own:
            meta[key] = own


def _check_identity(target: Target, patched: Object) -> None:
    meta = patched.get("metadata")
    if not isinstance(meta, dict):
        raise _invalid(target, "metadata", "Invalid value: must be an object")
    _check_type(target.kind, patched)
    for key, own in (("name", target.name), ("namespace", target.namespace)):
        if own and meta.get(key) != own:
            raise _invalid(target, f"metadata.{key}", f"Invalid value: {meta.get(key)!r}: field is immutable")


def _scoped(target: Target, live: Object, obj: Object) -> Object:
    """`obj`, or for the status subresource the live object with `obj`'s status and version."""
    if target.subresource != _STATUS:
        return obj
    result = copy(live)
    for key in ("resourceVersion", "uid", "managedFields"):
        if obj["metadata"].get(key):
            result["metadata"][key] = obj["metadata"][key]
    result.pop(_STATUS, None)
    if _STATUS in obj:
        result[_STATUS] = obj[_STATUS]
    return result


async def _options_body(request: Request) -> Object:
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return {}
    return (await read_object(request))[0]


def _invalid(target: Target, field: str, message: str) -> Invalid:
    group = f".{target.kind.group}" if target.kind.group else ""
    text = f'{target.kind.name}{group} "{target.name}" is invalid: {field}: {message}'
    return Invalid(text, causes=(Problem(field, message),))


def read_only(kind: Kind) -> MethodNotAllowed:
    """The answer to a write of what the machine itself derives."""
    return MethodNotAllowed(f"{kind.resource} are read-only here: the machine derives them from its schemas")
