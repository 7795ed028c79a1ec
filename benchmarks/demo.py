"""How long a newcomer waits: `make demo` in a fresh clone, with its own virtual environment."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
import time

from benchmarks.results import Result

COMMAND = "make bench-demo"
_ROOT = pathlib.Path(__file__).parent.parent
_LIMIT_S = 900


def run() -> list[Result]:
    """Clone what is committed, run `make demo`, stop its machine."""
    with tempfile.TemporaryDirectory(prefix="glowplug-demo-") as folder:
        clone = pathlib.Path(folder) / "glowplug"
        subprocess.run(["git", "clone", "--quiet", str(_ROOT), str(clone)], check=True)
        environment = {**os.environ}
        environment.pop("VIRTUAL_ENV", None)
        started = time.perf_counter()
        try:
            subprocess.run(["make", "demo"], cwd=clone, env=environment, check=True, timeout=_LIMIT_S)
            elapsed = time.perf_counter() - started
        finally:
            subprocess.run([".venv/bin/glowplug", "down"], cwd=clone, check=False)
    return [
        Result(
            "demo.total.s", elapsed, "s", elapsed, elapsed, 1, COMMAND, "< 240",
            "from `make demo` in a fresh clone to its end, virtual environment and packages included (wheels cached)",
        )
    ]  # fmt: skip
