"""Events on an InferenceService, as `kubectl describe` shows them.

Pure. kopf's own can only be sent from within its handlers, and not while it stops.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

_MAX_MESSAGE = 1024  # Kubernetes refuses longer ones


def event(
    isvc: Mapping[str, Any], component: str, reason: str, message: str, *, is_warning: bool, now: float
) -> dict[str, Any]:
    """The event to create; `component` is who tells it, `now` in seconds since the epoch."""
    metadata = isvc["metadata"]
    moment = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    if len(message) > _MAX_MESSAGE:
        message = f"{message[: _MAX_MESSAGE - 1]}…"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": isvc.get("apiVersion", "serving.kserve.io/v1beta1"),
            "kind": isvc.get("kind", "InferenceService"),
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata.get("uid", ""),
        },
        "type": "Warning" if is_warning else "Normal",
        "reason": reason,
        "message": message,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
    }
