"""Tells of lost payload events where the user looks: a warning on the InferenceService."""

from __future__ import annotations

from glowplug.errors import NotFound
from glowplug.local.shadowing import State
from glowplug.payloads import Notice
from glowplug.spec.kinds import INFERENCE_SERVICE

_REASON = "PayloadsLost"


def event_of(state: State, notice: Notice) -> None:
    """A warning, unless the service is gone meanwhile."""
    try:
        regarding = state.objects.get(INFERENCE_SERVICE, notice.namespace, notice.service)
    except NotFound:
        return
    state.recorder(regarding, "Warning", _REASON, notice.text)
