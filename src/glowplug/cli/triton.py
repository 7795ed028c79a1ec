"""`triton install|build|tune`: the verbs and their options; the work is in `glowplug.triton` and `cli.triton_tune`."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import tempfile
from typing import Annotated, Optional

import typer

from glowplug.cli import options, output
from glowplug.errors import ConfigError

app = typer.Typer(
    help="Triton Inference Server: model repositories, tuning, and a server for this computer.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_MLFLOW = re.compile(r"models:/(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<version>\d+))")

Texts = Optional[list[str]]  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
Number = Optional[int]  # noqa: UP045


@app.command(epilog="Example: glowplug triton install --with scikit-learn")
def install(
    packages: Annotated[
        Texts,
        typer.Option("--with", help="A package for your own model.py; may be repeated.", metavar="PACKAGE"),
    ] = None,
) -> None:
    """Install a real Triton for this computer (Linux x86_64, CPU, Python backend), with perf_analyzer.

    Into $GLOWPLUG_TRITON_HOME, or ~/.cache/glowplug/triton. What is there already is kept.
    """
    from glowplug.triton.home import home_of
    from glowplug.triton.install import install as verb

    home = home_of(os.environ)
    with output.step(f"Triton in {home}"):
        verb(home, tuple(packages or ()), output.done)
    output.next_steps("glowplug triton build model.onnx --out repository --backend python")


# Every setting of a configuration is a flag of its own, so there are more of them than a function should take.
@app.command(
    epilog="\b\nExamples:\n"
    "  glowplug triton build resnet50.onnx --out repository\n"
    "  glowplug triton build models:/fraud@champion --out repository --registry sqlite:///mlflow.db\n"
    "  glowplug triton build model.ubj --out repository --name fraud --backend python\n"
    "  glowplug triton build model.pt --out repository --input INPUT__0:FP32:3,224,224 --output OUTPUT__0:FP32:1000"
)
def build(
    source: Annotated[
        str,
        typer.Argument(
            help="A file or folder (ONNX, TorchScript, model.py, XGBoost), or models:/NAME@ALIAS."
        ),
    ],
    out: Annotated[pathlib.Path, typer.Option("--out", help="The model repository.", metavar="DIR")],
    name: Annotated[
        str, typer.Option(help="The model's name; default: the file's, or the registered one's.")
    ] = "",
    backend: Annotated[
        str, typer.Option(help="onnxruntime, pytorch, python or fil; default: by the model.")
    ] = "auto",
    inputs: Annotated[
        Texts, typer.Option("--input", help="NAME:DATATYPE:DIMS without the batch axis.", metavar="SHAPE")
    ] = None,
    outputs: Annotated[Texts, typer.Option("--output", help="The same.", metavar="SHAPE")] = None,
    max_batch_size: Annotated[
        Number, typer.Option(help="Rows at once; 0: no batch axis. Default: 32.")
    ] = None,
    max_queue_delay_us: Annotated[
        Number, typer.Option(help="Longest wait for a batch. Default: 5000.")
    ] = None,
    preferred_batch_sizes: Annotated[
        str, typer.Option(help="Such as 8,16. Default: none, which is best for most models.")
    ] = "",
    batching: Annotated[bool, typer.Option(help="Form batches of several requests.")] = True,
    instances: Annotated[Number, typer.Option(help="Copies of the model on each device. Default: 1.")] = None,
    kind: Annotated[
        str, typer.Option(help="cpu or gpu. Default: cpu for the python backend, else gpu.")
    ] = "",
    versions: Annotated[
        str, typer.Option(help="What is served: latest:N, all, or 1,3. Default: latest:1.")
    ] = "",
    version: Annotated[Number, typer.Option(help="This version's number. Default: the next.")] = None,
    warmup: Annotated[bool, typer.Option(help="Run zeros once before the model is ready.")] = True,
    registry: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow's tracking URI, for models:/…")
    ] = "",
) -> None:
    """Add a model to a Triton model repository, as the next version.

    A config.pbtxt that is there already is kept, but for what the options say. Servers that poll the repository take
    the version up by themselves.
    """
    from glowplug.triton.build import build as verb
    from glowplug.triton.options import BuildOptions, parse_kind, parse_sizes, parse_tensors, parse_versions
    from glowplug.triton.refusals import refuse_blanks

    refuse_blanks(pathlib.Path(os.path.abspath(out)))
    problems: list[str] = []
    registered = _registered(source, registry, problems)
    chosen = BuildOptions(
        name or (registered[0] if registered else _default_name(source)),
        backend,
        parse_tensors("--input", inputs or (), problems),
        parse_tensors("--output", outputs or (), problems),
        max_batch_size,
        max_queue_delay_us,
        parse_sizes("--preferred-batch-sizes", preferred_batch_sizes, problems),
        instances,
        parse_kind(kind, problems),
        parse_versions(versions, problems),
        batching,
        warmup,
    )
    with tempfile.TemporaryDirectory(prefix="glowplug-triton-") as folder:
        place = pathlib.Path(source)
        if registered and not problems:
            place = _download(registered, registry, pathlib.Path(folder) / "model")
        elif registered:
            raise ConfigError("; ".join(problems))
        report = verb(place, out, chosen, version=version, said=tuple(problems))
    for note in report.notes:
        output.warned(note)
    output.done(
        f"{report.kind.value} → {output.relative(report.built.folder)} version {report.built.version} "
        f"(backend {report.backend})"
    )
    _suggest(report.backend, out, chosen.name)


@app.command(
    epilog="\b\nExamples:\n"
    "  glowplug triton tune repository --model fraud --slo-p99-ms 20\n"
    "  glowplug triton tune repository --slo-p99-ms 20 --batch-sizes 16,32,64 --delays-us 0,500 --instances 1,2\n"
    "  glowplug triton tune http://127.0.0.1:8000 --grpc 127.0.0.1:8001 --model fraud --slo-p99-ms 20\n"
    "  glowplug triton tune my-inference-service --model fraud --slo-p99-ms 20 --budget-s 600"
)
def tune(
    target: Annotated[
        str,
        typer.Argument(
            help="A repository (a server is started for it), a server's URL, or an InferenceService."
        ),
    ],
    slo_p99_ms: Annotated[
        float, typer.Option("--slo-p99-ms", help="The longest p99 latency, in milliseconds.")
    ],
    model: Annotated[
        str, typer.Option(help="The model's name; default: the only one of the repository.")
    ] = "",
    batch_sizes: Annotated[str, typer.Option(help="Max batch sizes to try.")] = "8,16,32,64",
    delays_us: Annotated[str, typer.Option(help="Max queue delays to try, in microseconds.")] = "0,1000,5000",
    instances: Annotated[str, typer.Option(help="Instance counts to try.")] = "1,2",
    concurrency: Annotated[str, typer.Option(help="Requests at a time; several levels as 8,32.")] = "32",
    budget_s: Annotated[float, typer.Option(help="Seconds for the whole sweep.")] = 300.0,
    window_ms: Annotated[int, typer.Option(help="A measurement is three windows of this length.")] = 1000,
    shapes: Annotated[
        Texts, typer.Option("--shape", help="NAME:DIMS for inputs of any size.", metavar="SHAPE")
    ] = None,
    input_data: Annotated[
        str, typer.Option(help="random, zero, or a file of perf_analyzer's JSON. Default: random.")
    ] = "",
    grpc: Annotated[str, typer.Option(help="host:port of gRPC; default: that of the URL.")] = "",
    out: Annotated[
        Optional[pathlib.Path],  # noqa: UP045
        typer.Option(help="Where table and plot go; default: triton-tune-MODEL.", metavar="DIR"),
    ] = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
) -> None:
    """Find batch size, delay and instances that give most throughput within a latency limit, and write them.

    Each setting is loaded into the server over gRPC and measured with perf_analyzer. A repository's config.pbtxt gets
    the chosen setting; a server's gets it until it is restarted, and a file to copy from. Ends within the budget.
    """
    from glowplug.cli import triton_tune
    from glowplug.triton.options import parse_sizes

    problems: list[str] = []
    asked = triton_tune.Asked(
        target, model, slo_p99_ms,
        batch_sizes=parse_sizes("--batch-sizes", batch_sizes, problems),
        delays_us=parse_sizes("--delays-us", delays_us, problems, least=0),
        instances=parse_sizes("--instances", instances, problems),
        concurrencies=parse_sizes("--concurrency", concurrency, problems),
        budget_s=budget_s, window_ms=window_ms, shapes=tuple(shapes or ()), input_data=input_data, grpc=grpc, out=out,
    )  # fmt: skip
    problems += [
        f"{flag} {value:g}: expected more than 0"
        for flag, value in (
            ("--slo-p99-ms", slo_p99_ms),
            ("--budget-s", budget_s),
            ("--window-ms", window_ms),
        )
        if value <= 0
    ]
    if problems:
        raise ConfigError("; ".join(problems))
    triton_tune.run(asked, lambda: triton_tune.service_url(target, kubeconfig, context, namespace))


def _suggest(backend: str, out: pathlib.Path, name: str) -> None:
    """What can be done with it here: where this computer's Triton lacks the backend, only to serve it elsewhere."""
    from glowplug.triton.home import backends_of, find_triton

    try:
        is_here = backend in backends_of(find_triton(os.environ))
    except ConfigError:
        is_here = backend == "python"  # what `install` would bring
    folder = shlex.quote(output.relative(out))
    if is_here:
        output.next_steps(
            f"glowplug triton tune {folder} --model {shlex.quote(name)} --slo-p99-ms 20", _serving_step(out)
        )
        return
    output.warned(f"backend {backend} runs in Triton's image only; for this computer: --backend python")
    output.next_steps(_serving_step(out))


