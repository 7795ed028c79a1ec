"""A unit that has no model, as the process that a pod would run, on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

DEADLINE_S = 30
_ROOT = Path(__file__).parents[2]
_LISTENS = re.compile(r"HTTP 127\.0\.0\.1:(\d+)")


class HostedProcess:
    """`python -m module`; what it writes to stderr goes to `log`. It listens once this returns."""

    def __init__(self, log: Path, unit: str, *argv: str, **environment: str) -> None:
        self.log = log
        sources = (_ROOT / "src", _ROOT / "eventing" / unit / "src")
        module = f"glowplug_{unit.replace('-', '_')}"
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--http_port=0", "--host=127.0.0.1", *argv],
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources)), **environment},
            )
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := _LISTENS.search(log.read_text()):
                self.url = f"http://127.0.0.1:{found[1]}"
                return
            time.sleep(0.005)
        self.process.kill()
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        """By SIGTERM, which it obeys."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE_S) == 0, self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
