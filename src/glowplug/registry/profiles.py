"""Puts the champion's reference profile where the drift detector looks for it.

A detector compares with what the model that serves was trained on, so with a new champion it needs another profile, at
the same place: a folder, or a bucket.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PROFILE_FILE = "profile.json"


def publish(storage_uri: str, place: str) -> bool:
    """Copy `profile.json` of a version's files into `place`, whole or not at all; whether there is one.

    Call it inside `models.explained`: it raises what MLflow raises, and OSError.
    """
    source = _repository(storage_uri)
    if PROFILE_FILE not in {each.path for each in source.list_artifacts()}:
        return False
    with tempfile.TemporaryDirectory(prefix="glowplug-profile-") as folder:
        fetched = Path(source.download_artifacts(PROFILE_FILE, folder))
        if "://" not in place or place.startswith("file://"):
            _replace(fetched.read_bytes(), Path(unquote(urlsplit(place).path) if "://" in place else place))
        else:
            # An object store shows the old one or the new one.
            _repository(place).log_artifact(str(fetched))
    return True


def _replace(content: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{PROFILE_FILE}.{os.getpid()}"
    try:
        with draft.open("wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        draft.replace(folder / PROFILE_FILE)
    finally:
        draft.unlink(missing_ok=True)


def _repository(uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri)
