"""Who is champion and who challenger: the aliases that the loop moves, each by one function.

A registered model's champion is also noted as a tag of the model. Where the tag is there and the alias is not,
somebody took the champion away by hand, which is another thing than a model that never had one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from glowplug.registry.models import (
    CHALLENGER,
    CHAMPION,
    CHAMPION_TAG,
    ModelVersion,
    RegistryConfig,
    connect,
    described,
    explained,
    point,
)
from glowplug.registry.profiles import publish

REJECTED_TAG = "glowplug.dev/rejected"
_ABSENT = "RESOURCE_DOES_NOT_EXIST"


class Presence(str, Enum):
    """Of a champion."""

    PRESENT = "present"
    NONE_YET = "none yet"
    TAKEN_AWAY = "taken away"


@dataclass(frozen=True)
class Champion:
    """`version` where it is present; `last` is the number of the one taken away."""

    presence: Presence
    version: ModelVersion | None = None
    last: str = ""


def champion(config: RegistryConfig, name: str) -> Champion:
    """Who is champion of the registered model. Raises `StorageError` where the registry does not answer."""
    with explained(config.uri, name):
        client = connect(config)
        model = _model(client, name)
        if model is None:
            return Champion(Presence.NONE_YET)
        number = model.aliases.get(CHAMPION)
        last = model.tags.get(CHAMPION_TAG, "")
        if number is None:
            return Champion(Presence.TAKEN_AWAY, last=last) if last else Champion(Presence.NONE_YET)
        version = _version(client, name, str(number))
        if version is None:
            return Champion(Presence.TAKEN_AWAY, last=str(number))
        return Champion(Presence.PRESENT, version)


def promote(config: RegistryConfig, name: str, version: str) -> ModelVersion:
    """Make `version` (a number) the champion; it is challenger no longer, nor rejected. Again is the same.

    Its profile is in place before it is champion: where that fails, nothing has moved, and it can be done again. Raises
    `StorageError` where there is no such version.
    """
    with explained(config.uri, name):
        client = connect(config)
        found = client.get_model_version(name, version)
        if config.champion_profile:
            publish(described(client, found).storage_uri, config.champion_profile)
        point(client, name, CHAMPION, str(found.version))
        if REJECTED_TAG in found.tags:
            client.delete_model_version_tag(name, str(found.version), REJECTED_TAG)
        _release_challenger(client, name, str(found.version))
        return described(client, client.get_model_version(name, version))


def reject(config: RegistryConfig, name: str, version: str, reason: str) -> ModelVersion:
    """Note on `version` why it was not promoted; it is challenger no longer. Again is the same.

    Raises `StorageError` where there is no such version.
    """
    with explained(config.uri, name):
        client = connect(config)
        # MLflow refuses longer values.
        client.set_model_version_tag(name, version, REJECTED_TAG, reason[:4000])
        _release_challenger(client, name, version)
        return described(client, client.get_model_version(name, version))


def _release_challenger(client: Any, name: str, version: str) -> None:
    model = client.get_registered_model(name)
    if str(model.aliases.get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def _model(client: Any, name: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == _ABSENT:
            return None
        raise


def _version(client: Any, name: str, number: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return described(client, client.get_model_version(name, number))
    except MlflowException as error:
        if error.error_code == _ABSENT:
            return None
        raise
