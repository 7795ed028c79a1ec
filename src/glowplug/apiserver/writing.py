"""POST, PUT, PATCH and DELETE: body → patch → admission → field managers → objects.

Between reading the live object and writing the next one there is no await, so a patch never meets a conflict of
the server's own making. Only where webhooks have to be asked in between may somebody else write; then all of it is
done again on what they wrote, as Kubernetes does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import orjson
from anyio.lowlevel import checkpoint

from glowplug.apiserver import apply_managers, metadata, options
from glowplug.apiserver.admission import Admission
from glowplug.apiserver.admission import decode as decode_body
from glowplug.apiserver.apply import server_side_apply, track_update
from glowplug.apiserver.changes import Ref
from glowplug.apiserver.codec import Object, copy, decode, encode
from glowplug.apiserver.finalizers import DeleteOptions
from glowplug.apiserver.http import Request, Response, read_object
from glowplug.apiserver.negotiate import Renderer, choose
from glowplug.apiserver.objects import Objects
from glowplug.apiserver.options import WriteOptions
from glowplug.apiserver.patch import json_patch, merge_patch, strategic_merge_patch
from glowplug.apiserver.reading import list_of
from glowplug.apiserver.routes import Target
from glowplug.apiserver.webhook_matching import CREATE, DELETE, UPDATE, Attributes
from glowplug.apiserver.webhooks import Webhooks
from glowplug.errors import (
    ApiError,
    BadRequest,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Problem,
    UnsupportedMedia,
)
from glowplug.spec.kinds import Kind

_STATUS = "status"
_JSON_PATCH = "application/json-patch+json"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"
# Kinds that Kubernetes itself compiles in: they alone know strategic merge patches and unconditional updates.
_BUILT_IN_GROUPS = ("", "admissionregistration.k8s.io", "batch", "coordination.k8s.io")
# How often a write is done again because somebody wrote while webhooks were asked.
_ATTEMPTS = 5


@dataclass(frozen=True)
class _Call:
    """One write on its way: what was asked, and the fields that its body gave twice."""

    target: Target
    request: Request
    options: WriteOptions
    duplicates: tuple[str, ...] = ()
    is_applied: bool = False

    @property
    def ref(self) -> Ref:
        return Ref(self.target.kind, self.target.namespace, self.target.name)


# What a write makes of the live object, or of none, and the fields that its body gave twice.
_Propose = Callable[["Object | None"], "tuple[Object, tuple[str, ...]]"]


class Writer:
    """Answers the verbs that change something."""

    def __init__(self, objects: Objects, admission: Admission, webhooks: Webhooks) -> None:
        self._objects = objects
        self._admission = admission
        self._webhooks = webhooks

    async def create(self, target: Target, request: Request) -> Response:
        """POST. Raises AlreadyExists, NotFound (the namespace), Forbidden (that is ending), Invalid, BadRequest."""
        obj, call = await self._read(target, request)
        meta = obj["metadata"]
        if meta.get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        if meta.get("generateName") and not meta.get("name"):
            meta["name"] = self._objects.new_ref(target.kind, meta).name
        call = replace(call, target=replace(target, name=meta.get("name") or ""))
        return await self._create(call, obj)

    async def update(self, target: Target, request: Request) -> Response:
        """PUT on an object or its status. Raises NotFound, Conflict, Invalid, BadRequest."""
        obj, call = await self._read(target, request)

        def propose(live: Object | None) -> tuple[Object, tuple[str, ...]]:
            live = self._existing(call, live)
            if target.kind.group not in _BUILT_IN_GROUPS and not obj["metadata"].get("resourceVersion"):
                raise _invalid(
                    target, "metadata.resourceVersion", "Invalid value: 0: must be specified for an update"
                )
            return _scoped(target, live, obj), call.duplicates

        return await self._write(call, propose)

    async def patch(self, target: Target, request: Request) -> Response:
        """PATCH in all its forms. Raises like `update`, and UnsupportedMedia for a form that the kind has not."""
        wanted = options.write_options(request.query, request.user_agent)
        body = await request.body()
        if request.content_type == _APPLY:
            return await self._apply(_Call(target, request, wanted, is_applied=True), body)
        call = _Call(target, request, wanted)

        def propose(live: Object | None) -> tuple[Object, tuple[str, ...]]:
            live = self._existing(call, live)
            patched, duplicates = _patched(target.kind, live, body, request.content_type)
            _check_identity(target, patched)
            return _scoped(target, live, patched), duplicates

        return await self._write(call, propose)

    async def delete(self, target: Target, request: Request) -> Response:
        """DELETE of an object: a Status when it is gone, the object while something holds it."""
        wanted = options.delete_options(request.query, await _options_body(request))
        obj, is_gone, warnings = await self._remove(Ref(target.kind, target.namespace, target.name), wanted)
        if not is_gone:
            return self._answer(target, request, obj, 200, warnings)
        details = {**target.details, "uid": obj["metadata"]["uid"]}
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }
        return Response(encode(status), warnings=warnings)

    async def delete_collection(self, target: Target, request: Request) -> Response:
        """DELETE of all that a selector matches."""
        wanted = options.delete_options(request.query, await _options_body(request))
        page = options.page(target.kind, request.query, self._objects.revision)
        listing = self._objects.page(target.kind, target.namespace, page)
        warnings: dict[str, None] = {}
        for raw in listing.items:
            meta = decode(raw)["metadata"]
            with suppress(NotFound):
                ref = Ref(target.kind, meta.get("namespace", ""), meta["name"])
                warnings |= dict.fromkeys((await self._remove(ref, wanted, is_named=False))[2])
            await checkpoint()
        body = list_of(target, listing.items, self._objects.revision)
        return Response(body, warnings=tuple(warnings))

    async def _create(self, call: _Call, obj: Object) -> Response:
        if not self._is_reviewed(call, obj, None):
            return self._commit(call, obj, None)
        response = await self._reviewed(call, obj, None)
        assert response is not None, "a create is done or fails"
        return response

    async def _write(self, call: _Call, propose: _Propose) -> Response:
        """Read, change and write; again from the start if somebody wrote while webhooks were asked."""
        for _ in range(_ATTEMPTS):
            live = self._live(call.target)
            obj, duplicates = propose(live)
            call = replace(call, duplicates=duplicates)
            if not self._is_reviewed(call, obj, live):
                return self._commit(call, obj, live)
            response = await self._reviewed(call, obj, live)
            if response is not None:
                return response
        raise metadata.modified(call.ref)

    def _commit(self, call: _Call, obj: Object, live: Object | None) -> Response:
        """Admit and store what no webhook concerns; nothing is awaited."""
        admitted = self._admission.admit(
            call.target.kind,
            obj,
            live,
            validation=call.options.validation,
            duplicates=call.duplicates,
            subresource=call.target.subresource,
        )
        new = self._tracked(call, admitted.object, live)
        return self._stored(call, new, live, admitted.warnings)

    async def _reviewed(self, call: _Call, obj: Object, live: Object | None) -> Response | None:
        """The same with webhooks; None, and nothing written, if somebody wrote in the meantime.

        Whom fields belong to is settled before, as in Kubernetes: what a webhook adds nobody owns, so that the next
        apply by whoever sent this one does not take it away.
        """
        target = call.target
        prepared = self._admission.prepare(
            target.kind,
            obj,
            validation=call.options.validation,
            duplicates=call.duplicates,
            subresource=target.subresource,
        )
        if live is None:
            # No webhook is asked about what cannot be: the name taken, the namespace absent or ending.
            self._objects.check_new(self._objects.new_ref(target.kind, prepared.object["metadata"]))
        tracked = self._tracked(call, prepared.object, live)
        warnings = list(prepared.warnings)
        with _warning(warnings):
            return await self._mutated(call, tracked, live, warnings)

    async def _mutated(
        self, call: _Call, tracked: Object, live: Object | None, warnings: list[str]
    ) -> Response | None:
        target = call.target
        mutated = await self._webhooks.mutate(self._asked(call, tracked, live), warnings)
        if self._is_overtaken(call, live):
            return None
        assert mutated is not None, "webhooks change an object, they do not take it away"
        # Fields that a webhook made up are dropped without a word, as in Kubernetes: the client has not sent them.
        admitted = self._admission.admit(
            target.kind, mutated, live, validation="Ignore", subresource=target.subresource
        )
        new = _scoped(target, live, admitted.object) if live is not None else admitted.object
        _restore_managers(tracked, new)
        # A new object may even get another name.
        _check_identity(target if live is not None or call.is_applied else replace(target, name=""), new)
        next_ = self._next(call, new, live, is_dry_run=True)
        await self._webhooks.validate(self._asked(call, next_, live), warnings)
        if self._is_overtaken(call, live):
            return None
        return self._stored(call, new, live, tuple(dict.fromkeys(warnings)), uid=next_["metadata"]["uid"])

    async def _remove(
        self, ref: Ref, wanted: DeleteOptions, *, is_named: bool = True
    ) -> tuple[Object, bool, tuple[str, ...]]:
        """Delete, after the webhooks: the last state, whether it is gone, and warnings.

        `is_named`: whether the request named it; of those that a selector matched, webhooks read the name in
        `oldObject` alone, as in Kubernetes.
        """
        warnings: list[str] = []
        if not self._webhooks.are_configured:
            return (*self._objects.remove(ref, wanted), ())
        for _ in range(_ATTEMPTS):
            live = self._objects.get(*ref)
            asked = Attributes(
                ref.kind,
                ref.namespace,
                ref.name if is_named else "",
                DELETE,
                old=live,
                is_dry_run=wanted.is_dry_run,
                options=options.delete_options_of(wanted),
            )
            if not self._webhooks.concern(asked):
                return (*self._objects.remove(ref, wanted), ())
            with _warning(warnings):
                await self._webhooks.mutate(asked, warnings)
                await self._webhooks.validate(asked, warnings)
                if _version(self._objects.get(*ref)) == _version(live):
                    return (*self._objects.remove(ref, wanted), tuple(dict.fromkeys(warnings)))
        raise metadata.modified(ref)

    async def _apply(self, call: _Call, body: bytes) -> Response:
        target, wanted = call.target, call.options
        options.required_manager(call.request.query)
        applied, duplicates = decode_body(body, "application/yaml")
        for key in ("apiVersion", "kind"):
            if not applied.get(key):
                raise BadRequest(f"{key} is not set: an applied configuration names its type")
        _check_type(target.kind, applied)
        _default_meta(target, applied)

        def propose(live: Object | None) -> tuple[Object, tuple[str, ...]]:
            if target.subresource:
                live = self._existing(call, live)
            result = server_side_apply(
                live,
                applied,
                manager=wanted.manager,
                force=wanted.is_forced,
                now=self._objects.now(),
                subresource=target.subresource,
            )
            return result, duplicates

        return await self._write(call, propose)

    def _is_reviewed(self, call: _Call, obj: Object, live: Object | None) -> bool:
        return self._webhooks.are_configured and self._webhooks.concern(self._asked(call, obj, live))

    def _asked(self, call: _Call, obj: Object, live: Object | None) -> Attributes:
        target = call.target
        return Attributes(
            target.kind,
            target.namespace,
            target.name,
            CREATE if live is None else UPDATE,
            target.subresource,
            new=obj,
            old=live,
            is_dry_run=call.options.is_dry_run,
            options=options.options_object(call.request.query, is_create=live is None),
        )

    def _tracked(self, call: _Call, obj: Object, live: Object | None) -> Object:
        """`obj` with the managers of its fields; an apply has settled them already."""
        if call.is_applied:
            return obj
        manager, subresource = call.options.manager, call.target.subresource
        return track_update(live, obj, manager=manager, now=self._objects.now(), subresource=subresource)

    def _stored(
        self, call: _Call, new: Object, live: Object | None, warnings: tuple[str, ...], *, uid: str = ""
    ) -> Response:
        result = self._next(call, new, live, is_dry_run=call.options.is_dry_run, uid=uid)
        return self._answer(call.target, call.request, result, 201 if live is None else 200, warnings)

    def _next(
        self, call: _Call, new: Object, live: Object | None, *, is_dry_run: bool, uid: str = ""
    ) -> Object:
        kind = call.target.kind
        if live is None:
            return self._objects.create(kind, new, is_dry_run=is_dry_run, uid=uid)
        is_status = call.target.subresource == _STATUS
        write = self._objects.update_status if is_status else self._objects.update
        return write(kind, new, is_dry_run=is_dry_run)

    def _is_overtaken(self, call: _Call, live: Object | None) -> bool:
        """Whether the object is no longer what it was read as. A POST finds out when it creates."""
        if live is None and not call.is_applied:
            return False
        return _version(self._live(call.target)) != _version(live)

    def _existing(self, call: _Call, live: Object | None) -> Object:
        if live is None:
            raise NotFound(f"{call.ref} not found")
        return live

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


def _version(obj: Object | None) -> tuple[str, str] | None:
    return None if obj is None else (obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])


def _restore_managers(source: Object, target: Object) -> None:
    """Give `target` the managers of `source` where a webhook has spoiled them."""
    try:
        apply_managers.read(target["metadata"].get("managedFields"))
    except ValueError:
        target["metadata"]["managedFields"] = source["metadata"].get("managedFields") or []


@contextmanager
def _warning(warnings: list[str]) -> Iterator[None]:
    """What webhooks warned of is told with an error, too."""
    try:
        yield
    except ApiError as error:
        error.warnings = tuple(dict.fromkeys((*error.warnings, *warnings)))
        raise


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
