"""`Accept` to a form of answer, and objects into that form.

kubectl asks for a `Table` and takes JSON where there is none; metadata informers ask for `PartialObjectMetadata`.
https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml

from glowplug.apiserver.codec import Object, decode, encode
from glowplug.apiserver.paging import Listing
from glowplug.apiserver.tables import table
from glowplug.errors import NotAcceptable
from glowplug.spec.kinds import Kind

JSON = "application/json"
YAML = "application/yaml"
DISCOVERY = ("APIGroupDiscoveryList", "v2", "apidiscovery.k8s.io")
_META = "meta.k8s.io"
_FORMS = {
    ("Table", "v1", _META),
    ("PartialObjectMetadata", "v1", _META),
    ("PartialObjectMetadataList", "v1", _META),
    DISCOVERY,
}


@dataclass(frozen=True)
class Form:
    """A media type and, for JSON, the kind that the object is to be turned into ("" is as it stands)."""

    media_type: str = JSON
    convert_to: str = ""


def choose(accept: str) -> Form:
    """The first form in an Accept header that can be served. Raises NotAcceptable if there is none."""
    for one in accept.split(",") if accept.strip() else [JSON]:
        form = _form(one)
        if form is not None:
            return form
    raise NotAcceptable(
        f"only the following media types are accepted: {JSON}, {YAML}; the request has {accept!r}"
    )


def _form(media_range: str) -> Form | None:
    media_type, *parts = (part.strip() for part in media_range.split(";"))
    params = dict(part.split("=", 1) for part in parts if "=" in part)
    if media_type in ("*/*", "application/*"):
        return Form()
    if media_type in (YAML, "text/yaml") and "as" not in params:
        return Form(YAML)
    if media_type != JSON:
        return None
    if "as" not in params:
        return Form()
    wanted = (params["as"], params.get("v", "v1"), params.get("g", _META))
    return Form(JSON, params["as"]) if wanted in _FORMS else None


class Renderer:
    """Turns what the store holds into what one request asked for."""

    def __init__(self, kind: Kind, form: Form, now: datetime, include_object: str = "") -> None:
        self._kind = kind
        self._form = form
        self._now = now
        self._include_object = include_object or "Metadata"
        self._columns_told = False

    @property
    def content_type(self) -> str:
        return self._form.media_type

    def one(self, raw: bytes) -> bytes:
        """One object."""
        if self._form.convert_to == "Table":
            return self._text(self._table([raw], metadata=_meta(decode(raw))))
        if self._form.convert_to.startswith("PartialObjectMetadata"):
            return self._text(partial(decode(raw)))
        return raw if self._form.media_type == JSON else self._text(decode(raw))

    def event(self, raw: bytes) -> bytes:
        """One object of a watch: a table tells its columns in the first event only."""
        if self._form.convert_to != "Table":
            return self.one(raw)
        result = self._table([raw], metadata=_meta(decode(raw)))
        if self._columns_told:
            result["columnDefinitions"] = None
        self._columns_told = True
        return encode(result)

    def many(self, listing: Listing) -> bytes:
        """A list: its objects' bytes as they are stored, wherever the form allows it."""
        meta: Object = {"resourceVersion": str(listing.revision)}
        if listing.token:
            meta["continue"] = listing.token
        if listing.remaining is not None:
            meta["remainingItemCount"] = listing.remaining
        if self._form.convert_to == "Table":
            return self._text(self._table(listing.items, metadata=meta))
        if self._form.convert_to.startswith("PartialObjectMetadata"):
            return encode(
                {
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": f"{_META}/v1",
                    "metadata": meta,
                    "items": [partial(decode(raw)) for raw in listing.items],
                }
            )
        text = splice(f"{self._kind.name}List", self._kind.api_version, meta, listing.items)
        return text if self._form.media_type == JSON else self._text(decode(text))

    def _table(self, raws: Iterable[bytes], metadata: Object) -> Object:
        objects = [decode(raw) for raw in raws]
        result = table(self._kind, objects, now=self._now, include_object=self._include_object)
        return {**result, "metadata": metadata}

    def _text(self, value: Any) -> bytes:
        return encode(value) if self._form.media_type == JSON else to_yaml(value)


def splice(kind: str, api_version: str, meta: Object, items: Iterable[bytes]) -> bytes:
    """A list object around objects that are JSON already."""
    head = encode({"kind": kind, "apiVersion": api_version, "metadata": meta})
    return b'%s,"items":[%s]}' % (head[:-1], b",".join(items))


def partial(obj: Object) -> Object:
    """The object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"{_META}/v1", "metadata": obj["metadata"]}


def to_yaml(value: Any) -> bytes:
    """YAML as kubectl writes it."""
    text: str = yaml.safe_dump(value, sort_keys=True, allow_unicode=True)
    return text.encode()


def _meta(obj: Object) -> Object:
    return {"resourceVersion": obj["metadata"]["resourceVersion"]}
