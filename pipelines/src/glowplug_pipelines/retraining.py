"""From an event to a deployed version: admitted, made by the steps, deployed, told. What a JobSink's Job runs.

`retrain` is given everything: no environment is read here. A process that dies anywhere is followed by another with
the same run id, which goes on behind the last thing that is done; each thing done twice is done once.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from glowplug.operators.api import Api
from glowplug.wire.cloudevents import STRUCTURED_TYPE
from glowplug.wire.events import CloudEvent, decode
from glowplug_pipelines.deploying.settings import deploy_settings_of
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.triggering import trigger
from glowplug_pipelines.triggering.announcer import Announcer
from glowplug_pipelines.triggering.keeper import Keeper
from glowplug_pipelines.triggering.result import Ending, Result, Steps, Surroundings
from glowplug_pipelines.triggering.rules import rules_of
from glowplug_pipelines.triggering.runner import Runner
from glowplug_pipelines.triggering.state import State
from glowplug_pipelines.triggering.summary import lines
from glowplug_pipelines.triggering.trigger import RolloutEnded
from glowplug_pipelines.workload import Progress, silent

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

_API_TIMEOUT_S = 15.0


def read_event(path: Path) -> CloudEvent:
    """The event of a file as a JobSink mounts it, or of the folder that it is in. Raises EventProblem, OSError."""
    file = path / "event" if path.is_dir() else path
    return decode({"content-type": STRUCTURED_TYPE}, file.read_bytes())[0]


def retrain(
    settings: Settings,
    event: CloudEvent,
    around: Surroundings,
    steps: Steps,
    progress: Progress = silent,
) -> Result:
    """What becomes of `event`; a run that fails is a Result, and is told.

    Raises EventProblem for what is no such event, ConfigError, ApiError and OSError where its state cannot be read or
    written: then nothing was done, or what was done is gone on with by the next process.
    """
    return asyncio.run(_retrain(settings, event, around, steps, progress))


async def _retrain(
    settings: Settings, event: CloudEvent, around: Surroundings, steps: Steps, progress: Progress
) -> Result:
    rules = rules_of(settings)
    deploying = deploy_settings_of(settings, rules.inference_service)
    found = trigger.read(event, around.clock())
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(around.connection, _API_TIMEOUT_S))
        announcer = await stack.enter_async_context(Announcer(api, rules, around.sink))
        runner = Runner(settings, rules, deploying, around, api, announcer)
        if isinstance(found, RolloutEnded):
            return await runner.conclude(found)
        if (model := trigger.model_of(event)) != settings.model:
            return Result(Ending.IGNORED, f"it is about the model {model}, not {settings.model}")
        return await _until_stopped(runner.answer(found, steps, progress), runner)


def status(settings: Settings, connection: SingleConfig) -> list[tuple[str, str]]:
    """(what, value) of the model's retraining, for people. Raises ApiError, OSError, ConfigError."""

    async def read() -> State:
        async with Api(connection, _API_TIMEOUT_S) as api:
            return await Keeper(api, rules_of(settings)).read()

    return lines(rules_of(settings), asyncio.run(read()), time.time())


async def _until_stopped(work: Awaitable[Result], runner: Runner) -> Result:
    """The result; on SIGTERM, as when a pod is evicted, the lease is given back at once."""
    loop, working = asyncio.get_running_loop(), asyncio.ensure_future(work)
    try:
        loop.add_signal_handler(signal.SIGTERM, working.cancel)
    except (NotImplementedError, RuntimeError, ValueError):
        return await working  # not the main thread
    try:
        return await working
    except asyncio.CancelledError:
        return await runner.give_back()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
