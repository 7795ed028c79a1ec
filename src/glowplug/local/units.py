"""The shipped units: where they lie, and the ClusterServingRuntimes that they bring."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Iterable
from typing import Any, Protocol

from glowplug.errors import NotFound
from glowplug.spec.documents import load
from glowplug.spec.kinds import CLUSTER_SERVING_RUNTIME, Kind

_LOG = logging.getLogger(__name__)
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_FOLDERS = ("predictors", "transformers", "eventing", "pipelines")
Object = dict[str, Any]


class Objects(Protocol):
    """The part of the in-process API that installing runtimes needs."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object: ...
    def create(self, kind: Kind, obj: Object) -> Object: ...
    def update(self, kind: Kind, obj: Object) -> Object: ...


def unit_folders(own: Iterable[pathlib.Path] = ()) -> list[pathlib.Path]:
    """The folders of units: those inside an installed package, else those of the checkout, then the user's own."""
    for root in (_PACKAGE / "units", _PACKAGE.parents[1]):
        shipped = [root / name for name in _FOLDERS if (root / name).is_dir()]
        if shipped:
            return [*shipped, *own]
    return list(own)


def install_runtimes(objects: Objects, folders: Iterable[pathlib.Path]) -> None:
    """Create or update the ClusterServingRuntime of each unit that has a `runtime.yaml`."""
    for folder in folders:
        for path in sorted([*folder.glob("runtime.yaml"), *folder.glob("*/runtime.yaml")]):
            for document in load(path.read_text(), str(path)):
                _install(objects, document.object)


def _install(objects: Objects, runtime: Object) -> None:
    name = runtime["metadata"]["name"]
    try:
        live = objects.get(CLUSTER_SERVING_RUNTIME, "", name)
    except NotFound:
        objects.create(CLUSTER_SERVING_RUNTIME, runtime)
        _LOG.info("ClusterServingRuntime %s created", name)
        return
    objects.update(CLUSTER_SERVING_RUNTIME, {**live, "spec": runtime["spec"]})
