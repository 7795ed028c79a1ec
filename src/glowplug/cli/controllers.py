"""What the commands that run a controller have in common: the API that they act on, and what they log."""

from __future__ import annotations

import logging
import os
import pathlib
from typing import TYPE_CHECKING

from glowplug.errors import ConfigError

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig


def connected(kubeconfig: pathlib.Path | None, context: str | None) -> SingleConfig:
    """The API: a kubeconfig's, or in a pod without one the cluster's. Raises ConfigError without the packages."""
    from glowplug.cli import kube

    try:
        import glowplug.operators.operator  # noqa: F401 - all that the extra brings
        from glowplug.operators.api import connection
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed", hint="`pip install 'glowplug[controllers]'`"
        ) from error
    path = None
    if kubeconfig or context or "KUBECONFIG" in os.environ or "KUBERNETES_SERVICE_HOST" not in os.environ:
        path = pathlib.Path(kube.connect(kubeconfig, context, None).kubeconfig)
    return connection(path, context)


def log_to_stderr(*quiet: str) -> None:
    """Everything from INFO on; of the loggers `quiet`, warnings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)
