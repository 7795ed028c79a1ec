"""`loadtest run PROFILE NAME`: open-loop load on one InferenceService, a report, thresholds as the exit status."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Optional
from urllib.parse import urlsplit

import typer

from glowplug.cli import options, output
from glowplug.errors import ConfigError, GlowplugError, InferenceError

if TYPE_CHECKING:
    from glowplug.cli.kube import Cluster
    from glowplug_loadtest.bodies import Body
    from glowplug_loadtest.figures import Figures
    from glowplug_loadtest.profiles import Profile

app = typer.Typer(
    help="Load on an InferenceService, with a report.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_FLIGHTS = "flights"
_FLIGHTS_SENT = 200
_LATE_PERCENT = 1.0
_ANY_URL = "http://status.url"
_NEEDS = ("locust", "matplotlib")

Text = Optional[str]  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
Texts = Optional[list[str]]  # noqa: UP045
Path = Optional[pathlib.Path]  # noqa: UP045
Seconds = Optional[float]  # noqa: UP045


@dataclass(frozen=True)
class Asked:
    """The command line; None and "" are for defaults that depend on the rest."""

    profile: str
    name: str
    target: str | None
    gateway: str | None
    protocol: str
    model: str
    data: pathlib.Path | None
    check: str
    scale: float
    time_scale: float
    duration_s: float | None
    warm_up_s: float
    arrivals: str
    seed: int
    thresholds: tuple[str, ...]
    timeout_s: float
    max_in_flight: int
    workers: int
    out: pathlib.Path


@app.callback()
def _group() -> None:
    """Load on an InferenceService, with a report."""


# Every setting is a flag of its own, so there are more of them than a function should take.
@app.command(
    epilog="\b\nExample: glowplug loadtest run bursty flights --scale 0.1 --time-scale 0.2\n"
    "  glowplug loadtest run ramp flights --protocol grpc --threshold 'p99<200ms' --threshold 'errors<0.1%'\n"
    "  glowplug loadtest run steady fraud --data rows.csv --duration 60 --gateway http://127.0.0.1:31080"
)
def run(
    profile: Annotated[str, typer.Argument(help="steady, bursty or ramp.", metavar="PROFILE")],
    name: Annotated[str, typer.Argument(help="An InferenceService.", metavar="NAME")],
    target: Annotated[
        Text,
        typer.Option(
            help="The service's URL, or a gateway's address; default: its status.url.", metavar="URL"
        ),
    ] = None,
    gateway: Annotated[
        Text,
        typer.Option(
            help="Where the service's host name answers, e.g. http://127.0.0.1:31080.", metavar="URL"
        ),
    ] = None,
    protocol: Annotated[str, typer.Option(help="rest or grpc: V2 over HTTP, or V2 over gRPC.")] = "rest",
    model: Annotated[str, typer.Option(help="The model's name; default: the InferenceService's.")] = "",
    data: Annotated[
        Path,
        typer.Option(help="Rows as .csv or .jsonl, or V2 bodies. Default for flights: real flights."),
    ] = None,
    check: Annotated[
        str,
        typer.Option(
            help="reference: answers equal those from before the load; shape: well formed, nothing sent before."
        ),
    ] = "reference",
    scale: Annotated[float, typer.Option(help="Every rate times this.")] = 1.0,
    time_scale: Annotated[float, typer.Option(help="Every duration times this.")] = 1.0,
    duration_s: Annotated[
        Seconds, typer.Option("--duration", help="Stop after so many seconds of the profile.")
    ] = None,
    warm_up_s: Annotated[
        float, typer.Option("--warm-up", help="Seconds at the start that do not count.")
    ] = 0.0,
    arrivals: Annotated[str, typer.Option(help="poisson or constant.")] = "poisson",
    seed: Annotated[int, typer.Option(help="Of the arrivals: the same seed is the same load.")] = 1,
    thresholds: Annotated[
        Texts,
        typer.Option(
            "--threshold", help="p99<200ms, errors<0.1%, over200ms<1%; may be repeated.", metavar="LIMIT"
        ),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds a request may take.")] = 30.0,
    max_in_flight: Annotated[int, typer.Option(help="Requests at a time, at most.")] = 2000,
    workers: Annotated[int, typer.Option(help="Processes that send.")] = 1,
    out: Annotated[
        Path, typer.Option(help="Where the report goes; default: loadtest-PROFILE-NAME.", metavar="DIR")
    ] = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Send requests on a schedule that does not wait for answers; report latencies, replicas and errors.

    steady: 100 requests a second for 5 minutes. bursty: the same, with 1000 from 60 to 120 s. ramp: from 50 to 500.
    Latency counts from when a request was due. Exit code 1 where a threshold is missed.
    """
    asked = Asked(
        profile, name, target, gateway, protocol, model or name, data, check, scale, time_scale, duration_s, warm_up_s,
        arrivals, seed, tuple(thresholds or ()), timeout_s, max_in_flight, workers,
        out or pathlib.Path(f"loadtest-{profile}-{name}"),
    )  # fmt: skip

    def connect() -> Cluster:
        from glowplug.cli import kube

        return kube.connect(kubeconfig, context, namespace)

    _check_installed()
    _run(asked, connect)


def _check_installed() -> None:
    missing = [module for module in _NEEDS if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"a load test needs {' and '.join(missing)}", hint="pip install 'glowplug[loadtest]'"
        )


