"""A state in a temporary folder with a clock that the test sets, and objects to fill it with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from time import monotonic
from typing import Any

import anyio

from glowplug.apiserver.objects import Objects
from glowplug.apiserver.store import Store
from glowplug.apiserver.watch import Hub, Window

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


class World:
    """Store, hub and objects over one file; `now` is what the objects take for the time."""

    def __init__(self, folder: Path, window: Window | None = None) -> None:
        self.now = START
        self.store = Store.open(folder / "objects.db")
        self.hub = Hub(self.store.revision, window or Window())
        self.objects = Objects(self.store, self.hub, clock=lambda: self.now)
        self.objects.ensure_default_namespace()

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def close(self) -> None:
        self.hub.close()
        self.store.close()


def thing(name: str, namespace: str = "default", **metadata: Any) -> dict[str, Any]:
    """An object with this metadata and an empty rest."""
    return {"metadata": {"name": name, "namespace": namespace, **metadata}}


def owned_by(*owners: dict[str, Any], blocks: bool = True) -> list[dict[str, Any]]:
    """ownerReferences to these objects."""
    return [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": index == 0,
            "blockOwnerDeletion": blocks,
        }
        for index, owner in enumerate(owners)
    ]


async def until(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    """Wait until the condition holds; an AssertionError after the deadline."""
    end = monotonic() + deadline_s
    while not condition():
        assert monotonic() < end, f"not true within {deadline_s} s"
        await anyio.sleep(0.002)
