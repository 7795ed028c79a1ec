"""Where a profile is: a path, file://, pvc://, http(s)://, or what the package kserve-storage can bring.

A location is the model's folder, as its `storageUri` names it, or the file itself. `pvc://<claim>/<path>` is
`<volumes>/<claim>/<path>`; in a cluster the claim is mounted and the path named.
"""

from __future__ import annotations

import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from glowplug.drift.profile import PROFILE_FILE, Profile
from glowplug.errors import StorageError

MAX_BYTES = 64 * 2**20
_TIMEOUT_S = 30.0
_HINT = f"a model's folder with a {PROFILE_FILE}, or that file: a path, file://, pvc://, http(s):// or s3://"


def read_profile(location: str, volumes: Path | None = None) -> Profile:
    """The profile at a location. Raises StorageError, and FeatureError for what is none."""
    uri = location if urlsplit(location).path.endswith(".json") else f"{location.rstrip('/')}/{PROFILE_FILE}"
    scheme = uri.partition("://")[0] if "://" in uri else ""
    try:
        content = _content(uri, scheme, volumes)
    except OSError as error:
        raise StorageError(f"the profile {uri} cannot be read: {error}", hint=_HINT) from error
    if len(content) > MAX_BYTES:
        raise StorageError(f"the profile {uri} is larger than {MAX_BYTES} bytes", hint=_HINT)
    return Profile.from_json(content)


def _content(uri: str, scheme: str, volumes: Path | None) -> bytes:
    if scheme in ("", "file"):
        return _file(Path(unquote(urlsplit(uri).path) if scheme else uri))
    if scheme == "pvc":
        claim, _, path = uri.removeprefix("pvc://").partition("/")
        if volumes is None or ".." in Path(path).parts or claim in ("", ".", ".."):
            raise StorageError(
                f"{uri}: it is not said where volume claims are",
                hint="mount the claim and name the path, or say it with --volumes",
            )
        return _file(volumes / claim / path)
    if scheme in ("http", "https"):
        with urllib.request.urlopen(uri, timeout=_TIMEOUT_S) as answer:
            return bytes(answer.read(MAX_BYTES + 1))
    return _downloaded(uri, scheme)


def _file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _downloaded(uri: str, scheme: str) -> bytes:
    try:
        from kserve_storage import Storage
    except ImportError as error:
        raise StorageError(
            f"{uri}: {scheme}:// needs the package kserve-storage", hint="pip install kserve-storage"
        ) from error
    with tempfile.TemporaryDirectory(prefix="glowplug-profile-") as folder:
        try:
            Storage.download(uri, folder)
        except Exception as error:
            # The clients' errors have no class in common; each is one line for the user.
            raise StorageError(f"{uri}: {type(error).__name__}: {error}", hint=_HINT) from error
        found = sorted(Path(folder).rglob("*.json"))
        if not found:
            raise StorageError(f"{uri}: nothing was found there", hint=_HINT)
        return _file(found[0])
