"""A process that has imported what a unit needs, and forks a replica of it on request.

Run as `python -m glowplug.supervisor.zygote FD LABEL`, with a socket to the supervisor at FD. The first message says
what to import; then each message is a replica to start, in `zygote_replica`. It imports nothing of glowplug itself.

Fork is safe here because nothing but memory is copied: there is one thread and no open file, which is checked before
every fork, no event loop and no gRPC core; those begin in the replica. Hazards, and what is done about each:

- a lock that another thread holds: there is no other thread, or the fork is refused;
- a file or socket that two processes would share: none is open but ours, or the fork is refused;
- OpenBLAS starts threads when numpy is imported: the supervisor says OPENBLAS_NUM_THREADS=1, the replica says how many
  it wants afterwards;
- what modules read from the environment while they were imported is reported by name, and the supervisor starts a
  container whose values differ by exec;
- code that has changed on disk since: refused, and the supervisor starts another zygote;
- random numbers: `random` seeds itself anew after a fork, numpy's global generator is seeded anew, OpenSSL's too; the
  seed of `hash(str)` is the same in all replicas of one zygote, as in all workers of a pre-forking server.

The replica is forked by a process that ends at once, so that it becomes a child of the supervisor: its exit code does
not depend on this process, which may be killed at any time.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from glowplug.supervisor.zygote_replica import Memory, become, is_path_safe, run_main

LONGEST_MESSAGE = 128 * 1024
EVERYTHING = "*"
# Keep a copy of the environment for programs that never use it: CGI.
_HARMLESS_READERS = frozenset({"wsgiref.handlers"})
# Between a reader and the environment; the module _collections_abc calls itself by the public name.
_VIEWS = ("os", "collections.abc", "_collections_abc")


def serve() -> dict[str, Any] | None:
    """Fork on request until the supervisor goes: None. In a replica: its request."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    order = json.loads(channel.recv(LONGEST_MESSAGE))
    try:
        fork = _Fork(channel, order)
    except (Exception, SystemExit) as error:
        # Whatever a unit's modules raise while they are imported is told, and the unit runs without this process.
        _send(channel, {"error": f"{type(error).__name__}: {error}"})
        return None
    _send(channel, fork.describe())
    while True:
        data, handles, _, _ = socket.recv_fds(channel, LONGEST_MESSAGE, 2)
        if not data:
            return None
        request: dict[str, Any] = json.loads(data)
        reply = fork(request, handles)
        for handle in handles:
            os.close(handle)
        if reply is None:
            return request
        _send(channel, reply)


