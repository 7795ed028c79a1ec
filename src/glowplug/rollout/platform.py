"""Whether KServe leaves the rollout's annotations out of revisions, as it must. Pure.

KServe passes every annotation of an InferenceService on into the revision's template, but for those in a list of its
ConfigMap. One that is not in it makes a new revision whenever it changes: a rollout would start the next one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from glowplug.errors import ConfigError
from glowplug.spec.names import ROLLOUT_KEYS

CONFIG_MAP = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"
_KEY = "inferenceService"
_LIST = "serviceAnnotationDisallowedList"


def check(config_map: Mapping[str, Any]) -> None:
    """Raises ConfigError that says what has to be added to KServe's ConfigMap."""
    text = (config_map.get("data") or {}).get(_KEY) or "{}"
    try:
        found = json.loads(text).get(_LIST) or []
        missing = [key for key in ROLLOUT_KEYS if key not in found]
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"ConfigMap kserve/inferenceservice-config: data.{_KEY} is not JSON that can be read: {error}"
        ) from error
    if missing:
        raise ConfigError(
            f"ConfigMap kserve/inferenceservice-config: {_LIST} in data.{_KEY} lacks {', '.join(missing)}; with"
            " every step of a rollout KServe would make a new revision",
            hint=f"set it to {json.dumps([*found, *missing])} (`kubectl -n kserve edit configmap"
            " inferenceservice-config`); it takes effect at once",
        )
