"""Runs a load test: the processes that send, the thread that looks at the replicas, and the figures of both."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from glowplug.errors import ConfigError, GlowplugError, InferenceError
from glowplug_loadtest import plan as plans
from glowplug_loadtest import records
from glowplug_loadtest.bodies import Body
from glowplug_loadtest.figures import Figures, figures_of
from glowplug_loadtest.plan import REFERENCE, Plan
from glowplug_loadtest.replicas import Api, Watcher
from glowplug_loadtest.thresholds import Threshold

# Importing locust takes a second or two; references are requests.
_IMPORT_TIMEOUT_S = 60.0
_START_IN_S = 0.3
Progress = Callable[[float], None]
"""Is told the seconds since the start."""


def run(
    plan: Plan,
    name: str,
    bodies: Sequence[Body],
    thresholds: Sequence[Threshold],
    folder: pathlib.Path,
    *,
    api: Api | None = None,
    progress: Progress = lambda seconds: None,
) -> Figures:
    """The figures; `folder` gets plan.json, bodies.json and the records. A KeyboardInterrupt ends it early.

    Raises ConfigError for a plan that cannot run, InferenceError where the service does not answer before the load.
    """
    plan.checked()
    folder.mkdir(parents=True, exist_ok=True)
    plans.write(plan, folder / "plan.json")
    (folder / "bodies.json").write_text(json.dumps(list(bodies)))
    paths = [folder / f"requests-{index}.csv" for index in range(plan.workers)]
    for stale in folder.glob("requests-*.csv"):
        stale.unlink()
    with _workers(plan, folder) as workers, _watched(api, name) as watcher:
        ready_within = _IMPORT_TIMEOUT_S + (plan.timeout_s * len(bodies) if plan.check == REFERENCE else 0)
        for worker in workers:
            _wait_ready(worker, ready_within)
        start_at = time.monotonic() + _START_IN_S
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{start_at!r}\n".encode())
            worker.stdin.flush()
        is_interrupted = _wait_over(workers, plan, start_at, progress)
    found = records.read(path for path in paths if path.exists())
    if failed := [path for path in paths if not path.exists()]:
        raise GlowplugError(f"{len(failed)} of {plan.workers} senders died; their last words are above")
    samples = watcher.samples(start_at) if watcher is not None else []
    return figures_of(plan, name, found, samples, thresholds, is_interrupted=is_interrupted)


@contextlib.contextmanager
def _workers(plan: Plan, folder: pathlib.Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    # A checkout's folders need not be on the child's path by themselves.
    own = str(pathlib.Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [own, inherited]))}
    running: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(plan.workers):
            command = [sys.executable, "-m", f"{__package__}.worker", str(folder), str(index)]
            # A group of its own: a Ctrl-C at the terminal comes to us alone, and once.
            running.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
            )
        yield running
    finally:
        for worker in running:
            _end(worker)


def _end(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        if worker.stdin is not None:
            # One that still waits for the start ends by itself.
            worker.stdin.close()
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(5)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()


@contextlib.contextmanager
def _watched(api: Api | None, name: str) -> Iterator[Watcher | None]:
    if api is None:
        yield None
        return
    with Watcher(api, name) as watcher:
        yield watcher


def _wait_ready(worker: subprocess.Popen[bytes], within_s: float) -> None:
    assert worker.stdout is not None
    readable, _, _ = select.select([worker.stdout], [], [], within_s)
    line = worker.stdout.readline().decode().strip() if readable else ""
    if line.startswith("error "):
        raise InferenceError(line.removeprefix("error "), hint="does `glowplug predict` get an answer?")
    if line != "ready":
        what = "ended" if worker.poll() is not None else f"was not ready within {within_s:.0f} s"
        raise ConfigError(
            f"the sender {what}; its output is above", hint="pip install 'glowplug[loadtest]' brings locust"
        )


def _wait_over(
    workers: Sequence[subprocess.Popen[bytes]], plan: Plan, start_at: float, progress: Progress
) -> bool:
    """Whether it was interrupted."""
    # The open loop ends within two time-outs of its last due time; locust takes its second to notice.
    deadline = start_at + plan.profile.duration_s + 2 * plan.timeout_s + 30
    is_interrupted = False
    while any(worker.poll() is None for worker in workers):
        try:
            if time.monotonic() > deadline:
                raise GlowplugError("the senders did not come to an end")
            progress(time.monotonic() - start_at)
            time.sleep(0.1)
        except KeyboardInterrupt:
            if is_interrupted:
                raise
            is_interrupted = True
            deadline = time.monotonic() + 10
            for worker in workers:
                worker.send_signal(signal.SIGINT)
    return is_interrupted
