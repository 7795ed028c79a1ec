"""The `glowplug` command: its verbs and their options; what a verb does is in the module of its name.

Exit codes: 0 done, 1 failed, 2 the command line is wrong.
"""

from __future__ import annotations

import pathlib
import sys
from enum import Enum
from typing import Annotated, Optional

import typer

from glowplug import __version__
from glowplug.cli import (
    autoscaler,
    drift,
    events,
    features,
    loadtest,
    options,
    output,
    pipelines,
    rollout,
    triton,
    warmfloor,
)
from glowplug.errors import GlowplugError
from glowplug.local.config import DEFAULT_DATA_DIR, MachineConfig

# A machine of its own: the loop replays a year from its beginning.
RETRAINING_DATA_DIR = DEFAULT_DATA_DIR / "retraining"
app = typer.Typer(
    name="glowplug",
    help="Serverless machine-learning serving that never starts cold: KServe's YAML on one machine, or on a cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(triton.app, name="triton")
app.add_typer(autoscaler.app, name="autoscaler")
app.add_typer(loadtest.app, name="loadtest")
app.add_typer(warmfloor.app, name="warmfloor")
app.add_typer(rollout.app, name="rollout")
app.add_typer(events.app, name="events")
app.add_typer(drift.app, name="drift")
app.add_typer(features.app, name="features")
app.add_typer(pipelines.app, name="pipelines")


def _say_version(is_asked: bool) -> None:
    if is_asked:
        print(f"glowplug {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Serverless model serving on KServe and Knative, and the same YAML on this computer."""


class Form(str, Enum):
    """How `get` prints."""

    table = "table"
    wide = "wide"
    yaml = "yaml"
    json = "json"
    name = "name"


class StatusForm(str, Enum):
    """How `status` prints."""

    text = "text"
    json = "json"


Files = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
    typer.Option(
        "--filename", "-f", help="A file, a folder, or - for stdin; may be repeated.", metavar="PATH"
    ),
]
Kustomizations = Annotated[
    Optional[list[pathlib.Path]],  # noqa: UP045
    typer.Option("--kustomize", "-k", help="A folder with a kustomization.yaml.", metavar="DIR"),
]


@app.command(epilog="Example: glowplug up --detach --data-dir /tmp/machine --ingress-port 0")
def up(
    data_dir: options.DataDir = DEFAULT_DATA_DIR,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once the machine is up.")] = False,
    ingress_port: Annotated[int, typer.Option("--ingress-port", "--port", help="0 takes a free one.")] = 8080,
    api_port: Annotated[int, typer.Option("--api-port", help="0 takes a free one.")] = 8081,
    broker_port: Annotated[int, typer.Option("--broker-port", help="0 takes a free one.")] = 8082,
    domain: Annotated[str, typer.Option(help="Hosts are <name>.<namespace>.<domain>.")] = "localhost",
    tls: Annotated[
        bool, typer.Option("--tls/--no-tls", help="HTTPS for the API; kubectl sends no token without it.")
    ] = True,
    units: Annotated[
        Optional[list[pathlib.Path]],  # noqa: UP045
        typer.Option("--units", help="A folder of your own units; may be repeated.", metavar="DIR"),
    ] = None,
    warm_pool: Annotated[
        bool,
        typer.Option("--warm-pool/--no-warm-pool", help="Fork replicas; some 25 MB for each kind of unit."),
    ] = True,
) -> None:
    """Start the local machine: the Kubernetes API and the ingress, on 127.0.0.1."""
    from glowplug.cli import machine

    config = MachineConfig(
        data_dir,
        ingress_port,
        api_port,
        broker_port,
        is_tls=tls,
        domain=domain,
        unit_dirs=tuple(units or ()),
        has_warm_pool=warm_pool,
    )
    if detach:
        machine.up_detached(config)
    else:
        machine.up(config)


@app.command(epilog="Example: glowplug down")
def down(
    data_dir: options.DataDir = DEFAULT_DATA_DIR,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait.")] = 90.0,
) -> None:
    """Stop the local machine; what was applied to it comes back with the next `up`."""
    from glowplug.cli import machine

    machine.down(data_dir, timeout_s)
    output.next_steps(f"glowplug up{machine.data_dir_flag(data_dir)}")


@app.command(epilog="Example: glowplug status -o json")
def status(
    data_dir: options.DataDir = DEFAULT_DATA_DIR,
    form: Annotated[StatusForm, typer.Option("--output", "-o")] = StatusForm.text,
) -> None:
    """Show the machine's ports, URLs, processes and InferenceServices."""
    from glowplug.cli import machine

    machine.print_status(data_dir, form.value)


@app.command(epilog="Example: glowplug apply -f predictors/xgboost/isvc.yaml")
def apply(
    files: Files = None,
    kustomizations: Kustomizations = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the API, change nothing.")] = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Create or change objects, on the local machine or on a cluster."""
    from glowplug.cli import kube, objects

    documents = objects.read_documents(files or [], kustomizations or [])
    applied = objects.apply(kube.connect(kubeconfig, context, namespace), documents, dry_run=dry_run)
    names = [item["metadata"]["name"] for item in applied if item["kind"] == "InferenceService"]
    if names:
        output.next_steps(
            f"kubectl wait isvc/{names[0]} --for=condition=Ready",
            "glowplug get isvc",
            f"glowplug predict {names[0]} -d request.json",
        )


@app.command(epilog="Example: glowplug get isvc -A")
def get(
    kind: Annotated[str, typer.Argument(help="As kubectl takes it: isvc, pods, ksvc, revisions, ...")],
    name: Annotated[str, typer.Argument()] = "",
    form: Annotated[Form, typer.Option("--output", "-o")] = Form.table,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A")] = False,
    selector: Annotated[str, typer.Option("--selector", "-l", help="A label selector.")] = "",
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Show objects."""
    from glowplug.cli import kube, objects

    cluster = kube.connect(kubeconfig, context, namespace)
    resource = cluster.resource_named(kind)
    objects.print_objects(cluster, resource, name, form=form.value, everywhere=everywhere, selector=selector)


@app.command(epilog="Example: glowplug delete isvc flights")
def delete(
    kind: Annotated[Optional[str], typer.Argument()] = None,  # noqa: UP045
    names: Annotated[Optional[list[str]], typer.Argument()] = None,  # noqa: UP045
    files: Files = None,
    kustomizations: Kustomizations = None,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found")] = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Delete objects by kind and name, or those that files name."""
    from glowplug.cli import kube, objects

    if bool(kind and names) == bool(files or kustomizations):
        raise typer.BadParameter("name either a kind and names, or files with -f or -k")
    cluster = kube.connect(kubeconfig, context, namespace)
    if kind and names:
        targets = [(cluster.resource_named(kind), name) for name in names]
    else:
        documents = objects.read_documents(files or [], kustomizations or [])
        targets = [
            (objects.resource_of(cluster, document.object), document.object["metadata"]["name"])
            for document in documents
        ]
    for resource, name in targets:
        objects.delete(cluster, resource, name, ignore_not_found=ignore_not_found)


@app.command(epilog="Example: glowplug logs flights -f")
def logs(
    name: Annotated[str, typer.Argument(help="An InferenceService, or a pod.")],
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
    container: Annotated[Optional[str], typer.Option("--container", "-c")] = None,  # noqa: UP045
    tail: Annotated[Optional[int], typer.Option("--tail", help="The last lines only.")] = None,  # noqa: UP045
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Show the output of a model's pods."""
    from glowplug.cli import kube
    from glowplug.cli import logs as verb

    verb.print_logs(
        kube.connect(kubeconfig, context, namespace), name, container=container, follow=follow, tail=tail
    )


@app.command(epilog="Example: glowplug predict flights -d .glowplug/flight.json --grpc")
def predict(
    name: Annotated[str, typer.Argument(help="An InferenceService.")],
    data: Annotated[str, typer.Option("--data", "-d", help="A file with a V2 or V1 body; - is stdin.")] = "-",
    model: Annotated[str, typer.Option(help="The model's name; default: the InferenceService's.")] = "",
    use_grpc: Annotated[bool, typer.Option("--grpc", help="Send it as V2 gRPC.")] = False,
    gateway: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Where the service's host name answers, e.g. http://127.0.0.1:31080."),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds.")] = 60.0,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Send one inference request and print the answer as JSON."""
    import json

    from glowplug.cli import kube
    from glowplug.cli import predict as verb

    if data == "-" and sys.stdin.isatty():
        print("reading the request from the terminal; end with Ctrl-D (or use -d FILE)", file=sys.stderr)
    body = sys.stdin.buffer.read() if data == "-" else pathlib.Path(data).read_bytes()
    url = verb.service_url(kube.connect(kubeconfig, context, namespace), name)
    call = verb.predict_grpc if use_grpc else verb.predict_rest
    print(json.dumps(call(url, model or name, body, gateway=gateway, timeout_s=timeout_s), indent=2))


@app.command(epilog="Example: glowplug coldstart flights")
def coldstart(
    name: Annotated[str, typer.Argument(help="An InferenceService, or a pod.")],
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Show what the latest starts of a model's pods took, phase by phase."""
    from glowplug.cli import coldstart as verb
    from glowplug.cli import kube

    verb.print_starts(kube.connect(kubeconfig, context, namespace), name)


@app.command(epilog="Example: glowplug doctor --context my-cluster")
def doctor(
    data_dir: options.DataDir = DEFAULT_DATA_DIR,
    wants_gpus: Annotated[bool, typer.Option("--gpus", help="On a cluster: ask for GPUs, too.")] = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Check this computer, or a cluster, for what glowplug needs; say what is missing and how to get it."""
    from glowplug.cli import doctor as verb

    if not verb.check(data_dir, kubeconfig, context, wants_gpus=wants_gpus):
        raise typer.Exit(1)


demo_app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(demo_app, name="demo", epilog="Example: glowplug demo --keep; glowplug demo retraining")


@demo_app.callback()
def demo(
    asked: typer.Context,
    data_dir: options.DataDir = DEFAULT_DATA_DIR,
    flights: Annotated[int, typer.Option(help="How many real flights of April to predict.")] = 500,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Leave the machine running.")] = True,
) -> None:
    """Real flights, real features, a real model: from raw data to predictions, in a few minutes."""
    if asked.invoked_subcommand is not None:
        return
    from glowplug.cli import demo as verb

    verb.run(data_dir, flights=flights, keep=keep)


@demo_app.command(epilog="Example: glowplug demo retraining --keep")
def retraining(
    data_dir: options.DataDir = RETRAINING_DATA_DIR,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Leave the machine running.")] = False,
) -> None:
    """The whole loop: a year of flights within minutes, drift, retraining, canary; and a mistake that is undone."""
    from glowplug.cli import retraining_demo as verb

    verb.run(data_dir, keep=keep)


def main() -> None:
    """The command's entry: errors become one clear message and exit code 1."""
    try:
        app()
    except GlowplugError as error:
        output.failed(error)
        sys.exit(1)
    except FileNotFoundError as error:
        output.failed(GlowplugError(f"{error.filename}: no such file"))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
