"""What keeps a version from being deployed, a class for each thing that a caller does differently."""

from __future__ import annotations

from glowplug.errors import GlowplugError


class DeployError(GlowplugError):
    """The version is not deployed; the message says where it stopped and what is there."""


class EditedMeanwhile(DeployError):
    """Somebody has changed what the version was to replace: trying again alone does not help."""


class Unambiguous(DeployError):
    """The manifest has no one line that can be changed."""
