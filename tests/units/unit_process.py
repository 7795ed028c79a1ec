"""A unit under test as the process that a pod would run, on free ports."""

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
_SOURCES = os.pathsep.join(
    str(path) for path in sorted(_ROOT.glob("*/*/src")) if path.parts[-3] != "pipelines"
)
_READY = re.compile(r"HTTP 127\.0\.0\.1:(\d+), gRPC 127\.0\.0\.1:(\d+)")


class UnitProcess:
    """`python -m module`, serving the model `m`; what it writes to stderr goes to `log`."""

    url: str
    grpc: str

    def __init__(self, log: Path, module: str, *argv: str) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", module, "--model_name=m", "--http_port=0", "--grpc_port=0",
                    "--drain_delay_s=0", *argv,
                ],
                stderr=stderr,
                env={
                    **os.environ,
                    "HOST": "127.0.0.1",
                    "PYTHONPATH": _SOURCES,
                    "PYTHONSAFEPATH": "1",
                    "OMP_NUM_THREADS": "1",
                },
            )  # fmt: skip

    def wait_until_ready(self) -> UnitProcess:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := _READY.search(self.log.read_text()):
                self.url, self.grpc = f"http://127.0.0.1:{found[1]}", f"127.0.0.1:{found[2]}"
                return self
            time.sleep(0.005)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE_S) == 0, self.log.read_text()
