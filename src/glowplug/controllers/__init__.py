"""The control plane of the local machine: InferenceService → Knative objects → pods, and the route table.

Decisions are pure functions over Kubernetes objects; one loop (`Controllers`) reads, decides and writes through the
small protocols in `world`. It runs no process, opens no socket and knows no proxy.
"""

from __future__ import annotations

from .config import ControllersConfig
from .loop import Controllers, Publish
from .world import Change, EventRecorder, Objects

__all__ = [
    "Change",
    "Controllers",
    "ControllersConfig",
    "EventRecorder",
    "Objects",
    "Publish",
]
