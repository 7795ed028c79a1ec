"""The life of one container: start, probe, end, start again.

Its pod owns it and cancels it to end it. What it shows of itself is `snapshot`, and `changed` is called whenever that
has changed. Whether and when it is started again is decided by `backoff`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import anyio

from glowplug.supervisor import probing
from glowplug.supervisor.backoff import NEVER, BackoffPolicy, History, Restart, Run, decide
from glowplug.supervisor.cold_start import ColdStart
from glowplug.supervisor.config import SupervisorConfig
from glowplug.supervisor.failures import CRASH_LOOP, RUN_ERROR, START_ERROR, START_ERROR_CODE, CannotStart
from glowplug.supervisor.grace import Grace
from glowplug.supervisor.localize import Command
from glowplug.supervisor.log_file import ContainerLog
from glowplug.supervisor.pod_logs import PodLogs
from glowplug.supervisor.process import Launcher, OnOutput, Process
from glowplug.supervisor.start_metrics import StartMetrics
from glowplug.supervisor.starting import Starting
from glowplug.supervisor.status import Running, Snapshot, Terminated, Waiting

_LAST_LINE = 400
_EXEC_OUTPUT = 10 * 1024


@dataclass(frozen=True)
class PodContext:
    """What the containers of one pod share. `title` is `name_namespace(uid)`, as the kubelet writes it.

    `event` takes type, reason and message; `reconsider` is replaced by a set event when a ConfigMap or Secret of the
    namespace changes; `grace_s` is the pod's termination grace period. `start` gives a container's process, and how it
    came to be; `begun` is a start as far as it has come when its process is to be started; `starts` counts them, `told`
    gets each when it is ready (True) and when it has answered (False).
    """

    title: str
    uid: str
    config: SupervisorConfig
    launcher: Launcher
    logs: PodLogs
    grace: Grace
    grace_s: float
    restart_policy: str
    event: Callable[[str, str, str], None]
    changed: Callable[[], None]
    reconsider: Callable[[], anyio.Event]
    start: Callable[[Command, OnOutput], Awaitable[tuple[Process, str]]]
    begun: Callable[[Snapshot], ColdStart]
    starts: StartMetrics
    told: Callable[[ColdStart, bool], None]

    @property
    def backoff(self) -> BackoffPolicy:
        """The restart policy's numbers."""
        config = self.config
        return BackoffPolicy(
            config.backoff_base_s, config.backoff_cap_s, config.never_ready_cap_s, config.backoff_reset_s
        )


_PORT_TAKEN = re.compile("address already in use|failed to bind", re.IGNORECASE)
_PORT_TAKEN_HINT = (
    "hint: another program has that port; name the program's ports in args, as --http_port=8080 --grpc_port=8081, and "
    "each is replaced by a free one"
)


