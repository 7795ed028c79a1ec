"""The drift detector as a deployable unit; what it does is in `glowplug.drift`."""
