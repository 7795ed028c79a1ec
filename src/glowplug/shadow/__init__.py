"""Tries a new revision on copies of real requests, and compares what it answers; see `shadow.engine`."""

from glowplug.shadow.config import ShadowConfig
from glowplug.shadow.engine import Shadows
from glowplug.shadow.tally import Notice

__all__ = ["Notice", "ShadowConfig", "Shadows"]
