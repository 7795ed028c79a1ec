"""Is every registered version whole? Downloads each and compares it with what was noted when it was registered."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from glowplug.errors import StorageError
from glowplug.registry.models import (
    CONTENT_TAG,
    RegistryConfig,
    connect,
    content_hash,
    described,
    download,
    explained,
)


def half_registered(config: RegistryConfig, name: str, needed_tags: Sequence[str] = ()) -> list[str]:
    """What is wrong with the versions of a model, a line each: files, their hash, tags, the run that they belong to.

    A model that is not registered has no versions, and nothing is wrong. Raises `StorageError` where the registry
    does not answer.
    """
    with explained(config.uri, name):
        client = connect(config)
        escaped = name.replace("'", "''")
        found = list(client.search_model_versions(f"name = '{escaped}'"))
        versions = [described(client, each) for each in found]
        states = {each.run_id: client.get_run(each.run_id).info.status for each in versions}
    problems = []
    for version in versions:
        if states[version.run_id] != "FINISHED":
            problems.append(
                f"version {version.version}: its run {version.run_id} is {states[version.run_id]}"
            )
        absent = [tag for tag in (CONTENT_TAG, *needed_tags) if tag not in version.tags]
        problems += [f"version {version.version}: no tag {tag}" for tag in absent]
        with tempfile.TemporaryDirectory(prefix="glowplug-audit-") as folder:
            try:
                download(config, name, version.version, Path(folder) / "model")
                content = content_hash(Path(folder) / "model")
            except StorageError as error:
                problems.append(f"version {version.version}: {error.message}")
                continue
        if content != version.tags.get(CONTENT_TAG):
            problems.append(f"version {version.version}: its files are not those that were registered")
    return problems
