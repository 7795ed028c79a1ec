"""A retraining that is killed again and again, and the registry that it leaves. For a test and for the benchmark.

A forked child does the run and is killed with SIGKILL at a random moment; then the registry is audited as it lies
there, before anything goes on; then another child does the same run. Forked, since importing MLflow anew for each
child would take longer than all the rest; the parent itself never opens the registry, since a database that is open
must not be carried over a fork.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from unit.pipelines import toy

from glowplug.registry import aliases
from glowplug.registry.audit import half_registered
from glowplug.registry.models import RegistryConfig, connect
from glowplug_pipelines import plots
from glowplug_pipelines.execution import execute
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.steps.registering import RUN_TAG, TAGS

_DEADLINE_S = 150.0


@dataclass(frozen=True)
class Killed:
    """`half` are what was wrong, a line each; `hits` how many children were killed before they were through."""

    hits: int
    runs: int
    half: tuple[str, ...]


def kill_again_and_again(folder: Path, kills: int, seed: int) -> Killed:
    """Until `kills` children were killed. Each run is then done to its end, and has one version and its alias."""
    import mlflow.tracking  # noqa: F401 - for every child

    plots.warm()
    chance = random.Random(seed)
    settings = toy.settings(folder / "work", RegistryConfig.local(folder / "mlflow"))
    _in_child(partial(_do, settings, "run-0", 60))
    started = time.monotonic()
    _in_child(partial(_do, settings, "timed", 60))
    longest_s = time.monotonic() - started
    hits, run, half = 0, 0, list[str]()
    while hits < kills:
        run += 1
        name, day = f"run-{run}", 60 + run
        for _ in range(min(4, kills - hits)):
            child = _forked(partial(_do, settings, name, day))
            # The moment is what is random here; nothing is waited for.
            time.sleep(chance.uniform(0, longest_s))
            os.kill(child.process, signal.SIGKILL)
            was_killed = child.was_killed()
            child.answer.unlink()
            if not was_killed:
                break
            hits += 1
            half += [f"after kill {hits}: {each}" for each in _in_child(partial(_whole, settings))]
        _in_child(partial(_do, settings, name, day))
        half += [f"{name}: {each}" for each in _in_child(partial(_whole, settings))]
        half += [f"{name}: {each}" for each in _in_child(partial(_once, settings, name))]
    return Killed(hits, run, tuple(half))


@dataclass(frozen=True)
class _Child:
    process: int
    answer: Path

    def was_killed(self) -> bool:
        """Once it has ended. Raises RuntimeError where it failed or does not end."""
        deadline = time.monotonic() + _DEADLINE_S
        done, status = os.waitpid(self.process, os.WNOHANG)
        while not done:
            if time.monotonic() > deadline:
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)
                raise RuntimeError(f"a child took more than {_DEADLINE_S:.0f} s")
            time.sleep(0.01)
            done, status = os.waitpid(self.process, os.WNOHANG)
        if os.WIFSIGNALED(status):
            return True
        if os.WEXITSTATUS(status) != 0:
            raise RuntimeError(self.answer.read_text())
        return False


def _forked(work: Callable[[], Any]) -> _Child:
    handle, name = tempfile.mkstemp(prefix="glowplug-child-")
    os.close(handle)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            Path(name).write_text(json.dumps(work()))
            code = 0
        except BaseException:
            Path(name).write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return _Child(process, Path(name))


def _in_child(work: Callable[[], Any]) -> Any:
    child = _forked(work)
    try:
        if child.was_killed():
            raise RuntimeError("killed by somebody else")
        return json.loads(child.answer.read_text())
    finally:
        child.answer.unlink()


def _do(settings: Settings, run_id: str, day: int) -> None:
    # Forced: what is registered is the question here, and each run has a day more and so another content.
    execute(settings, toy.request(run_id, day=day), is_forced=True)


def _whole(settings: Settings) -> list[str]:
    return half_registered(settings.registry, settings.model, TAGS)


def _once(settings: Settings, run_id: str) -> list[str]:
    """What is wrong once a run came to its end: it has one version, and that is the challenger."""
    client = connect(settings.registry)
    found = client.search_model_versions(f"name = '{settings.model}'")
    own = [str(each.version) for each in found if each.tags.get(RUN_TAG) == run_id]
    if len(own) != 1:
        return [f"{len(own)} versions"]
    challenger = client.get_registered_model(settings.model).aliases.get("challenger")
    if str(challenger) != own[0]:
        return [f"challenger is version {challenger}, not {own[0]}"]
    presence = aliases.champion(settings.registry, settings.model).presence
    return [] if presence is aliases.Presence.NONE_YET else [f"a champion is {presence.value}"]
