"""The machine's side of the guardian: tells it which process groups exist, and starts it anew if it dies.

Also writes one small file a group, for the next machine on this data directory: if the guardian is killed together
with the machine, `clear_stale` of that next machine kills what is left, and never a process that only got the same
number later.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import subprocess
from pathlib import Path

from glowplug.supervisor import guardian

_LOG = logging.getLogger(__name__)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def mark_of(data_dir: Path) -> str:
    """What processes of this data directory's machine carry in their environment."""
    return hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]


class Guard:
    """`start` it in the event loop, `add` and `remove` groups, `close` it last."""

    def __init__(self, python: str, groups_dir: Path, mark: str) -> None:
        self._python = python
        self._folder = groups_dir
        self.mark = mark
        self._groups: dict[int, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd: int | None = None

    @property
    def pid(self) -> int | None:
        """The guardian's process."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the guardian, with all groups there are."""
        self._process = subprocess.Popen(
            [self._python, "-I", "-S", guardian.__file__, self.mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,
        )
        self._pidfd = _open_pidfd(self._process.pid)
        if self._pidfd is not None:
            asyncio.get_running_loop().add_reader(self._pidfd, self._on_death)
        for group, start in self._groups.items():
            self._send(f"+{group} {start}\n")

    def add(self, group: int) -> None:
        """A process group was started, just now, by its leader of the same number."""
        start = guardian.start_of(group)
        self._groups[group] = start
        self._send(f"+{group} {start}\n")
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._folder / str(group)).write_text(f"{start} {boot_id()}")

    def remove(self, group: int) -> None:
        """The group has ended."""
        if self._groups.pop(group, None) is not None:
            self._send(f"-{group}\n")
            with contextlib.suppress(OSError):
                (self._folder / str(group)).unlink()

    def close(self) -> None:
        """Let the guardian go: it kills what is still on its list, and ends."""
        process, self._process = self._process, None
        self._forget_pidfd()
        if process is not None:
            _end(process)
        # What ended with the machine in good order, like Envoy, is nobody's concern at the next start.
        for group in tuple(self._groups):
            self.remove(group)

    def _send(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except OSError:
            self._on_death()

    def _on_death(self) -> None:
        process, self._process = self._process, None
        self._forget_pidfd()
        if process is None:
            return
        _end(process)
        _LOG.warning(
            "the guardian process %s died (exit code %s), starting another", process.pid, process.returncode
        )
        self.start()

    def _forget_pidfd(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


def clear_stale(groups_dir: Path, mark: str) -> int:
    """Kill what an earlier machine on this data directory left running. How many groups and processes were hit."""
    hit = 0
    for file in groups_dir.glob("*") if groups_dir.is_dir() else ():
        if file.name.isdecimal():
            hit += _kill_recorded(int(file.name), file.read_text().split())
        file.unlink(missing_ok=True)
    return hit + guardian.kill_marked(guardian.MARK, mark, spare=_ancestors())


def boot_id() -> str:
    """Tells one boot of the computer from another: start times and process numbers begin anew."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "-"


def _kill_recorded(group: int, record: list[str]) -> int:
    start, boot = [*record, "", ""][:2]
    # Only where the leader is provably the one that was recorded; orphans of a dead leader carry the mark.
    if boot != boot_id() or start in ("", guardian.UNKNOWN_START) or guardian.start_of(group) != start:
        return 0
    guardian.kill_group(group, start)
    return 1


def _ancestors() -> frozenset[int]:
    """This process and those above it: a machine that was started from inside a pod must not kill itself."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            break
    return frozenset(found)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