def _run(asked: Asked, connect: Callable[[], Cluster]) -> None:
    from glowplug_loadtest import run, thresholds
    from glowplug_loadtest.plan import Plan
    from glowplug_loadtest.profiles import profile_named

    profile = profile_named(asked.profile).scaled(asked.scale, asked.time_scale)
    if asked.duration_s is not None:
        profile = profile.first(asked.duration_s)
    limits = thresholds.parse(asked.thresholds)
    # What the command line says of itself is looked at before anybody is asked.
    plan = Plan(
        asked.target or _ANY_URL, asked.model, profile, "", asked.protocol, asked.arrivals, asked.check, asked.seed,
        asked.workers, asked.timeout_s, asked.max_in_flight, asked.warm_up_s,
    ).checked()  # fmt: skip
    bodies = _bodies(asked)
    cluster, url, host = _found(asked, connect)
    plan = replace(plan, url=url, host=host).checked()
    output.done(
        f"{profile.name}: about {profile.count:,.0f} requests within {profile.duration_s:g} s, "
        f"{len(bodies)} different ones, V2 {plan.protocol} to {url}"
    )
    with _bar(profile) as progress:
        figures = run.run(plan, asked.name, bodies, limits, asked.out, api=cluster, progress=progress)
    _report(figures, asked.out)


def _found(asked: Asked, connect: Callable[[], Cluster]) -> tuple[Cluster | None, str, str]:
    """The API (None: without it, and without the replicas), the URL to send to, and the Host header ("": its own)."""
    from glowplug.cli.predict import service_url

    cluster: Cluster | None = None
    if asked.target is None:
        cluster = connect()
        url = service_url(cluster, asked.name)
    else:
        url = asked.target
        try:
            cluster = connect()
            cluster.get("/version")
        except GlowplugError as error:
            output.warned(f"the report will not show replicas: {error.message}")
            cluster = None
    parts = urlsplit(url)
    if asked.gateway is None:
        is_bare = asked.target is not None and _is_address(parts.hostname or "")
        return cluster, url.rstrip("/"), _own_host(cluster, asked.name) if is_bare else ""
    return cluster, asked.gateway.rstrip("/") + parts.path.rstrip("/"), parts.netloc


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _own_host(cluster: Cluster | None, name: str) -> str:
    """What a gateway that is named by its address knows the service by; "" where the API does not tell.

    A server that is no gateway does not look at it.
    """
    from glowplug.cli.predict import service_url

    if cluster is None:
        return ""
    try:
        return urlsplit(service_url(cluster, name)).netloc
    except GlowplugError:
        return ""


def _bodies(asked: Asked) -> list[Body]:
    from glowplug_loadtest import bodies

    if asked.data is not None:
        return bodies.from_file(asked.data)
    if asked.name != _FLIGHTS:
        raise ConfigError(
            f"what is {asked.name} to be asked? --data names a file with rows or V2 bodies",
            hint="a row of numbers on each line of a .csv becomes one FP32 tensor",
        )
    with output.step(f"reading {_FLIGHTS_SENT} real flights"):
        return bodies.flights(_FLIGHTS_SENT)


@contextlib.contextmanager
def _bar(profile: Profile) -> Iterator[Callable[[float], None]]:
    """Seconds of the profile; Ctrl-C ends the load and not the report."""
    with output.progress() as bar:
        task = bar.add_task(f"{profile.name} load, seconds", total=round(profile.duration_s))
        yield lambda seconds: bar.update(task, completed=max(0, min(seconds, profile.duration_s)) // 1)


def _report(figures: Figures, folder: pathlib.Path) -> None:
    """Says what came out. Raises GlowplugError where nothing was answered, or not all sent, or a threshold missed."""
    from glowplug_loadtest import report

    path = report.write(figures, folder)
    total = figures.total
    latency = total["latency_ms"]
    print(
        f"requests  {total['requests']:,} due, {total['failed']:,} failed ({total['failed_percent']:.3g} %)"
    )
    if total["answered"]:
        print("latency   " + ", ".join(f"{name} {value:.1f} ms" for name, value in latency.items()))
    if replicas := total["replicas"]:
        print(f"replicas  {replicas['ready_least']} to {replicas['ready_most']} ready")
    for error, count in list(total["errors"].items())[:5]:
        print(f"failure   {count:,} × {error}")
    if (late := total["sender"]["late_percent"]) > _LATE_PERCENT:
        output.warned(
            f"{late:.3g} % of the requests went out late: --max-in-flight was reached, or the sender is too slow "
            "(more --workers, another computer)"
        )
    output.done(f"report: {output.relative(path)}")
    _judge(figures, path)
    for verdict in figures.verdicts:
        output.done(verdict.spoken)
    output.next_steps(f"open {output.relative(path)}", f"glowplug coldstart {figures.name}")


def _judge(figures: Figures, path: pathlib.Path) -> None:
    total = figures.total
    if not total["answered"]:
        found = next(iter(total["errors"]), "nothing was sent")
        raise InferenceError(
            f"no request was answered rightly: {found}",
            hint=f"`glowplug logs {figures.name}` shows its output",
        )
    if figures.is_interrupted:
        raise GlowplugError(
            "interrupted: the figures are of the first part, no threshold is held against them"
        )
    if figures.missed:
        raise InferenceError(
            "missed: " + "; ".join(verdict.spoken for verdict in figures.missed),
            hint=f"{output.relative(path)} shows when",
        )
