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
from glowplug.triton.server import ServerConfig, command, environment

HOST = "127.0.0.1"
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 40.0
_LAST_LINES = 20


@contextmanager
def running(
    triton: Triton, repository: Path, model: str, env: Mapping[str, str], *, is_completed: bool = True
) -> Iterator[ServerConfig]:
    """The ready server's configuration; it serves the one model, and loads on request.

    Raises GlowplugError with its last lines where it does not become ready.
    """
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
            _wait_ready(process, f"http://{HOST}:{http}/v2/health/ready")
        except GlowplugError as error:
            stop(process)
            log.seek(0)
            lines = log.read().decode("utf-8", "replace").splitlines()[-_LAST_LINES:]
            raise GlowplugError("\n".join([error.message, *lines]), hint=error.hint) from None
        try:
            yield config
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL where that does not end it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
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


def _wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None:
        try:
            with opener.open(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        if time.monotonic() > deadline:
            raise GlowplugError(f"tritonserver is not ready after {_START_TIMEOUT_S:.0f} s:")
    raise GlowplugError(f"tritonserver ended with code {process.returncode}:")
