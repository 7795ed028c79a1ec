"""Tells of lost payload events where the user looks: a warning on the InferenceService, and the page of metrics."""

from __future__ import annotations

import logging

from glowplug.errors import NotFound
from glowplug.local.shadowing import State
from glowplug.payloads import Notice, Payloads
from glowplug.router import Router
from glowplug.spec.kinds import INFERENCE_SERVICE

_log = logging.getLogger(__name__)
_REASON = "PayloadsLost"


def event_of(state: State, notice: Notice) -> None:
    """A warning, unless the service is gone meanwhile."""
    try:
        regarding = state.objects.get(INFERENCE_SERVICE, notice.namespace, notice.service)
    except NotFound:
        return
    state.recorder(regarding, "Warning", _REASON, notice.text)


async def metrics(payloads: Payloads, router: Router) -> str:
    """That part of the page; Envoy is read for it, and where it cannot be, its count is left out."""
    try:
        uncopied = await router.uncopied()
    except (OSError, TimeoutError, ValueError) as error:
        _log.warning("how many copies were not taken cannot be read: %s", error)
        return payloads.metrics(None)
    return payloads.metrics(uncopied)
