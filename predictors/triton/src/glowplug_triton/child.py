"""tritonserver as a child: its signals, output and exit code pass through, and why it did not start is said last.

Its own log ends with a table of options, so that the last lines of a pod that failed say nothing of the reason.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glowplug.triton.refusals import ModelTable

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_PDEATHSIG = 1
# Processes of the Python backend may hold the pipe for a moment longer than the server lives.
_LAST_OUTPUT_S = 5.0


def run(words: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs the server until it ends; its exit code, 128 + the signal's number where one ended it."""
    # A signal that comes while the server is being started waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    process = subprocess.Popen(
        words, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=_before_exec()
    )
    for number in _FORWARDED:
        signal.signal(number, lambda got, frame: process.send_signal(got))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    table = ModelTable()
    copier = threading.Thread(target=_copy, args=(process.stdout, table), daemon=True)
    copier.start()
    code = process.wait()
    copier.join(_LAST_OUTPUT_S)
    if code > 0:
        for line in table.refused:
            print(line, file=sys.stderr)
        if table.hint:
            print(f"hint: {table.hint}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def _before_exec() -> Callable[[], None] | None:
    """In the child: no signals blocked, and no life after this process, which may be killed."""
    if sys.platform != "linux":
        return lambda: _unblock()
    libc = ctypes.CDLL(None)

    def before() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _unblock()

    return before


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _copy(pipe: Any, table: ModelTable) -> None:
    """Each line as soon as it is whole; where nobody reads any more, the server goes on all the same."""
    out = sys.stderr.fileno()
    for line in pipe:
        table.feed(line.decode("utf-8", "replace").rstrip("\n"))
        try:
            _write(out, line)
        except OSError:
            continue


def _write(out: int, data: bytes) -> None:
    while data:
        data = data[os.write(out, data) :]
