"""The schemas of every kind that the machine serves: one place that knows which fields an object may have.

They are read once from the installed client libraries (a third of a second) and kept on disk, keyed by everything
that they were made from; a cache that cannot be read or written is rebuilt and never an error.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from glowplug.apiserver import schema_build, schema_knative, schema_models, schema_overrides
from glowplug.apiserver.schema_build import Definition, build
from glowplug.apiserver.schema_models import ModelLibrary
from glowplug.spec import kinds
from glowplug.spec.kinds import Kind

_DIGEST_BYTES = 64  # a sha256 in hexadecimal, before the payload: a truncated file is told from a whole one


class Schemas:
    """Definitions by name (OpenAPI schema objects with bare names as `$ref`), and each kind's definition name."""

    def __init__(self, definitions: Mapping[str, Definition], roots: Mapping[Kind, str]) -> None:
        self.definitions = definitions
        self.roots = roots

    @classmethod
    def load(cls, cache_dir: Path | None = None) -> Schemas:
        """From the cache where it fits what is installed, else built anew and written to it.

        Raises ConfigError when the kubernetes or kserve package is not installed.
        """
        key = _cache_key()
        path = None if cache_dir is None else cache_dir / f"schemas-{key}.json"
        cached = None if path is None else _read(path)
        if cached is not None:
            return cls(cached["definitions"], _roots_from_json(cached["roots"]))
        definitions, roots = build(ModelLibrary())
        if path is not None:
            _write(path, {"definitions": definitions, "roots": _roots_to_json(roots)})
        return cls(definitions, roots)

    def of(self, kind: Kind) -> Definition | None:
        """The schema of a kind's objects; None for kinds that users never write."""
        name = self.roots.get(kind)
        return None if name is None else self.definitions[name]

    def resolve(self, schema: Definition) -> Definition:
        """The definition behind a `$ref`, or the schema itself."""
        name = schema.get("$ref")
        return schema if name is None else self.definitions.get(name, {})


def _cache_key() -> str:
    """Changes with the libraries' releases and with the modules that make the schemas from them."""
    digest = hashlib.sha256()
    for package in ("kserve", "kubernetes"):
        with suppress(metadata.PackageNotFoundError):
            digest.update(f"{package}={metadata.version(package)};".encode())
    for module in (schema_build, schema_knative, schema_models, schema_overrides, kinds):
        with suppress(OSError):
            digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def _roots_to_json(roots: Mapping[Kind, str]) -> list[list[str]]:
    return [[kind.api_version, kind.name, name] for kind, name in roots.items()]


def _roots_from_json(rows: list[list[str]]) -> dict[Kind, str]:
    found = ((kinds.by_name(api_version, kind), name) for api_version, kind, name in rows)
    return {kind: name for kind, name in found if kind is not None}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    payload = content[_DIGEST_BYTES:]
    if content[:_DIGEST_BYTES] != hashlib.sha256(payload).hexdigest().encode():
        return None
    loaded: dict[str, Any] = orjson.loads(payload)
    return loaded


def _write(path: Path, value: dict[str, Any]) -> None:
    payload = orjson.dumps(value)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(payload).hexdigest().encode() + payload)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
