"""Asking a container how it is, and following it for as long as it runs.

A probe that fails is an answer, not an error: `ask` returns the failure in the kubelet's words, or None for success.
Connections are raw asyncio sockets, a probe of an idle pod costs some 100 µs.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from glowplug.supervisor import grpc_health
from glowplug.supervisor.probes import (
    Grpc,
    HttpGet,
    Probe,
    Probes,
    Tally,
    TcpSocket,
    eager_delay_s,
    observe,
)

# (argv) -> exit code and output, in the container's environment.
RunExec = Callable[["tuple[str, ...]"], Awaitable["tuple[int, str]"]]
_LONGEST_HEAD = 8192

REFUSED = "connection refused"


class Patient(Protocol):
    """The container as its probes see it."""

    def on_started(self) -> None: ...
    def on_ready(self, is_ready: bool) -> None: ...
    def on_waiting(self, failure: str) -> None: ...
    def on_unhealthy(self, kind: str, failure: str) -> None: ...


async def ask(probe: Probe, run_exec: RunExec) -> str | None:
    """None if the probe succeeds, else why it failed. Bounded by the probe's timeout."""
    try:
        with anyio.fail_after(probe.timeout_s):
            return await _ask(probe, run_exec)
    except TimeoutError:
        return f"{probe.action}: timed out after {probe.timeout_s:g}s"
    except (OSError, EOFError) as error:
        return f"{probe.action}: {_reason(error)}"


async def _ask(probe: Probe, run_exec: RunExec) -> str | None:
    action = probe.action
    if isinstance(action, TcpSocket):
        _, writer = await asyncio.open_connection(action.host, action.port)
        writer.close()
        return None
    if isinstance(action, HttpGet):
        return await _http_get(action)
    if isinstance(action, Grpc):
        status = await grpc_health.check("127.0.0.1", action.port, action.service)
        return None if status == "SERVING" else f"{action}: gRPC health check says {status}"
    code, output = await run_exec(action.argv)
    return None if code == 0 else f"command exited with code {code}: {output.strip()[-512:]}"


async def _http_get(action: HttpGet) -> str | None:
    reader, writer = await asyncio.open_connection(
        action.host, action.port, ssl=_unverified() if action.is_tls else None, limit=_LONGEST_HEAD
    )
    try:
        writer.write(_request(action))
        try:
            line = await reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError:
            return f"{action}: the answer is not HTTP"
    finally:
        writer.close()
    parts = line.split(maxsplit=2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        return f"{action}: the answer is not HTTP"
    return (
        None
        if 200 <= int(parts[1]) < 400
        else f"{action}: HTTP probe failed with statuscode: {int(parts[1])}"
    )


def _request(action: HttpGet) -> bytes:
    headers = {"host": f"{action.host}:{action.port}", "user-agent": "kube-probe/1.33", "accept": "*/*"}
    headers.update({name.lower(): value for name, value in action.headers})
    lines = [f"GET {action.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join([*lines, "connection: close"]) + "\r\n\r\n").encode("latin-1", "replace")


def _unverified() -> ssl.SSLContext:
    # As the kubelet: a probe asks whether the server answers, not who it is.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return REFUSED
    return str(error) or type(error).__name__


async def follow(
    probes: Probes, patient: Patient, run_exec: RunExec, listening: anyio.Event | None = None
) -> None:
    """Probe until cancelled; what comes of it goes to `patient`. Liveness and readiness wait for startup.

    A container that can tell sets `listening` when it listens: then it is asked at once.
    """
    if probes.startup is not None:
        await _until_started(probes.startup, patient, run_exec, listening)
    patient.on_started()
    async with anyio.create_task_group() as tasks:
        if probes.liveness is not None:
            tasks.start_soon(_keep_alive, probes.liveness, patient, run_exec, name="liveness")
        if probes.readiness is None:
            patient.on_ready(True)
        else:
            tasks.start_soon(_keep_ready, probes.readiness, patient, run_exec, listening, name="readiness")


async def _until_started(
    probe: Probe, patient: Patient, run_exec: RunExec, listening: anyio.Event | None
) -> None:
    """Success is looked for eagerly, but failures count only once a period, as the threshold is meant."""
    tally, waited_from = Tally(), time.monotonic()
    await anyio.sleep(probe.initial_delay_s)
    next_count = time.monotonic() + probe.period_s
    while True:
        failure = await ask(probe, run_exec)
        if failure is None:
            tally = observe(probe, tally, True)
            if tally.verdict:
                return
        elif time.monotonic() >= next_count:
            next_count += probe.period_s
            tally = observe(probe, tally, False)
            if tally.verdict is False:
                patient.on_unhealthy("Startup", failure)
                await anyio.sleep_forever()
        await _until(listening, eager_delay_s(probe, time.monotonic() - waited_from))


async def _keep_alive(probe: Probe, patient: Patient, run_exec: RunExec) -> None:
    tally = Tally()
    await anyio.sleep(probe.initial_delay_s)
    while True:
        failure = await ask(probe, run_exec)
        tally = observe(probe, tally, failure is None)
        if tally.verdict is False:
            patient.on_unhealthy("Liveness", failure or "")
            return
        await anyio.sleep(probe.period_s)


async def _keep_ready(
    probe: Probe, patient: Patient, run_exec: RunExec, listening: anyio.Event | None
) -> None:
    tally, waited_from, was_ready = Tally(), time.monotonic(), False
    await anyio.sleep(probe.initial_delay_s)
    patience_s = probe.initial_delay_s + probe.period_s
    is_told = False
    while True:
        failure = await ask(probe, run_exec)
        before, tally = tally, observe(probe, tally, failure is None)
        if tally.verdict is True and before.verdict is not True:
            was_ready = True
            patient.on_ready(True)
            if not probe.is_repeated:
                return
        elif tally.verdict is False and before.verdict is True:
            patient.on_ready(False)
            patient.on_unhealthy("Readiness", failure or "")
        waited_s = time.monotonic() - waited_from
        if not was_ready and not is_told and failure is not None and waited_s > patience_s:
            is_told = True
            patient.on_waiting(failure)
        # A container that has begun to answer is asked at its own pace.
        is_settled = was_ready or tally.successes > 0
        await _until(listening, probe.period_s if is_settled else eager_delay_s(probe, waited_s))


async def _until(listening: anyio.Event | None, delay_s: float) -> None:
    """Sleep, or less if the container begins to listen meanwhile."""
    if listening is None or listening.is_set():
        await anyio.sleep(delay_s)
        return
    with anyio.move_on_after(delay_s):
        await listening.wait()
