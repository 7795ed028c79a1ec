"""The forked side of a zygote: becomes what `exec` of `python -m MODULE` would have made of it.

Everything of the new process is set before the unit's main module runs, and that runs only when the supervisor says
so: by then the process is its child and known to the guardian.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

_PR_SET_PDEATHSIG = 1
_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
_BLAS_SETTERS = (
    "scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "scipy_openblas_set_num_threads",
    "openblas_set_num_threads",
)  # fmt: skip


class Memory:
    """What is looked up in the zygote, once, for its replicas: C functions, and where the kernel shows us."""

    def __init__(self) -> None:
        self.prctl = _prctl()
        self.set_blas_threads = _blas_setter()
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        # proc(5): arg_start, arg_end, env_start, env_end are the fields 48 to 51, of which two are gone already.
        self._arguments, self._environment = _span(fields[45:47]), _span(fields[47:49])

    def show(self, title: str, env: Mapping[str, str] | None) -> None:
        """Make /proc/<pid>/cmdline and environ say what is so now: `ps` and the guardian read them.

        `env` must not be what the C library points to any more; of what does not fit, the end is not shown.
        """
        start, length = self._arguments
        text = os.fsencode(title)[: length - 2]
        # A last byte that is not NUL tells the kernel that the arguments were replaced by one text.
        ctypes.memmove(start, text.ljust(length - 1, b"\0") + b" ", length)
        if env is None:
            return
        start, length = self._environment
        block = b""
        for key, value in env.items():
            entry = os.fsencode(f"{key}={value}") + b"\0"
            if len(block) + len(entry) <= length:
                block += entry
        ctypes.memmove(start, block.ljust(length, b"\0"), length)


def become(request: dict[str, Any], handles: list[int], memory: Memory) -> None:
    """Take on what the request says: session, output, environment, folder, arguments. Ends the process if refused."""
    os.setsid()
    output, permit = handles
    os.dup2(output, 1)
    os.dup2(output, 2)
    # Nothing comes if the supervisor could not adopt us, and the end of the pipe if it is gone.
    is_permitted = os.read(permit, 1) == b"+"
    for handle in (output, permit):
        os.close(handle)
    handles.clear()
    if memory.prctl is not None:
        memory.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if not is_permitted or os.getppid() != request["parent"]:
        os._exit(1)
    env: dict[str, str] = request["env"]
    os.environ.clear()
    os.environ.update(env)
    # What marks the process as the machine's comes first: it must fit.
    marks = {key: env[key] for key in request["marks"] if key in env}
    memory.show(" ".join(request["argv"]), {**marks, **env})
    time.tzset()
    _reseed()
    if memory.set_blas_threads is not None:
        memory.set_blas_threads(_blas_threads(env))
    os.chdir(request["cwd"])


def run_main(request: dict[str, Any]) -> None:
    """As `python -m MODULE ARGUMENTS`; raises SystemExit or whatever the module raises."""
    argv: list[str] = request["argv"]
    if not is_path_safe():
        sys.path.insert(0, os.getcwd())
    sys.orig_argv = list(argv)
    # runpy puts the module's file in the first place.
    sys.argv = argv[2:]
    runpy.run_module(argv[2], run_name="__main__", alter_sys=True)


def is_path_safe() -> bool:
    """Whether `python -m` leaves its folder out of the path: PYTHONSAFEPATH, which Python 3.10 does not know."""
    return bool(getattr(sys.flags, "safe_path", False))


def _reseed() -> None:
    """`random` does it by itself after a fork; numpy's global generator, where it was imported, does not."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _blas_threads(env: Mapping[str, str]) -> int:
    """As OpenBLAS counts them when it is loaded."""
    for name in _BLAS_VARIABLES:
        with contextlib.suppress(ValueError):
            count = int(env.get(name, "").partition(",")[0])
            if count > 0:
                return min(count, len(os.sched_getaffinity(0)))
    return len(os.sched_getaffinity(0))


def _blas_setter() -> Callable[[int], None] | None:
    """OpenBLAS's own function, of the copy that is loaded."""
    with open("/proc/self/maps") as file:
        paths = {line.split(None, 5)[5].strip() for line in file if "openblas" in line}
    for path in paths:
        library = ctypes.CDLL(path)
        for name in _BLAS_SETTERS:
            setter = getattr(library, name, None)
            if setter is not None:
                setter.argtypes, setter.restype = [ctypes.c_int], None
                return setter  # type: ignore[no-any-return]
    return None


def _prctl() -> Callable[[int, int], int] | None:
    prctl = getattr(ctypes.PyDLL(None), "prctl", None)
    if prctl is not None:
        prctl.argtypes, prctl.restype = [ctypes.c_int, ctypes.c_ulong], ctypes.c_int
    return prctl


def _span(fields: list[bytes]) -> tuple[int, int]:
    start, end = (int(field) for field in fields)
    return start, end - start
