"""`pipelines`: the steps of a retraining, one by one or in a row, and what became of runs.

What a step does is in the package glowplug_pipelines, which is imported when a command runs: it brings DuckDB, XGBoost
and MLflow along.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from glowplug.cli import controllers, options, output
from glowplug.errors import ConfigError, GlowplugError

if TYPE_CHECKING:
    from glowplug_pipelines.execution import Finished
    from glowplug_pipelines.run import Outcome, Run
    from glowplug_pipelines.settings import Settings

app = typer.Typer(
    help=(
        "Retraining: from a window of time to a model that may be deployed, step by step or in one run. "
        "Shipped, for --settings: pipelines/flights, pipelines/digits and pipelines/notices, each with a pipeline.yaml."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_DEFAULT = pathlib.Path("pipelines/flights/pipeline.yaml")
SettingsFile = Annotated[
    pathlib.Path,
    typer.Option(
        "--settings", "-s", envvar="GLOWPLUG_PIPELINE", help="The pipeline's YAML file.", metavar="FILE"
    ),
]
RunId = Annotated[str, typer.Option("--run", help="The run's id; the same id goes on.", metavar="ID")]
NewRun = Annotated[
    str, typer.Option("--run", help="The run's id; default: made of the window's end.", metavar="ID")
]
Until = Annotated[
    Optional[datetime],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
    typer.Option(
        "--to",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
        help="Where the window ends, UTC; default: now.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Register a challenger that did not pass; its tags say so.")
]


@app.command(epilog="Example: glowplug pipelines run --to 2013-04-01")
def run(
    to: Until = None, run_id: NewRun = "", force: Force = False, settings: SettingsFile = _DEFAULT
) -> None:
    """Do every step; go on where the same run was stopped."""
    told = _settings(settings)
    from glowplug_pipelines.execution import execute

    request = _request(told, run_id, to)
    with _progress() as report:
        finished = execute(told, request, is_forced=force, progress=report)
    _tell(finished, _flag(settings))


@app.command(epilog="Example: glowplug pipelines dataset --run april --to 2013-04-01")
def dataset(to: Until = None, run_id: NewRun = "", settings: SettingsFile = _DEFAULT) -> None:
    """Start a run: build the training set, point in time."""
    told = _settings(settings)
    from glowplug_pipelines.run import open_run
    from glowplug_pipelines.steps import dataset as step
    from glowplug_pipelines.workload import load_workload

    with open_run(told.work_dir, _request(told, run_id, to)) as opened, _progress() as report:
        outcome = step.build(opened, load_workload(told), told.window, report)
        values = outcome.values
        _done(
            outcome,
            f"{values['training']:,} rows to train with, {values['held_out']:,} held out, data {values['data_hash']}",
        )
    output.next_steps(f"glowplug pipelines train --run {opened.request.id}{_flag(settings)}")


@app.command(epilog="Example: glowplug pipelines train --run april")
def train(run_id: RunId, settings: SettingsFile = _DEFAULT) -> None:
    """Train the challenger on the run's training set."""
    told = _settings(settings)
    from glowplug_pipelines.steps import DATASET, training
    from glowplug_pipelines.workload import load_workload

    with _opened(told, run_id) as opened, _progress() as report:
        outcome = training.train(opened, load_workload(told), opened.need(DATASET), report)
        metrics = outcome.values["metrics"]
        _done(outcome, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    output.next_steps(f"glowplug pipelines evaluate --run {run_id}{_flag(settings)}")


@app.command(epilog="Example: glowplug pipelines evaluate --run april")
def evaluate(run_id: RunId, settings: SettingsFile = _DEFAULT) -> None:
    """Ask challenger and champion about the held-out rows."""
    told = _settings(settings)
    from glowplug_pipelines.steps import DATASET, TRAIN, champion, evaluation
    from glowplug_pipelines.workload import load_workload

    with _opened(told, run_id) as opened:
        built, trained = opened.need(DATASET), opened.need(TRAIN)
        fetched = champion.fetch(opened, told.registry)
        outcome = evaluation.evaluate(opened, load_workload(told), built, trained, fetched)
        values = outcome.values
        beside = values["unjudged"] or f"{values['reference']} {values['reference_loss']:.4g}"
        _done(outcome, f"loss {values['loss']:.4g}; {beside}")
    output.next_steps(f"glowplug pipelines profile --run {run_id}{_flag(settings)}")


@app.command(epilog="Example: glowplug pipelines profile --run april")
def profile(run_id: RunId, settings: SettingsFile = _DEFAULT) -> None:
    """Write down what the training rows were like, for drift to be seen later."""
    told = _settings(settings)
    from glowplug_pipelines.steps import DATASET, TRAIN, profiling
    from glowplug_pipelines.workload import load_workload

    with _opened(told, run_id) as opened:
        outcome = profiling.profile(opened, load_workload(told), opened.need(DATASET), opened.need(TRAIN))
        _done(outcome, f"{outcome.values['rows']:,} rows")
    output.next_steps(f"glowplug pipelines gate --run {run_id}{_flag(settings)}")


@app.command(epilog="Example: glowplug pipelines gate --run april")
def gate(run_id: RunId, settings: SettingsFile = _DEFAULT) -> None:
    """Decide whether the challenger may be deployed, and write the model card."""
    told = _settings(settings)
    from glowplug_pipelines.steps import DATASET, EVALUATE, TRAIN, gating
    from glowplug_pipelines.workload import load_workload

    with _opened(told, run_id) as opened:
        outcome = gating.decide(
            opened,
            load_workload(told),
            told.gate,
            opened.need(DATASET),
            opened.need(TRAIN),
            opened.need(EVALUATE),
        )
        verdict = gating.verdict_of(outcome)
        _done(outcome, f"{verdict.result.value}: {verdict.reason}")
        print(output.relative(gating.card_of(outcome)))
    output.next_steps(f"glowplug pipelines register --run {run_id}{_flag(settings)}")


@app.command(epilog="Example: glowplug pipelines register --run april")
def register(run_id: RunId, force: Force = False, settings: SettingsFile = _DEFAULT) -> None:
    """Make a challenger that passed a version in MLflow, alias challenger."""
    told = _settings(settings)
    from glowplug_pipelines.execution import conclude
    from glowplug_pipelines.steps import DATASET, EVALUATE, GATE, TRAIN, profiling, registering
    from glowplug_pipelines.workload import load_workload

    with _opened(told, run_id) as opened, _progress() as report:
        built, trained = opened.need(DATASET), opened.need(TRAIN)
        workload = load_workload(told)
        profiled = profiling.profile(opened, workload, built, trained)
        evaluated, gated = opened.need(EVALUATE), opened.need(GATE)
        made = registering.Made(built, trained, evaluated, profiled, gated)
        outcome = registering.register_challenger(
            opened, workload, told.registry, made, is_forced=force, progress=report
        )
        finished = conclude(opened, gated, outcome)
    _tell(finished, _flag(settings))


@app.command(epilog="Example: glowplug pipelines deploy --run april")
def deploy(
    run_id: RunId,
    settings: SettingsFile = _DEFAULT,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Put the run's registered version to work: into the InferenceService, or as a commit."""
    told = _settings(settings)
    connection = controllers.connected(kubeconfig, context)
    from glowplug_pipelines.deploying.settings import TOKEN
    from glowplug_pipelines.steps import REGISTER
    from glowplug_pipelines.steps.deployment import put_to_work

    with _opened(told, run_id) as opened:
        token = os.environ.get(TOKEN, "")
        outcome = put_to_work(opened, told, opened.need(REGISTER), connection, token)
        _done(outcome, f"{outcome.values['place']}, waiting for {outcome.values['awaits']}")
    output.next_steps("glowplug get isvc")


@app.command(epilog="Example: glowplug pipelines retrain --event event.json")
def retrain(
    event: Annotated[
        pathlib.Path,
        typer.Option("--event", envvar="K_EVENT_PATH", help="A CloudEvent as JSON, as a JobSink mounts it."),
    ] = pathlib.Path("/etc/jobsink-event/event"),
    settings: SettingsFile = _DEFAULT,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Answer an event: a run if it is time for one, registered, deployed and told; or the champion moved."""
    told = _settings(settings)
    controllers.log_to_stderr("httpx2", "mlflow", "alembic")
    connection = controllers.connected(kubeconfig, context)
    from glowplug.wire.events import EventProblem
    from glowplug_pipelines import making, retraining
    from glowplug_pipelines.triggering.result import Surroundings

    around = Surroundings.of(connection, os.environ)
    try:
        with _progress() as report:
            result = retraining.retrain(told, retraining.read_event(event), around, making.make, report)
    except EventProblem as error:
        raise ConfigError(f"{event}: {error}") from error
    text = f"{result.ending.value}: {result.reason}"
    if result.is_failure:
        raise GlowplugError(f"run {result.run} {text}", hint="the same command goes on where it stopped")
    output.done(f"{result.run} {text}".strip())
    output.next_steps(f"glowplug pipelines triggers{_flag(settings)}")


@app.command(epilog="Example: glowplug pipelines triggers")
def triggers(
    settings: SettingsFile = _DEFAULT,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Show what becomes of events: the run at work, what waits, the last end, what is left of the day's budget."""
    told = _settings(settings)
    connection = controllers.connected(kubeconfig, context)
    from glowplug_pipelines import retraining

    for what, value in retraining.status(told, connection):
        print(f"{what}  {value}")


@app.command(epilog="Example: glowplug pipelines status")
def status(settings: SettingsFile = _DEFAULT) -> None:
    """List the runs that lie here: state, verdict, reason."""
    told = _settings(settings)
    from glowplug_pipelines.run import read_status

    folder = told.work_dir / told.model
    found = [(path.name, read_status(path)) for path in sorted(folder.glob("*/")) if path.is_dir()]
    runs = [(name, state) for name, state in found if state is not None]
    for name, state in sorted(runs, key=lambda each: each[1].updated):
        what = state.details.get("verdict", state.step)
        print(f"{name}  {state.state}  {what}  {state.reason}".rstrip())
    if not runs:
        output.warned(f"no runs in {output.relative(folder)}")
        output.next_steps(f"glowplug pipelines run{_flag(settings)}")


@app.command(epilog="Example: glowplug pipelines promote 3")
def promote(
    version: Annotated[str, typer.Argument(help="The number of a registered version.")],
    settings: SettingsFile = _DEFAULT,
) -> None:
    """Make a registered version the champion."""
    told = _settings(settings)
    from glowplug.registry.aliases import promote as move

    if not version.isdecimal():
        raise typer.BadParameter(f"{version} is not a version's number")
    found = move(told.registry, told.model, version)
    output.done(f"champion of {told.model}: version {found.version}")
    print(found.storage_uri)


def main() -> None:
    """The entry of `python -m glowplug_pipelines`: errors become one clear message and exit code 1."""
    try:
        app()
    except GlowplugError as error:
        output.failed(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _settings(path: pathlib.Path) -> Settings:
    try:
        from glowplug_pipelines.settings import read_settings
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed", hint="pip install 'glowplug[pipelines]'"
        ) from error
    return read_settings(path, os.environ)


def _request(settings: Settings, run_id: str, to: datetime | None) -> Any:
    from glowplug_pipelines.run import Request

    end = (to or datetime.now(timezone.utc)).replace(tzinfo=timezone.utc)
    name = run_id or f"{settings.model}-{end:%Y%m%d-%H%M%S}"
    return Request(name, settings.model, settings.window.before(end))


@contextmanager
def _opened(settings: Settings, run_id: str) -> Iterator[Run]:
    from glowplug_pipelines.run import open_run, read_request

    with open_run(settings.work_dir, read_request(settings.work_dir, settings.model, run_id)) as opened:
        yield opened


def _done(outcome: Outcome, text: str) -> None:
    took = "as before" if outcome.was_there else f"{outcome.seconds:.1f} s"
    output.done(f"{outcome.step}: {text} ({took})")


def _tell(finished: Finished, flag: str) -> None:
    verdict, version = finished.verdict, finished.version
    say = output.done if version is not None else output.warned
    say(f"run {finished.run_id}: {verdict.result.value}: {verdict.reason}")
    print(output.relative(finished.card))
    if version is not None:
        print(version.storage_uri)
        output.next_steps(
            f"glowplug pipelines deploy --run {finished.run_id}{flag}",
            f"glowplug pipelines promote {version.version}{flag}",
        )
    else:
        output.next_steps(f"less {output.relative(finished.card)}", f"glowplug pipelines status{flag}")


def _flag(settings: pathlib.Path) -> str:
    return "" if settings == _DEFAULT else f" --settings {output.relative(settings)}"


@contextmanager
def _progress() -> Iterator[Any]:
    bar = output.progress()
    with bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for old in tasks.values():
                    bar.update(old, visible=False)
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done, total=total or None)

        yield report
