"""Why a container is not running yet, in Kubernetes' words.

Raised while a container is prepared; becomes `state.waiting` of its status and a Warning event.
"""

from __future__ import annotations

from glowplug.errors import GlowplugError

CONTAINER_CREATING = "ContainerCreating"
POD_INITIALIZING = "PodInitializing"
CRASH_LOOP = "CrashLoopBackOff"
CONFIG_ERROR = "CreateContainerConfigError"
CREATE_ERROR = "CreateContainerError"
IMAGE_PULL_ERROR = "ErrImagePull"
RUN_ERROR = "RunContainerError"
# What a container that could not be run has ended with, and its exit code.
START_ERROR, START_ERROR_CODE = "StartError", 128


class CannotStart(GlowplugError):
    """A container cannot be started as things are; `reason` is a waiting reason of Kubernetes."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
