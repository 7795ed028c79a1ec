"""Which revisions' pods copy requests by themselves: known from the revision alone, before there is a pod."""

from __future__ import annotations

from typing import Any

import pytest

from glowplug.controllers.knative.backends import make_backend

UNIT = {"name": "kserve-container", "image": "registry/glowplug/xgboost:1"}
PORTS = {"ports": [{"containerPort": 8080}]}


def key_of(image: str) -> str:
    return "key" if "glowplug/" in image else ""


@pytest.mark.parametrize(
    ("containers", "key"),
    [
        ([UNIT], "key"),
        ([{**UNIT, "command": ["python", "my.py"]}], ""),
        ([{"name": "kserve-container", "image": "mine"}], ""),
        ([{"name": "kserve-container", "command": ["python", "my.py"]}], ""),
        # Collocated: the one that takes the requests decides.
        ([UNIT, {"name": "transformer-container", "image": "mine", **PORTS}], ""),
        ([{"name": "kserve-container", "image": "mine"}, {**UNIT, "name": "transformer-container", **PORTS}], "key"),
    ],
)  # fmt: skip
def test_the_serving_containers_image_says_so(containers: list[dict[str, Any]], key: str) -> None:
    revision = {"metadata": {"name": "r", "namespace": "default"}, "spec": {"containers": containers}}
    backend = make_backend(revision, [], False, key_of)
    assert backend.copy_key == key and not backend.endpoints
