"""Knative's Revisions, as far as a rollout must look into them: what they run, and the id of their version.

KServe makes a revision of any change of the template: a label, an annotation, the logger, the scale. Such a revision
runs what the one before it ran, and there is nothing to roll out. Only the two Revisions themselves can tell: by the
time that one is seen, the InferenceService may have changed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from glowplug.errors import Forbidden, NotFound
from glowplug.spec import logger, names

from .observation import Observation, annotations_of

Object = dict[str, Any]
_PATH = "/apis/serving.knative.dev/v1/namespaces/{}/revisions/{}"
# Of a revision: for how long and how many at a time, not what it answers.
_NOT_RUN = frozenset(
    {"containerConcurrency", "idleTimeoutSeconds", "responseStartTimeoutSeconds", "timeoutSeconds"}
)
# What KServe puts into pods by annotation, the model above all; but who is told of the payloads is not what runs.
_INJECTED = f"{logger.INTERNAL}/"
_TOLD = (f"{logger.INTERNAL}/logger", f"{logger.INTERNAL}/batcher")


class Reader(Protocol):
    async def get(self, path: str) -> Object: ...


class Revisions:
    """Its methods raise what `api` does: ApiError, or OSError where nobody answers."""

    def __init__(self, api: Reader) -> None:
        self._api = api

    async def version(self, revision: str) -> str:
        """The id that `stamps` gave to what a revision (`namespace/name`) runs; "" where it has none."""
        found = await self._find(*revision.split("/"))
        return annotations_of(found).get(names.VERSION, "") if found is not None else ""

    async def compared(
        self, namespace: str, seen: Observation, questions: Mapping[str, Iterable[str]]
    ) -> Observation:
        """With the twins of the components' latest revisions, among those that are asked about."""
        components = dict(seen.components)
        for name, others in questions.items():
            twins = await self._twins(namespace, components[name].created, others)
            components[name] = replace(components[name], twins=twins)
        return replace(seen, components=components)

    async def _twins(self, namespace: str, revision: str, others: Iterable[str]) -> frozenset[str]:
        """Those of the others that run the same; one that is gone is none."""
        mine = await self._find(namespace, revision)
        if mine is None:
            return frozenset()
        found = {name: await self._find(namespace, name) for name in others if name not in ("", revision)}
        return frozenset(name for name, other in found.items() if other and runs(other) == runs(mine))

    async def _find(self, namespace: str, name: str) -> Object | None:
        try:
            return await self._api.get(_PATH.format(namespace, name))
        except (NotFound, Forbidden):
            # Where a role is older than this, it is as with a revision that is gone: nothing is known of it.
            return None


def runs(revision: Mapping[str, Any]) -> tuple[Object, Object]:
    """What a revision runs, however it is scaled and whoever is told of it."""
    spec = {key: value for key, value in (revision.get("spec") or {}).items() if key not in _NOT_RUN}
    injected = {
        key: value
        for key, value in annotations_of(revision).items()
        if key.startswith(_INJECTED) and not key.startswith(_TOLD)
    }
    return spec, injected