class _Fork:
    """Imports once; each call is one replica. None is returned in the replica itself."""

    def __init__(self, channel: socket.socket, order: dict[str, Any]) -> None:
        self._channel = channel
        began = time.perf_counter()
        os.environ.pop(order["room"], None)
        if not is_path_safe():
            # This process's folder; a replica puts its own there.
            sys.path.pop(0)
        if order["is_idle"]:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        self._main = _main_file(order["module"])
        with _recorded() as self._names:
            _import_all(_imported_by(*self._main), is_required=True)
            _import_all(order["preload"], is_required=False)
        # What modules set for others to find is part of having imported them; the interpreter sets LC_CTYPE.
        before = _given_environment()
        self._set = {key: value for key, value in os.environ.items() if before.get(key) != value}
        self._took_s = time.perf_counter() - began
        self._memory = Memory()
        self._memory.show(f"glowplug-zygote {sys.argv[2]}", None)
        self._version = self._stat()
        if order["is_idle"]:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        # What is frozen is not looked at by the collector, so its pages stay shared.
        gc.collect()
        gc.freeze()

    def describe(self) -> dict[str, Any]:
        """What the supervisor wants to know of the imports."""
        return {
            "import_s": self._took_s,
            "names": sorted(self._names),
            "trouble": _unsafe({0, 1, 2, self._channel.fileno()}),
            "has_openmp": _has_openmp(),
            "scheduler": os.sched_getscheduler(0),
        }

    def __call__(self, request: dict[str, Any], handles: list[int]) -> dict[str, Any] | None:
        trouble = _unsafe({0, 1, 2, self._channel.fileno(), *handles})
        if trouble:
            return {"refused": trouble}
        changed = self._changed()
        if changed:
            return {"refused": f"{changed} has changed", "is_stale": True}
        request["env"] = {**self._set, **request["env"]}
        reading, writing = os.pipe()
        middle = os.fork()
        if middle == 0:
            self._in_middle(request, handles, reading, writing)
            return None
        os.close(writing)
        data = os.read(reading, 4)
        os.close(reading)
        # From here on the replica is the supervisor's child.
        os.waitpid(middle, 0)
        if len(data) < 4:
            return {"refused": "fork failed"}
        return {"pid": struct.unpack("i", data)[0]}

    def _in_middle(self, request: dict[str, Any], handles: list[int], reading: int, writing: int) -> None:
        try:
            pid = os.fork()
        except OSError:
            os._exit(1)
        if pid != 0:
            os.write(writing, struct.pack("i", pid))
            os._exit(0)
        self._channel.close()
        os.close(reading)
        os.close(writing)
        become(request, handles, self._memory)

    def _changed(self) -> str:
        """A file or folder that is not as it was when it was imported, or ""."""
        now = self._stat(self._version)
        return next((path for path, version in self._version.items() if now[path] != version), "")

    def _stat(self, paths: Any = None) -> dict[str, tuple[int, int]]:
        return {path: _version(path) for path in (paths if paths is not None else self._watched())}

    def _watched(self) -> Iterator[str]:
        """The sources that are edited here, each by itself, and the folders where packages are installed."""
        roots = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        yield self._main[0]
        for module in tuple(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and any(file.startswith(root + os.sep) for root in roots):
                yield file
        yield from (path for path in sys.path if os.path.isdir(path))


def _version(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _unsafe(own: set[int]) -> str:
    """Why this process must not be forked: threads, or files that replicas would share. "" if it may be."""
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        return f"it has {len(threads)} threads"
    for handle in map(int, os.listdir("/proc/self/fd")):
        # The handle of the folder itself is closed by now.
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{handle}")
            if handle not in own:
                return f"it has {path} open"
    return ""


def _given_environment() -> dict[str, str]:
    with open("/proc/self/environ", "rb") as file:
        pairs = (os.fsdecode(entry).partition("=") for entry in file.read().split(b"\0"))
        return {key: value for key, _, value in pairs}


def _has_openmp() -> bool:
    with open("/proc/self/maps") as file:
        return any(name in line for line in file for name in ("libgomp", "libomp", "libiomp"))


def _main_file(module: str) -> tuple[str, str]:
    """The file that `python -m module` runs, and its package."""
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ImportError(f"no module named {module}.__main__")
    return spec.origin, spec.parent or ""


def _imported_by(path: str, package: str) -> list[str]:
    """What the main module imports at its top. It is not run itself: not every one asks whether it is `__main__`."""
    with open(path, "rb") as file:
        body = ast.parse(file.read(), path).body
    found: list[str] = []
    for node in body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            name = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(name, package) if node.level else name
            found.append(base)
            found += [f"{base}.{alias.name}" for alias in node.names if alias.name != "*"]
    return found


def _import_all(modules: list[str], is_required: bool) -> None:
    for name in modules:
        module, _, function = name.partition(":")
        parent, _, attribute = module.rpartition(".")
        if not function and hasattr(sys.modules.get(parent), attribute):
            continue
        try:
            found = importlib.import_module(module)
        except ImportError:
            if is_required:
                raise
            continue
        if function:
            getattr(found, function)()


@contextlib.contextmanager
def _recorded() -> Iterator[set[str]]:
    """The names of the variables that Python code reads within the block; EVERYTHING if it reads them all."""
    names: set[str] = set()
    environ, plain = os.environ, type(os.environ)

    def note(name: str) -> None:
        frame = sys._getframe(2)
        while frame is not None and frame.f_globals.get("__name__") in _VIEWS:
            frame = frame.f_back  # type: ignore[assignment]
        if frame is None or frame.f_globals.get("__name__") not in _HARMLESS_READERS:
            names.add(name)

    class Recording(plain):  # type: ignore[misc, valid-type]
        def __getitem__(self, key: str) -> str:
            note(key)
            return str(super().__getitem__(key))

        def __iter__(self) -> Iterator[str]:
            note(EVERYTHING)
            return iter(super().__iter__())

    assign: Callable[..., None] = object.__setattr__
    assign(environ, "__class__", Recording)
    try:
        yield names
    finally:
        assign(environ, "__class__", plain)


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        channel.send(json.dumps(message).encode())


if __name__ == "__main__":
    replica = serve()
    if replica is not None:
        run_main(replica)
