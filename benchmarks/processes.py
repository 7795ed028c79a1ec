"""Servers under measurement: started in a session of their own, asked for CPU and memory, stopped as a whole tree.

Linux only: CPU time is the kernel's per-process clock (nanoseconds; `/proc/PID/stat` counts in hundredths of a second),
memory is that of resident pages, with a page that the tree's processes share counted once.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from benchmarks.environments import Absent

_START_S = 90.0
_STOP_S = 10.0
_LAST_BYTES = 2000
# A clock id made from a process id is (~pid << 3) | CPUCLOCK_SCHED: clock_getcpuclockid(3), posix-timers.h.
_CPUCLOCK_SCHED = 2


@dataclass
class Server:
    """The processes that together answer, their ports, and how long they took until ready."""

    name: str
    http_port: int = 0
    grpc_port: int = 0
    model: str = "m"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    log: pathlib.Path | None = None
    launched: float = 0.0
    start_s: float = 0.0

    @property
    def slug(self) -> str:
        """The name as a part of file names."""
        return "-".join(re.findall(r"\w+", self.name.lower()))

    def launch(
        self,
        command: Sequence[str | pathlib.Path],
        environment: Mapping[str, str],
        folder: pathlib.Path,
    ) -> None:
        """Start one process; its output goes to `<folder>/<slug>.log`. Raises `Absent` without such a program."""
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{self.slug}.log"
        full = {**os.environ, "PYTHONSAFEPATH": "1", **environment}
        # The environment's own Python must not see ours; and start-up is measured with bytecode, as images have it.
        for name in ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME"):
            full.pop(name, None)
        # What prepared the launch (an environment made) is no part of the start.
        self.launched = self.launched or time.perf_counter()
        with self.log.open("ab") as output, _absent_unless_found():
            self.processes.append(
                subprocess.Popen(
                    [str(word) for word in command],
                    env=full, cwd=folder, stdin=subprocess.DEVNULL,
                    stdout=output, stderr=output, start_new_session=True,
                )
            )  # fmt: skip

    def wait_until(self, is_ready: Callable[[], bool], *, every_s: float = 0.01) -> None:
        """Wait for readiness, at most 90 s; `start_s` is the time since the launch.

        Raises `Absent` with the last line of its output; it is stopped then.
        """
        try:
            self._wait(is_ready, every_s)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.perf_counter() - self.launched

    def _wait(self, is_ready: Callable[[], bool], every_s: float) -> None:
        started = time.monotonic()
        while not _holds(is_ready):
            is_dead = any(each.poll() is not None for each in self.processes)
            if is_dead or time.monotonic() - started > _START_S:
                what = "ended" if is_dead else f"was not ready in {_START_S:.0f} s"
                raise Absent(f"{self.name} {what}: {self._last_line()}")
            time.sleep(every_s)

    def tree(self) -> list[int]:
        """The ids of all its processes, children's children included."""
        found = []
        for root in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(root.pid)
                found += [root.pid, *(each.pid for each in process.children(recursive=True))]
        return found

    def cpu_s(self) -> float:
        """User and system seconds of the living tree so far."""
        total = 0.0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                total += time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
        return total

    def memory_mib(self) -> float:
        """Resident memory as if the tree were alone: what each process has to itself, and the largest shared part.

        PSS would divide the libraries' pages by all servers of the benchmark that map the same files.
        """
        private, shared = 0, 0
        for pid in self.tree():
            own, others = _resident_kib(pid)
            private, shared = private + own, max(shared, others)
        return (private + shared) / 1024

    def stop(self) -> None:
        """SIGTERM to the roots; once they are gone, or after 10 s, SIGKILL to whatever of the tree is left."""
        tree = []
        for pid in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                tree.append(psutil.Process(pid))
        for root in self.processes:
            root.send_signal(signal.SIGTERM)
        for root in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                root.wait(_STOP_S)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for root in self.processes:
            root.wait(_STOP_S)

    def _last_line(self) -> str:
        text = self.log.read_text(errors="replace")[-_LAST_BYTES:] if self.log and self.log.exists() else ""
        return (text.strip().splitlines() or ["it wrote nothing"])[-1][:300]


@contextlib.contextmanager
def _absent_unless_found() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Absent(f"cannot be started: {error}") from error


def _holds(is_ready: Callable[[], bool]) -> bool:
    try:
        return is_ready()
    except OSError:
        return False


def _resident_kib(pid: int) -> tuple[int, int]:
    """A process's private and shared resident pages, as the kernel sums them."""
    private = shared = 0
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_"):
                private += int(line.split()[1])
            elif line.startswith("Shared_"):
                shared += int(line.split()[1])
    return private, shared


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
