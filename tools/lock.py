"""Resolves constraints.txt: the exact versions that are tested, for every supported Python, without addresses."""

from __future__ import annotations

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
EXTRAS = ("dev", "kafka", "loadtest", "pipelines", "serving", "torch", "torch-test")
HEADER = """\
# The exact versions that are tested. Written by `make lock`; used by `make setup`.
"""


def main() -> int:
    """Run uv's universal resolver over the tested extras; exit status as uv's."""
    command = [
        str(ROOT / ".venv/bin/uv"), "pip", "compile", "pyproject.toml",
        *(f"--extra={extra}" for extra in EXTRAS),
        "--universal", "--python-version", "3.10", "--no-header", "--no-annotate",
        "--no-emit-index-url", "--no-emit-find-links", "--quiet", "--upgrade",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        (ROOT / "constraints.txt").write_text(HEADER + done.stdout)
        print(f"constraints.txt: {len(done.stdout.splitlines())} versions")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