class ContainerRunner:
    """Runs one container until cancelled, or until the restart policy leaves it ended."""

    def __init__(self, snapshot: Snapshot, prepare: Callable[[], Command], pod: PodContext) -> None:
        self.snapshot = snapshot
        self._prepare = prepare
        self._pod = pod
        self._process: Process | None = None
        self._command: Command | None = None
        self._was_ready = False
        self._unhealthy = anyio.Event()
        self._kill_reason = ""
        self._life: anyio.CancelScope | None = None
        self._ended = anyio.Event()
        self._starting: Starting | None = None

    async def run(self) -> None:
        """Start, follow, restart; until cancelled or told to `finish`."""
        self._ended = anyio.Event()
        try:
            with anyio.CancelScope() as self._life:
                await self._live()
        finally:
            self._ended.set()

    async def finish(self) -> None:
        """End it for good, with the pod's grace, and return when it has ended."""
        if self._life is not None:
            self._life.cancel()
            await self._ended.wait()

    async def _live(self) -> None:
        history = History()
        while True:
            started = await self._start()
            if started is None:
                return
            process, log, started_at = started
            run = await self._until_exit(process, log, started_at)
            history, decision = decide(self._pod.backoff, self._pod.restart_policy, history, run)
            if not isinstance(decision, Restart):
                return
            self._show_crash(decision)
            await anyio.sleep(decision.after_s)
            self._show(restart_count=self.snapshot.restart_count + 1)

    async def _start(self) -> tuple[Process, ContainerLog, float] | None:
        """Try until the process is there: what a container needs may come later, and then at once.

        None: its program cannot be run, which ends a container that is never started again.
        """
        while True:
            reconsider = self._pod.reconsider()
            try:
                return await self._launch()
            except CannotStart as failure:
                self._show_refusal(failure)
                self._pod.event("Warning", "Failed", f"Error: {failure.message}")
                if isinstance(self.snapshot.state, Terminated):
                    return None
            with anyio.move_on_after(self._pod.config.config_retry_s):
                await reconsider.wait()

    async def _launch(self) -> tuple[Process, ContainerLog, float]:
        record = self._pod.begun(self.snapshot)
        self._command = command = self._prepare()
        log = self._pod.logs.open(command.name, self.snapshot.restart_count)
        starting = Starting(record, self._pod.config.starts_dir / f"{self._pod.uid}-{command.name}")
        try:
            command = replace(command, env={**command.env, **starting.env()})
            process, how = await self._pod.start(command, log.write)
        except BaseException:
            starting.close()
            log.close()
            raise
        starting.started(how)
        self._starting = starting
        self._process, self._was_ready, self._kill_reason = process, False, ""
        self._unhealthy = anyio.Event()
        now = time.time()
        self._show(state=Running(now), pid=process.pid, is_ready=False, is_started=False)
        self._pod.event("Normal", "Started", f"Started container {command.name}")
        return process, log, now

    async def _until_exit(self, process: Process, log: ContainerLog, started_at: float) -> Run:
        """Follow a process to its end, and end it if we are cancelled."""
        assert self._command is not None and self._starting is not None
        starting = self._starting
        began = anyio.current_time()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    probing.follow,
                    self._command.probes,
                    self,
                    self._run_exec,
                    starting.listening,
                    name=f"probe {self.snapshot.name}",
                )
                tasks.start_soon(
                    starting.report, self._pod.starts, self._pod.told, name=f"start {self.snapshot.name}"
                )
                tasks.start_soon(self._end_unhealthy, process, name=f"unhealthy {self.snapshot.name}")
                await process.wait()
                tasks.cancel_scope.cancel()
        finally:
            code = await self._pod.grace.end(process)
            starting.close()
            log.close()
            self._show_end(code, log, started_at)
        return Run(code, anyio.current_time() - began, self._was_ready)

    async def _end_unhealthy(self, process: Process) -> None:
        await self._unhealthy.wait()
        await self._pod.grace.end(process, min(self._pod.grace_s, self._pod.config.max_termination_grace_s))

    async def _run_exec(self, argv: tuple[str, ...]) -> tuple[int, str]:
        """An exec probe, in the container's environment; killed with its group when it takes too long."""
        assert self._command is not None
        output = bytearray()

        def keep(data: bytes) -> None:
            output.extend(data[: max(0, _EXEC_OUTPUT - len(output))])

        try:
            process = self._pod.launcher.start(argv, self._command.env, self._command.cwd, keep)
        except CannotStart as failure:
            return 126, failure.message
        try:
            code = await process.wait()
        finally:
            process.kill()
            with anyio.CancelScope(shield=True):
                await process.wait()
        return code, output.decode("utf-8", "replace")

    @property
    def is_starting(self) -> bool:
        """It runs, and has not become ready in this run."""
        return isinstance(self.snapshot.state, Running) and not self._was_ready

    def on_started(self) -> None:
        """The startup probe has succeeded, or there is none."""
        self._show(is_started=True)

    def on_ready(self, is_ready: bool) -> None:
        """The readiness probe has changed its mind."""
        self._was_ready = self._was_ready or is_ready
        if is_ready and self._starting is not None:
            self._starting.ready()
        self._show(is_ready=is_ready, unready_why="")

    def on_waiting(self, failure: str) -> None:
        """Not ready for longer than a probe's period: say what was asked, and where."""
        if failure.endswith(probing.REFUSED):
            failure += " (a program listens on $PORT here, not on the YAML's port: pass it, as in --http_port=$(PORT))"
        self._pod.event("Warning", "Unhealthy", f"Readiness probe failed: {failure}")
        self._show(unready_why=failure)

    def on_unhealthy(self, kind: str, failure: str) -> None:
        """A probe failed as often as it takes; startup and liveness end the container."""
        self._pod.event("Warning", "Unhealthy", f"{kind} probe failed: {failure}")
        if kind == "Readiness":
            return
        self._kill_reason = f"{kind} probe failed: {failure}"
        self._pod.event(
            "Normal",
            "Killing",
            f"Container {self.snapshot.name} failed {kind.lower()} probe, will be restarted",
        )
        self._unhealthy.set()

    def _show_refusal(self, failure: CannotStart) -> None:
        """What it waits for; a program that can't be run has also failed, as a container runtime tells it."""
        waiting = Waiting(failure.reason, failure.message)
        if failure.reason != RUN_ERROR:
            self._show(state=waiting)
            return
        now = time.time()
        end = Terminated(START_ERROR_CODE, START_ERROR, failure.message, now, now)
        if self._pod.restart_policy == NEVER:
            self._show(state=end)
        else:
            self._show(state=waiting, last=end)

    def _show_end(self, code: int, log: ContainerLog, started_at: float) -> None:
        is_success = code == 0 and not self._kill_reason
        tail = "" if is_success else log.tail() or "there was no output"
        hint = _PORT_TAKEN_HINT if _PORT_TAKEN.search(tail) else ""
        message = "\n".join(part for part in (self._kill_reason, tail, hint) if part)
        end = Terminated(code, "Completed" if code == 0 else "Error", message, started_at, time.time())
        self._show(state=end, is_ready=False, is_started=False, unready_why="")

    def _show_crash(self, decision: Restart) -> None:
        """CrashLoopBackOff; why, and the last line, go into the message, all last lines into `lastState`."""
        ended = self.snapshot.state
        assert isinstance(ended, Terminated)
        name = self.snapshot.name
        last_line = ended.message.rpartition("\n")[2][-_LAST_LINE:]
        why = f"{decision.reason}" + (f"; last output: {last_line}" if last_line else "")
        message = (
            f"back-off {decision.after_s:g}s restarting failed container={name} pod={self._pod.title}: {why}"
        )
        self._show(state=Waiting(CRASH_LOOP, message), last=ended)
        lines = f"\n{ended.message}" if ended.message else ""
        self._pod.event(
            "Warning",
            "BackOff",
            f"Back-off restarting failed container {name} in pod {self._pod.title}: {decision.reason}{lines}",
        )

    def _show(self, **changes: object) -> None:
        self.snapshot = replace(self.snapshot, **changes)  # type: ignore[arg-type]
        self._pod.changed()
