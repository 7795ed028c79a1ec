"""`drift`: run the detector, replay events through it, look at a profile."""

from __future__ import annotations

import importlib
import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from glowplug.cli import output
from glowplug.errors import BadRequest, ConfigError

if TYPE_CHECKING:
    from glowplug.drift.config import DriftConfig
    from glowplug.drift.profile import Profile

app = typer.Typer(
    help="Drift: is what a model is asked, answers and gets wrong still what it was trained on?",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_UNIT = "drift-detector"
_PACKAGE = "glowplug_drift_detector"
Location = Annotated[
    str,
    typer.Option(
        "--profile",
        envvar="GLOWPLUG_DRIFT_PROFILE",
        help="A model's folder with a profile.json, or that file: a path, file://, http(s)://, s3://.",
        metavar="LOCATION",
    ),
]
Name = Annotated[str, typer.Option("--inferenceservice", "-i", help="The InferenceService.", metavar="NAME")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")]
Model = Annotated[str, typer.Option(help="Its name in the registry; default: the InferenceService's.")]
WindowDays = Annotated[float, typer.Option("--window-days", help="A window's days.")]
WindowRows = Annotated[int, typer.Option("--window-rows", help="Windows of so many rows instead.")]
Slots = Annotated[int, typer.Option("--slots", help="Parts of a window; it is judged after each.")]


@app.callback()
def _group() -> None:
    """Drift: is what a model is asked, answers and gets wrong still what it was trained on?"""


@app.command(
    epilog="Example: glowplug drift serve -i flights --profile .glowplug/volumes/default/models/flights"
)
def serve(
    inferenceservice: Name,
    profile: Location,
    namespace: Namespace = "default",
    model: Model = "",
    sink: Annotated[
        str, typer.Option(envvar="K_SINK", help="Where drift.detected goes; default: the log only.")
    ] = "",
    state: Annotated[pathlib.Path, typer.Option(help="A folder for what must survive.")] = pathlib.Path(
        ".glowplug/drift"
    ),
    port: Annotated[int, typer.Option(envvar="PORT", help="0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    window_days: WindowDays = 14.0,
    window_rows: WindowRows = 0,
    slots: Slots = 14,
) -> None:
    """Take payload events and labels by HTTP (CloudEvents in any form), send one drift.detected an episode.

    POST / takes events, GET /metrics and /healthz tell. Let a Trigger send org.kubeflow.serving.inference.request and
    .response, and dev.glowplug.label.observed, whose subject is the request's id and whose data are
    {"inferenceservice": NAME, "namespace": NAMESPACE, "labels": [3.5, null]}.
    """
    arguments = [
        f"--inferenceservice={inferenceservice}", f"--namespace={namespace}", f"--model={model}",
        f"--profile={profile}", f"--sink={sink}", f"--state={state}", f"--http_port={port}", f"--host={host}",
        f"--window_days={window_days}", f"--window_rows={window_rows}", f"--slots={slots}",
    ]  # fmt: skip
    raise typer.Exit(_unit_main()(arguments))


@app.command(epilog="Example: glowplug drift replay events.jsonl -i flights --profile models/flights")
def replay(
    file: Annotated[
        str, typer.Argument(help="An event a line, as `glowplug events tail` prints them; - is stdin.")
    ],
    inferenceservice: Name,
    profile: Location,
    namespace: Namespace = "default",
    model: Model = "",
    window_days: WindowDays = 14.0,
    window_rows: WindowRows = 0,
    slots: Slots = 14,
) -> None:
    """Put recorded events through the detector and explain each window's decision; nothing is sent or kept."""
    from glowplug.drift.detector import Detector, Target
    from glowplug.drift.replaying import events_of, explained
    from glowplug.drift.replaying import replay as put_through
    from glowplug.drift.store import Store
    from glowplug.wire.events import EventProblem

    config = _config(window_days, window_rows, slots)
    target = Target(namespace, inferenceservice, model or inferenceservice)
    store = Store(None)
    detector = Detector(
        target,
        _profile(profile),
        config,
        store,
        on_judged=lambda judged: print("\n".join(explained(judged))),
    )
    source = sys.stdin.buffer if file == "-" else pathlib.Path(file).open("rb")  # noqa: SIM115 - closed below
    try:
        put_through(detector, store, events_of(source, file))
    except EventProblem as error:
        raise BadRequest(f"{file}: {error.message}") from None
    finally:
        source.close()
    said = ", ".join(f"{count} {name}" for name, count in sorted(detector.counts.items()) if count)
    output.done(said or "no events")


@app.command(epilog="Example: glowplug drift show .glowplug/volumes/default/models/flights")
def show(
    profile: Annotated[str, typer.Argument(help="A model's folder, or its profile.json.", metavar="PROFILE")],
    window_days: WindowDays = 14.0,
    window_rows: WindowRows = 0,
) -> None:
    """Show what a profile knows, and what a window must measure to be significant by itself, feature by feature."""
    from glowplug.drift.showing import lines

    for line in lines(_profile(profile), _config(window_days, window_rows, 1)):
        print(line)


def _profile(location: str) -> Profile:
    from glowplug.drift.locations import read_profile

    return read_profile(location)


def _config(window_days: float, window_rows: int, slots: int) -> DriftConfig:
    from glowplug.drift.config import DriftConfig

    return DriftConfig(window_s=86400.0 * window_days, window_rows=window_rows, slots=slots).checked()


def _unit_main() -> Callable[[list[str]], int]:
    """The unit's own entry: what runs here is what its image runs."""
    from glowplug.local.units import unit_folders

    for folder in unit_folders():
        source = folder / _UNIT / "src"
        if (source / _PACKAGE).is_dir():
            sys.path.insert(0, str(source))
            entry = importlib.import_module(f"{_PACKAGE}.__main__")
            main: Callable[[list[str]], int] = entry.main
            return main
    raise ConfigError(f"the unit eventing/{_UNIT} is not there", hint="install glowplug again")
