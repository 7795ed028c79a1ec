"""The champion as it is now, fetched once: a run compares with the same one however often it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glowplug.registry import aliases
from glowplug.registry.aliases import Presence
from glowplug.registry.models import RegistryConfig, download
from glowplug_pipelines.run import Outcome, Run
from glowplug_pipelines.steps import CHAMPION
from glowplug_pipelines.steps.training import MODEL_FOLDER

TRAINED_TO_TAG = "glowplug.dev/trained-to"


def fetch(run: Run, registry: RegistryConfig) -> Outcome:
    """Raises `StorageError` where the registry, or where it keeps the files, does not answer."""

    def make(folder: Path) -> dict[str, Any]:
        found = aliases.champion(registry, run.request.model)
        if found.presence is Presence.PRESENT and found.version is not None:
            download(registry, run.request.model, found.version.version, folder / MODEL_FOLDER)
        return {
            "presence": found.presence.value,
            "version": found.version.version if found.version else "",
            "last": found.last,
            "trained_to": found.version.tags.get(TRAINED_TO_TAG, "") if found.version else "",
        }

    return run.step(CHAMPION, {}, make)
