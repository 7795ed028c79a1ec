"""A retraining that is killed again and again, and the registry that it leaves. For a test and for the benchmark.

A forked child does the run and is killed with SIGKILL at a random moment; then the registry is audited as it lies
there, before anything goes on; then another child does the same run. Forked, since importing MLflow anew for each
child would take longer than all the rest; the parent itself never opens the registry, since a database that is open
must not be carried over a fork.

Every other kill is at a moment of the whole run, the others at one of its registration: a small part of the time, and
the one that can leave half a model.
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
from glowplug.registry.models import RegistryConfig, connect, warm
from glowplug_pipelines import plots
from glowplug_pipelines.execution import execute
from glowplug_pipelines.run import run_folder
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.steps import REGISTER
from glowplug_pipelines.steps.registering import RUN_TAG, TAGS

_DEADLINE_S = 150.0
_KILLS_A_RUN = 4


@dataclass(frozen=True)
class Killed:
    """`half` are what was wrong, a line each; `hits` how many children were killed before they were through, and
    `registering` how many of these while they registered."""

    hits: int
    registering: int
    runs: int
    half: tuple[str, ...]


def make_registry(folder: Path) -> RegistryConfig:
    """An empty one: to make its tables takes longer than a run."""
    # All that a child needs is imported once, here.
    import mlflow.artifacts
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking  # noqa: F401

    plots.warm()
    config = RegistryConfig.local(folder)
    _in_child(partial(warm, config))
    return config


def kill_again_and_again(folder: Path, registry: RegistryConfig, model: str, kills: int, seed: int) -> Killed:
    """Until `kills` children were killed. Each run is then done to its end, and has one version and its alias."""
    chance = random.Random(seed)
    settings = toy.settings(folder, registry, model)
    started = time.monotonic()
    _in_child(partial(_do, settings, "timed", 60))
    whole_s = time.monotonic() - started
    # A registration that is begun anew takes as long; the first one of a model makes its experiment too.
    registering_s = json.loads((_run(settings, "timed") / f"{REGISTER}.json").read_text())["seconds"]
    hits, registering, run, half = 0, 0, 0, list[str]()
    while hits < kills:
        run += 1
        name, day = f"run-{run}", 60 + run
        for turn in range(min(_KILLS_A_RUN, kills - hits)):
            child = _forked(partial(_do, settings, name, day))
            if turn % 2:
                child.wait_until((_run(settings, name) / f".{REGISTER}.draft").exists)
            # The moment is what is random here; nothing is waited for.
            time.sleep(chance.uniform(0, registering_s if turn % 2 else whole_s))
            os.kill(child.process, signal.SIGKILL)
            was_killed = child.was_killed()
            child.answer.unlink()
            if not was_killed:
                break
            hits += 1
            registering += (_run(settings, name) / f".{REGISTER}.draft").exists()
            half += [f"after kill {hits}: {each}" for each in _in_child(partial(_audit, settings))]
        _in_child(partial(_do, settings, name, day))
        half += [f"{name}: {each}" for each in _in_child(partial(_audit, settings, name))]
    return Killed(hits, registering, run, tuple(half))


@dataclass(frozen=True)
class _Child:
    process: int
    answer: Path

    def was_killed(self) -> bool:
        """Once it has ended. Raises RuntimeError where it failed or does not end."""
        self.wait_until(lambda: False)
        _, status = os.waitpid(self.process, 0)
        if os.WIFSIGNALED(status):
            return True
        if os.WEXITSTATUS(status) != 0:
            raise RuntimeError(self.answer.read_text())
        return False

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Or until it has ended. Raises RuntimeError where that takes too long."""
        deadline = time.monotonic() + _DEADLINE_S
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while not condition() and os.waitid(os.P_PID, self.process, ended) is None:
            if time.monotonic() > deadline:
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)
                raise RuntimeError(f"a child took more than {_DEADLINE_S:.0f} s")
            time.sleep(0.005)


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
    execute(settings, toy.request(run_id, settings.model, day), is_forced=True)


def _run(settings: Settings, run_id: str) -> Path:
    return run_folder(settings.work_dir, settings.model, run_id)


def _audit(settings: Settings, done: str = "") -> list[str]:
    """What is wrong with the registry, and with what the run `done` came to."""
    half = half_registered(settings.registry, settings.model, TAGS)
    return half + (_once(settings, done) if done else [])


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
