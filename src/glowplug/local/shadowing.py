"""Tells of a shadow's differences where the user looks: an Event on the InferenceService, or the Knative Service."""

from __future__ import annotations

from typing import Any, Protocol

from glowplug.errors import NotFound
from glowplug.shadow import Notice
from glowplug.spec import names
from glowplug.spec.kinds import INFERENCE_SERVICE, KNATIVE_SERVICE, REVISION, Kind

_REASON = "ShadowDiffers"


class Objects(Protocol):
    """The part of the in-process API that this needs."""

    def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]: ...


class Recorder(Protocol):
    """Writes an Event."""

    def __call__(self, regarding: dict[str, Any], type: str, reason: str, message: str) -> None: ...


class State(Protocol):
    """The machine's objects, and who writes events."""

    @property
    def objects(self) -> Objects: ...
    @property
    def recorder(self) -> Recorder: ...


def event_of(state: State, notice: Notice) -> None:
    """A warning on the service whose shadow it is, unless that is gone meanwhile."""
    namespace, _, revision = notice.shadow.partition("/")
    try:
        labels = state.objects.get(REVISION, namespace, revision)["metadata"].get("labels") or {}
        service = labels.get(names.INFERENCE_SERVICE_LABEL)
        kind = INFERENCE_SERVICE if service else KNATIVE_SERVICE
        regarding = state.objects.get(kind, namespace, service or labels.get(names.SERVICE_LABEL, ""))
    except NotFound:
        return
    state.recorder(regarding, "Warning", _REASON, notice.text)
