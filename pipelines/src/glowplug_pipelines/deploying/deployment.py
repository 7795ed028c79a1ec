"""What is to be deployed, and what came of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from glowplug.registry.models import ModelVersion


@dataclass(frozen=True)
class Deployment:
    """A version of run `run_id`, with its model card. `previous` is the storageUri that it may replace; None: any."""

    run_id: str
    version: ModelVersion
    card: Path | None = None
    previous: str | None = None

    @property
    def title(self) -> str:
        """One line, for commits and requests."""
        return f"Serve {self.version.name} version {self.version.version}"

    def text(self) -> str:
        """The model card, and the run that it came from."""
        card = self.card.read_text(encoding="utf-8").strip() if self.card is not None else ""
        told = f"Storage: {self.version.storage_uri}\nRun: {self.run_id}"
        return f"{card}\n\n{told}" if card else told


class Awaits(str, Enum):
    """Who says whether the version becomes champion."""

    ROLLOUT = "rollout"
    READY = "ready"
    MERGE = "merge"


@dataclass(frozen=True)
class Deployed:
    """`place` is what was written, for people; `is_new` False where it was there already."""

    awaits: Awaits
    place: str
    is_new: bool
    url: str = ""
