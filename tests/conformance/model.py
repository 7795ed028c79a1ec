"""`python -m conformance.model FOLDER`: the model of the cases, for a place that a cluster reads."""

from __future__ import annotations

import pathlib
import sys

from local.machine_lab import write_model

if __name__ == "__main__":
    write_model(pathlib.Path(sys.argv[1]))
