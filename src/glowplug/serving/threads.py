"""How many threads compute: as many as the container may use CPUs, not as many as the computer has.

More threads than that are stopped by the kernel's CPU quota in the middle of their work; the default of the libraries
that compute (onnxruntime, OpenMP) is one for each core of the computer.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from glowplug.errors import ConfigError

VARIABLE = "OMP_NUM_THREADS"
# cgroup v2: "<quota> <period>" in microseconds, or "max <period>".
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def thread_count(flag: int | None, env: Mapping[str, str], cpus: int) -> int:
    """The flag, else $OMP_NUM_THREADS but at most `cpus`, else `cpus`. Raises ConfigError where one is no count."""
    if flag is not None:
        if flag < 1:
            raise ConfigError(f"--threads={flag}, expected 1 or more")
        return flag
    # OpenMP takes a list, a number for each level of nesting.
    text = env.get(VARIABLE, "").partition(",")[0].strip()
    if not text:
        return cpus
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ConfigError(f"${VARIABLE} = {text!r}, expected a number of threads", hint="or use --threads")
    return min(int(text), cpus)


def available_cpus(quota_file: Path = CPU_QUOTA) -> int:
    """The CPUs that this process may use: its affinity, or less where the container has a quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return quota_cpus(quota_file.read_text(), cpus)
    except OSError:
        return cpus


def quota_cpus(text: str, cpus: int) -> int:
    """The CPUs of a cgroup's `cpu.max`, rounded up as the local machine rounds limits; at most `cpus`."""
    quota, _, period = text.strip().partition(" ")
    if not (quota.isdigit() and period.isdigit()) or int(period) == 0:
        return cpus
    return max(1, min(cpus, math.ceil(int(quota) / int(period))))
