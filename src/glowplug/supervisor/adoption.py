"""Becoming the parent of a process that another one forked, so that its exit code is ours to read.

A zygote's replica is orphaned on purpose (its parent exits at once) while this process is marked as the one that
orphans go to. The mark is taken back as soon as possible: what pods leave behind belongs to init, which reaps it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator

_PR_SET_CHILD_SUBREAPER = 36


class Adopted:
    """A child that subprocess does not know; the part of Popen that a `Process` needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        """Nothing where it has been reaped."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, negative for a signal; blocks until there is one."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Adoption:
    """Whether orphans come to this process: while any block of `open` runs."""

    def __init__(self) -> None:
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform.startswith("linux") else None
        self._open = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[bool]:
        """Whether adoption is possible here."""
        self._open += 1
        try:
            yield self._set(1)
        finally:
            self._open -= 1
            if self._open == 0:
                self._set(0)

    def adopt(self, pid: int) -> Adopted | None:
        """The child, or None, and the process is killed, where it has not become one."""
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return None
        return Adopted(pid)

    def _set(self, value: int) -> bool:
        return self._prctl is not None and self._prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(value)) == 0
