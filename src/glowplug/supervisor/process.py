"""One process group: the main process of a container and whatever it starts.

A group dies as a whole: when its main process has exited, the rest of the group is killed before the main process is
reaped, while its number can't belong to anybody else. On Linux the main process also dies with the machine
(PR_SET_PDEATHSIG); the guardian sees to the rest, and to other systems.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import anyio

from glowplug.supervisor.failures import RUN_ERROR, CannotStart
from glowplug.supervisor.guard import Guard

OnOutput = Callable[[bytes], None]
_READ = 64 * 1024
_PR_SET_PDEATHSIG = 1
# How long output may go on after the group was killed: something that left the group may hold the pipe.
_LAST_OUTPUT_S = 0.5


class Child(Protocol):
    """A child process of ours: `subprocess.Popen`, or one that was forked elsewhere and adopted."""

    @property
    def pid(self) -> int: ...

    # None until it has been waited for; negative for a signal.
    returncode: int | None

    def wait(self) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


class Process:
    """A running group. `on_output` gets stdout and stderr, in order, in chunks."""

    def __init__(self, child: Child, output: int, guard: Guard, on_output: OnOutput) -> None:
        self._child = child
        self._output: int | None = output
        self._guard = guard
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._drained = asyncio.Event()
        os.set_blocking(output, False)
        self._loop.add_reader(output, self._read)
        self._watch_exit()

    @property
    def pid(self) -> int:
        """The main process, and the number of its group."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Until the main process has been reaped."""
        return not self._exited.is_set()

    @property
    def exit_code(self) -> int:
        """128 + signal if one ended the main process; only once it has ended."""
        code = self._child.returncode
        assert code is not None
        return 128 - code if code < 0 else code

    async def wait(self) -> int:
        """The exit code of the main process, 128 + signal if one ended it; its output is complete by then."""
        await self._exited.wait()
        with anyio.move_on_after(_LAST_OUTPUT_S):
            await self._drained.wait()
        self._close_output()
        return self.exit_code

    def terminate(self) -> None:
        """SIGTERM to the main process alone, as to the first process of a container."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the group."""
        if self.is_running:
            self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def _watch_exit(self) -> None:
        try:
            pidfd = os.pidfd_open(self._child.pid)
        except (AttributeError, OSError):
            threading.Thread(target=self._wait_in_thread, name=f"wait-{self._child.pid}", daemon=True).start()
            return

        def on_exit() -> None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
            self._reap()

        self._loop.add_reader(pidfd, on_exit)

    def _wait_in_thread(self) -> None:
        # Not reaped here where that can be helped: an unreaped leader keeps the group's number.
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._child.wait()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reap)

    def _reap(self) -> None:
        self._kill_group()
        self._child.wait()
        self._guard.remove(self._child.pid)
        self._exited.set()

    def _read(self) -> None:
        if self._output is None:
            return
        try:
            data = os.read(self._output, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._on_output(data)
        else:
            self._close_output()

    def _close_output(self) -> None:
        if self._output is not None:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = None
        self._drained.set()


class Launcher:
    """Starts process groups that the guardian knows of."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @property
    def mark(self) -> str:
        """What every process of this machine carries in its environment."""
        return self._guard.mark

    def adopt(self, child: Child, output: int, on_output: OnOutput) -> Process:
        """A child that leads a session of its own and writes to the pipe `output`, followed as if started here."""
        self._guard.add(child.pid)
        return Process(child, output, self._guard, on_output)

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        on_output: OnOutput,
        handles: Sequence[int] = (),
    ) -> Process:
        """Start `argv` in a session of its own. Raises CannotStart, in the words of a container runtime.

        `handles` are what it gets of our open files, by the same numbers, beside its output.
        """
        if not os.path.isdir(cwd):
            raise CannotStart(RUN_ERROR, f'working directory "{cwd}" does not exist on this computer')
        reading, writing = os.pipe()
        try:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
                pass_fds=handles,
                preexec_fn=_die_with_parent(),
            )
        except FileNotFoundError as error:
            os.close(reading)
            raise CannotStart(RUN_ERROR, f'exec: "{argv[0]}": executable file not found in $PATH') from error
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            os.close(reading)
            raise CannotStart(RUN_ERROR, f'exec: "{argv[0]}": {error}') from error
        finally:
            os.close(writing)
        return self.adopt(popen, reading, on_output)


def _load_prctl() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        # PyDLL: does not release the interpreter's lock around the call, which a forked child had better not do.
        prctl = ctypes.PyDLL(None).prctl
    except (OSError, AttributeError):
        return None
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong]
    prctl.restype = ctypes.c_int
    return prctl


_PRCTL = _load_prctl()


def _die_with_parent() -> Callable[[], None] | None:
    """What runs between fork and exec; everything it needs is looked up before."""
    prctl, parent, getppid, leave, sigkill = _PRCTL, os.getpid(), os.getppid, os._exit, int(signal.SIGKILL)
    if prctl is None:
        return None

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, sigkill)
        if getppid() != parent:
            leave(1)

    return die_with_parent
