"""`autoscaler`: replay a recorded trace and explain each decision, or record one."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from glowplug.cli import options
from glowplug.errors import ApiError, ConfigError, NotFound

if TYPE_CHECKING:
    from glowplug.cli.kube import Cluster

app = typer.Typer(
    help="Knative's autoscaler: record and replay its decisions.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    """Knative's autoscaler: record and replay its decisions."""


@app.command(epilog="Example: glowplug autoscaler replay trace.jsonl --json")
def replay(
    file: Annotated[str, typer.Argument(help="A trace, JSON a line; - is stdin.", metavar="FILE")],
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON a tick.")] = False,
) -> None:
    """Decide on each line of a recorded trace as Knative would, and say why.

    The first line has the parameters: target, total (both required), max_scale_up_rate, max_scale_down_rate,
    panic_threshold, stable_window_s, scale_down_delay_s, target_burst_capacity, activation_scale, reachable,
    initial_ready. Each further line is {"t","ready","stable","panic"} or {"t","ready","no_data":true}, t in seconds.
    """
    from glowplug.autoscaler import replay as engine
    from glowplug.autoscaler import trace

    lines = (sys.stdin.read() if file == "-" else _content(file)).split("\n")
    found = trace.parse(lines, "stdin" if file == "-" else file)
    steps = engine.replay(found)
    _print(engine.json_lines(steps) if as_json else engine.table(found, steps))


@app.command(epilog="Example: glowplug autoscaler record flights > trace.jsonl")
def record(
    name: Annotated[str, typer.Argument(help="An InferenceService, a Knative Service, or a revision.")],
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Write what the last half hour of decisions on a running revision was made on, for `replay`.

    The local machine keeps them; a cluster's autoscaler does not tell.
    """
    from glowplug.cli import kube

    cluster = kube.connect(kubeconfig, context, namespace)
    revision = _revision(cluster, name)
    try:
        trace = cluster.request("GET", f"/traces/{cluster.namespace}/{revision}").text
    except ApiError as error:
        if error.code != 404:
            raise
        raise NotFound(
            f"nothing is known of decisions on revision {revision} in namespace {cluster.namespace}",
            hint="the local machine keeps them from when a revision was ready; a cluster keeps none",
        ) from None
    _print(trace.splitlines())


def _revision(cluster: Cluster, name: str) -> str:
    """The revision that serves `name` now. Raises NotFound."""
    for kind, path in (
        ("inferenceservices.serving.kserve.io", ("components", "predictor", "latestReadyRevision")),
        ("services.serving.knative.dev", ("latestReadyRevisionName",)),
    ):
        try:
            status = cluster.get(cluster.resource_named(kind).path(cluster.namespace, name)).get("status", {})
        except NotFound:
            continue
        for key in path:
            status = status.get(key) or {}
        if status:
            return str(status)
    cluster.get(cluster.resource_named("revisions.serving.knative.dev").path(cluster.namespace, name))
    return name


def _content(file: str) -> str:
    try:
        return pathlib.Path(file).read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


def _print(lines: Iterable[str]) -> None:
    try:
        for line in lines:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
