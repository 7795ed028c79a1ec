"""What holds for every test."""

from hypothesis import settings

# How long an example takes says more of the machine that runs it than of the code.
settings.register_profile("glowplug", deadline=None)
settings.load_profile("glowplug")
