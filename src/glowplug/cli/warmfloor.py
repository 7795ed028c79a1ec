"""`warmfloor`: run the controller, ask what it did, or try it on a demand."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Annotated, Any, Optional

import typer

from glowplug.cli import controllers, options, output
from glowplug.errors import ConfigError, GlowplugError, NotFound

app = typer.Typer(
    help="The warm floor: min-scale of live revisions, raised before the demand comes.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(
    epilog="Example: glowplug warmfloor run --context my-cluster --prometheus-url http://127.0.0.1:9090"
)
def run(
    interval_s: Annotated[
        float, typer.Option("--interval", min=1, max=300, help="Seconds between decisions.")
    ] = 5.0,
    prometheus_url: Annotated[
        str, typer.Option(help="Where to ask for the demand; the local machine tells it itself.")
    ] = "",
    prometheus_query: Annotated[
        str, typer.Option(help="Default: the panic-window metrics of Knative's autoscaler.")
    ] = "",
    lease_namespace: Annotated[
        str, typer.Option(help="Where the lease is that only one can hold.")
    ] = "default",
    lease_duration_s: Annotated[
        int, typer.Option("--lease-duration", min=2, max=300, help="Seconds until a dead holder is replaced.")
    ] = 15,
    health_port: options.HealthPort = 0,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option(
            "--only",
            envvar="GLOWPLUG_NAMESPACES",
            help="Look after this namespace only; may be repeated.",
            metavar="NAMESPACE",
        ),
    ] = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Look after every InferenceService with the annotation glowplug.dev/warm-floor: "true", until stopped.

    Further annotations: warm-floor-min, -max (replicas), -schedule ("0 8 * * 1-5=3; 0 20 * * *=1"), -time-zone,
    -season (24h), -quantile (0.9). When it stops, min-scale is what it was before.
    """
    controllers.log_to_stderr("httpx2", "aiohttp.access")
    connection = controllers.connected(kubeconfig, context)
    from glowplug.warmfloor import operator

    default = operator.OperatorConfig()
    config = operator.OperatorConfig(
        interval_s=interval_s,
        namespaces=tuple(only or ()),
        prometheus_url=prometheus_url,
        prometheus_query=prometheus_query or default.prometheus_query,
        lease_namespace=lease_namespace,
        lease_duration_s=lease_duration_s,
        health_port=health_port,
    )
    operator.run(connection, config)


@app.command(epilog="Example: glowplug warmfloor status flights")
def status(
    name: Annotated[str, typer.Argument(help="An InferenceService.")],
    as_json: Annotated[bool, typer.Option("--json", help="As the controller wrote it.")] = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Show a service's floor, why it is that high, what it costs and what it saves; a minute old at most."""
    from glowplug.cli import kube

    cluster = kube.connect(kubeconfig, context, namespace)
    path = f"/api/v1/namespaces/{cluster.namespace}/configmaps/{name}-warm-floor"
    try:
        report = json.loads(cluster.get(path)["data"]["report"])
    except NotFound:
        raise NotFound(
            f'no warm floor looks after an InferenceService "{name}" in namespace {cluster.namespace}',
            hint=f"annotate it, `kubectl annotate isvc {name} glowplug.dev/warm-floor=true`, and let"
            " `glowplug warmfloor run` run",
        ) from None
    except (KeyError, ValueError) as error:
        raise GlowplugError(f"ConfigMap {name}-warm-floor has no report that can be read") from error
    print(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))


@app.command(epilog="Example: glowplug warmfloor simulate diurnal")
def simulate(
    trace: Annotated[
        str,
        typer.Argument(
            help="diurnal, bursty or ramp, or a file of SECONDS,CONCURRENCY lines.", metavar="TRACE"
        ),
    ],
    start_s: Annotated[
        float, typer.Option("--start-time", min=0, max=3600, help="Seconds a pod takes to start.")
    ] = 30.0,
    service_s: Annotated[
        float, typer.Option("--service-time", min=0.001, max=60, help="Seconds a request takes.")
    ] = 0.1,
    container_concurrency: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    maximum: Annotated[int, typer.Option("--max", min=1, max=1000, help="Most replicas.")] = 20,
    quantile: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="The part of the demand to cover.")
    ] = 0.9,
) -> None:
    """Replay a demand through reactive scaling, the warm floor, and fixed floors; print what each comes to.

    A request is late if it cannot begin in the second that it comes in. Ratios are to reactive scaling.
    """
    from glowplug.spec import names
    from glowplug.warmfloor import replay, traces
    from glowplug.warmfloor.settings import Settings
    from glowplug.warmfloor.simulated import Workload

    if trace in traces.GENERATED:
        demand = traces.GENERATED[trace](service_s)
    else:
        demand = traces.parse(_content(trace).splitlines(), trace)
    workload = Workload(service_s, start_s, container_concurrency, ((names.MAX_SCALE, str(maximum)),))
    with output.step(f"{len(demand.work)} seconds, five times"):
        outcomes = replay.compare(demand, workload, Settings(maximum=maximum, quantile=quantile))
    print("\n".join(replay.table(outcomes)))


def _lines(report: Any) -> list[str]:
    lines = []
    for component, found in sorted(report["components"].items()):
        lines.append(f"{component}: floor {found['floor']}, {found['reason']}")
        lines.append(f"  a pod takes {found['startSeconds']:.2f} s to start ({found['starts']} starts seen)")
        if "inWords" in found:
            lines.append(f"  in {found['account']['seconds']} s: {found['inWords']}")
    return lines or ["nothing decided yet: no revision is live"]


def _content(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return pathlib.Path(file).read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}",
            hint="diurnal, bursty and ramp are generated; anything else is a file",
        ) from error
