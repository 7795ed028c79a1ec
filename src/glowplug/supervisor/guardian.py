"""The process that outlives the machine just long enough to leave nothing behind.

Run as a script by a bare interpreter (`python -I -S guardian.py MARK`), so it imports nothing of glowplug and starts in
about 10 ms. It reads lines from a pipe whose other end the machine holds: `+<group> <start>` when a process group is
started, `-<group>` when it has ended. When the machine dies, by whatever means, the pipe ends; then it kills every
group still on its list, and on Linux every process that carries the machine's mark in its environment, which also
finds those that moved to a group of their own. Its functions are shared with `stale`, which does the same for what a
machine left behind whose guardian was killed too.
"""

from __future__ import annotations

import os
import signal
import sys
import time

MARK = "GLOWPLUG_MACHINE"
UNKNOWN_START = "0"
_SWEEPS = 20


def start_of(pid: int) -> str:
    """When `pid` started, in clock ticks since boot; UNKNOWN_START where there is no such process or no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return UNKNOWN_START


def kill_group(group: int, start: str) -> None:
    """SIGKILL to a process group, unless its number now belongs to a process that started at another time."""
    now = start_of(group)
    if UNKNOWN_START not in (start, now) and now != start:
        return
    try:  # noqa: SIM105 (contextlib would double this process's start)
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def marked(name: str, value: str) -> list[int]:
    """The processes with `name=value` in their environment, without this one; none where there is no /proc."""
    needle = f"{name}={value}".encode()
    found = []
    try:
        entries = os.listdir("/proc")
    except OSError:
        return []
    for entry in entries:
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if needle in file.read().split(b"\0"):
                    found.append(int(entry))
        except OSError:
            continue
    return found


def kill_marked(name: str, value: str, spare: frozenset[int] = frozenset()) -> int:
    """SIGKILL to marked processes until none is found: one may fork while we look. How many were killed."""
    killed = 0
    for _ in range(_SWEEPS):
        pids = [pid for pid in marked(name, value) if pid not in spare]
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except (ProcessLookupError, PermissionError):
                pass
        time.sleep(0.01)
    return killed


def watch(mark: str) -> None:
    """Read the list until the machine is gone, then kill."""
    groups: dict[int, str] = {}
    for line in sys.stdin.buffer:
        words = line.decode("ascii", "replace").split()
        if not words or not words[0][1:].isdecimal():
            continue
        if words[0].startswith("+"):
            groups[int(words[0][1:])] = words[1] if len(words) > 1 else UNKNOWN_START
        else:
            groups.pop(int(words[0][1:]), None)
    for group, start in groups.items():
        kill_group(group, start)
    kill_marked(MARK, mark)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(sys.argv[1])
