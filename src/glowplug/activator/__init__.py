"""Holds requests while a revision has no free pod, see `activator.activator`."""

from glowplug.activator.activator import Activator
from glowplug.activator.config import ActivatorConfig

__all__ = ["Activator", "ActivatorConfig"]
