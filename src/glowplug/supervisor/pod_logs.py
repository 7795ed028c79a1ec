"""The logs of one pod: one folder a container, in it one log for each of its last two runs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glowplug.supervisor.config import SupervisorConfig
from glowplug.supervisor.log_file import ContainerLog


class PodLogs:
    """Opens a log for each run, and finds them again."""

    def __init__(self, config: SupervisorConfig, metadata: Mapping[str, Any]) -> None:
        self._config = config
        self._folder = config.logs_dir / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        self._current: dict[str, ContainerLog] = {}

    def open(self, container: str, run: int) -> ContainerLog:
        """The log of a run that starts now; logs from before the run before it go."""
        folder = self._folder / container
        for path in folder.glob("*.log*"):
            number = path.name.partition(".")[0]
            if number.isdecimal() and int(number) < run - 1:
                with contextlib.suppress(OSError):
                    path.unlink()
        log = ContainerLog(
            folder, run, max_bytes=self._config.log_max_bytes, max_files=self._config.log_files
        )
        self._current[container] = log
        return log

    def current(self, container: str) -> ContainerLog | None:
        """The log of the newest run, which may have ended."""
        return self._current.get(container)

    def previous(self, container: str) -> Path | None:
        """The file of the run before the newest, if there was one."""
        log = self._current.get(container)
        if log is None:
            return None
        path = log.path.with_name(f"{int(log.path.stem) - 1}.log")
        return path if path.exists() else None

    def latest(self, container: str, back: int = 0) -> Path | None:
        """The file of the newest run on the disk, or of that `back` runs before it: for a pod that nobody runs."""
        runs = [int(path.stem) for path in (self._folder / container).glob("*.log") if path.stem.isdecimal()]
        path = self._folder / container / f"{max(runs, default=0) - back}.log"
        return path if path.exists() else None

    def remove(self) -> None:
        """The pod is gone."""
        shutil.rmtree(self._folder, ignore_errors=True)