def _serving_step(out: pathlib.Path) -> str:
    return f"# serve it: an InferenceService with modelFormat: triton and storageUri: file://{out.absolute()}"


def _registered(source: str, registry: str, problems: list[str]) -> tuple[str, str] | None:
    """(name, version or alias) of `models:/NAME@ALIAS` or `models:/NAME/3`; None for a path."""
    if not source.startswith("models:/"):
        return None
    found = _MLFLOW.fullmatch(source)
    if found is None:
        problems.append(f"{source}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
        return "", ""
    if not registry:
        problems.append(f"{source} needs --registry, or $MLFLOW_TRACKING_URI")
    return found["name"], found["alias"] or found["version"]


def _download(registered: tuple[str, str], registry: str, place: pathlib.Path) -> pathlib.Path:
    from glowplug.registry.models import RegistryConfig, download

    is_folder = "://" not in registry
    config = RegistryConfig.local(pathlib.Path(registry)) if is_folder else RegistryConfig(registry, "")
    with output.step(f"models:/{registered[0]} {registered[1]} from {registry}"):
        version = download(config, *registered, place)
    output.done(f"version {version.version} of {version.name}")
    return place


def _default_name(source: str) -> str:
    """The file's name without its suffix; the folder's name for files which all models have the name of."""
    path = pathlib.Path(source).absolute()
    return path.parent.name if path.stem == "model" else path.stem
