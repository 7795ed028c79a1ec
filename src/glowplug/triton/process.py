"""A tritonserver of our own for as long as a block runs, on free loopback ports."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from glowplug.errors import GlowplugError
from glowplug.triton.home import Triton
from glowplug.triton.refusals import refuse_blanks, refused_models
from glowplug.triton.server import ServerConfig, command, environment

HOST = "127.0.0.1"
START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 40.0
# For one that has served nothing yet.
_GIVE_UP_TIMEOUT_S = 5.0
_LAST_LINES = 20


@contextmanager
def running(
    triton: Triton,
    repository: Path,
    model: str,
    env: Mapping[str, str],
    *,
    is_completed: bool = True,
    timeout_s: float = START_TIMEOUT_S,
) -> Iterator[ServerConfig]:
    """The ready server's configuration; it serves the one model, and loads on request.

    Raises GlowplugError where it is not ready within `timeout_s`: with the reasons of models that it could not load,
    else its last lines. ConfigError for paths that would let it hang.
    """
    refuse_blanks(repository)
    if triton.backends:
        refuse_blanks(Path(triton.backends))
    http, grpc, metrics = free_ports(3)
    config = ServerConfig(
        str(repository), HOST, http, grpc, metrics,
        mode="explicit", models=(model,), is_completed=is_completed,
    )  # fmt: skip
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command(triton, config), stdout=log, stderr=subprocess.STDOUT, env=environment(triton, env)
        )
        try:
            _wait_ready(process, f"http://{HOST}:{http}/v2/health/ready", timeout_s)
        except GlowplugError as error:
            stop(process, _GIVE_UP_TIMEOUT_S)
            log.seek(0)
            lines = log.read().decode("utf-8", "replace").splitlines()
            table = refused_models(lines)
            said = table.refused or lines[-_LAST_LINES:]
            raise GlowplugError("\n".join([error.message, *said]), hint=table.hint or error.hint) from None
        except BaseException:
            stop(process, _GIVE_UP_TIMEOUT_S)
            raise
        try:
            yield config
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes], timeout_s: float = _STOP_TIMEOUT_S) -> None:
    """SIGTERM, and SIGKILL where that does not end it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Different free ports; somebody may take them before they are used, which then shows."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait_ready(process: subprocess.Popen[bytes], url: str, timeout_s: float) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        try:
            with opener.open(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        if time.monotonic() > deadline:
            raise GlowplugError(
                f"tritonserver is not ready after {timeout_s:g} s:", hint="a longer --budget-s"
            )
    raise GlowplugError(f"tritonserver ended with code {process.returncode}:")
