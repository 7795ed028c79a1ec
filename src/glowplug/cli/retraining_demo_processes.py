"""Processes and signals of `demo retraining`: the rollout controller beside the machine, and SIGTERM as Ctrl-C."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from glowplug.cli import demo
from glowplug.cli.kube import Cluster
from glowplug.errors import GlowplugError, NotFound

_WEBHOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/rollout.glowplug.dev"
_STOP_S = 20.0


def start_controller(
    cluster: Cluster, kubeconfig: pathlib.Path, log: pathlib.Path, stack: ExitStack, *options: str
) -> None:
    """`glowplug rollout run`, until it is asked about writes; `stack` stops it."""
    command = [
        sys.executable, "-m", "glowplug.cli.main", "rollout", "run", "--lease-duration", "2", "--interval", "0.5",
        *options,
    ]  # fmt: skip
    with log.open("wb") as file:
        # A session of its own: a Ctrl-C is for us, and we stop it before the machine that it works on.
        process = subprocess.Popen(
            command,
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    stack.callback(_stop, process)

    def is_asked() -> bool:
        if process.poll() is not None:
            raise GlowplugError(f"the rollout controller has ended:\n{log.read_text()[-2000:]}")
        try:
            cluster.get(_WEBHOOK)
        except NotFound:
            return False
        return True

    demo._wait(is_asked, "the rollout controller", lambda: log.read_text()[-2000:])


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that all that was started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As for any process of ours: asked, then ended."""
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
