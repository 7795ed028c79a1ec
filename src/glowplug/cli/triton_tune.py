"""`triton tune`: which server is measured, and where what was found goes."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from glowplug.cli import output
from glowplug.errors import ConfigError, GlowplugError, NotFound
from glowplug.triton import pbtxt, report, repository
from glowplug.triton.control import Address, Control
from glowplug.triton.home import find_perf_analyzer, find_triton
from glowplug.triton.model_config import from_json
from glowplug.triton.perf import Load
from glowplug.triton.process import START_TIMEOUT_S, running
from glowplug.triton.search import Choose, Space, Trial, best_level
from glowplug.triton.settings import applied, is_complete
from glowplug.triton.sweep import Sweep, SweepConfig, sweep

_TIMEOUT_S = 30.0
# A name of Kubernetes'; anything else was meant as a path.
_SERVICE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True)
class Asked:
    """The command line."""

    target: str
    model: str
    slo_p99_ms: float
    batch_sizes: tuple[int, ...]
    delays_us: tuple[int, ...]
    instances: tuple[int, ...]
    concurrencies: tuple[int, ...]
    budget_s: float
    window_ms: int
    shapes: tuple[str, ...]
    input_data: str
    grpc: str
    out: pathlib.Path | None

    @property
    def config(self) -> SweepConfig:
        space = Space(self.batch_sizes, self.delays_us, self.instances)
        return SweepConfig(self.slo_p99_ms, space, self.concurrencies, self.budget_s)

    def load(self, model: str, url: str, protocol: str) -> Load:
        """What is sent to the model."""
        return Load(model, url, protocol, self.window_ms, self.shapes, self.input_data)


@dataclass(frozen=True)
class Server:
    """A server that can be measured. `folder` is the model's, where there is a repository to write to."""

    model: str
    message: pbtxt.Message
    control: Address
    load: Load
    folder: pathlib.Path | None = None


def run(asked: Asked, url_of_service: Callable[[], str]) -> None:
    """All of it. Raises GlowplugError where no setting is within the limit: the report is written all the same."""
    perf = find_perf_analyzer(os.environ)
    with _server(asked, url_of_service) as server, Control(server.control) as control:
        found = sweep(
            control, perf, server.load, server.message, asked.config, os.environ, _tell(asked.slo_p99_ms)
        )
    out = asked.out or pathlib.Path(f"triton-tune-{server.model}")
    out.mkdir(parents=True, exist_ok=True)
    _write(found, asked, server, out)
    if not isinstance(found.outcome, Choose):
        raise GlowplugError(
            found.outcome.reason, hint=f"a longer --slo-p99-ms, or less --concurrency; see {out}"
        )
    output.done(f"{found.outcome.setting}: {found.outcome.reason}")
    if server.folder is None:
        output.done(
            f"loaded until the server restarts; to keep it, copy {output.relative(out / 'tuned.pbtxt')}"
        )
    else:
        output.done(f"written to {output.relative(server.folder / repository.CONFIG)}")
    output.next_steps(f"cat {shlex.quote(output.relative(out / 'report.md'))}")


def service_url(
    name: str, kubeconfig: pathlib.Path | None, context: str | None, namespace: str | None
) -> str:
    """Where an InferenceService answers."""
    from glowplug.cli import kube, predict

    return predict.service_url(kube.connect(kubeconfig, context, namespace), name)


@contextmanager
def _server(asked: Asked, url_of_service: Callable[[], str]) -> Iterator[Server]:
    folder = pathlib.Path(asked.target)
    if "://" not in asked.target and folder.is_dir():
        with _of_repository(asked, folder) as server:
            yield server
        return
    url = asked.target if "://" in asked.target else _service_url(asked.target, url_of_service)
    yield _of_url(asked, url.rstrip("/"))


def _service_url(target: str, url_of_service: Callable[[], str]) -> str:
    nothing = f"no folder {target}, and no InferenceService of that name"
    if not _SERVICE.fullmatch(target):
        raise ConfigError(nothing)
    try:
        return url_of_service()
    except NotFound as error:
        raise ConfigError(nothing, hint=error.hint) from error


@contextmanager
def _of_repository(asked: Asked, folder: pathlib.Path) -> Iterator[Server]:
    names = repository.models(folder)
    model = asked.model or (names[0] if len(names) == 1 else "")
    if model not in names:
        known = ", ".join(names) or "none"
        raise ConfigError(f"--model {model or '(none)'}: the models of {folder} are: {known}")
    message = repository.read_config(folder / model)
    if message is None:
        raise ConfigError(
            f"{folder / model} has no {repository.CONFIG}", hint="`glowplug triton build` writes one"
        )
    triton = find_triton(os.environ)
    output.done(f"starting a Triton on {output.relative(folder)}, for {model}")
    with running(
        triton,
        folder,
        model,
        os.environ,
        is_completed=not is_complete(message),
        timeout_s=min(START_TIMEOUT_S, asked.budget_s),
    ) as config:
        address = f"{config.host}:{config.grpc_port}"
        yield Server(model, message, Address(address), asked.load(model, address, "grpc"), folder / model)


def _of_url(asked: Asked, url: str) -> Server:
    if not asked.model:
        raise ConfigError("--model is needed: which of the server's models is it?")
    try:
        answer = httpx2.get(f"{url}/v2/models/{asked.model}/config", timeout=_TIMEOUT_S, trust_env=False)
    except httpx2.TransportError as error:
        raise GlowplugError(f"{url} cannot be reached: {error}") from error
    if answer.status_code != 200:
        raise GlowplugError(
            f"{url}/v2/models/{asked.model}/config answered {answer.status_code}: {answer.text[:300]}",
            hint="only a Triton says a model's configuration",
        )
    message = from_json(answer.json())
    for block in message.get("dynamic_batching", []):
        # The server writes its default out, the maximum; as a preference it would forbid smaller maxima.
        if isinstance(block, dict) and block.get("preferred_batch_size") == message.get("max_batch_size"):
            del block["preferred_batch_size"]
    parts = urlsplit(url)
    load = asked.load(asked.model, parts.netloc + parts.path, "http")
    return Server(asked.model, message, Address.parse(asked.grpc or url), load)


def _tell(slo_p99_ms: float) -> Callable[[Trial, str], None]:
    """A line a measurement."""

    def tell(trial: Trial, reason: str) -> None:
        if trial.failure:
            output.warned(f"{reason}: {trial.setting}: {trial.failure}")
            return
        level = best_level(trial.levels, slo_p99_ms) or min(trial.levels, key=lambda each: each.p99_ms)
        mark = "" if level.p99_ms <= slo_p99_ms else ", too long"
        output.done(f"{reason}: {trial.setting}: {level.throughput:.0f}/s, p99 {level.p99_ms:.1f} ms{mark}")

    return tell


def _write(found: Sweep, asked: Asked, server: Server, out: pathlib.Path) -> None:
    """Table, plot, and the configuration."""
    title = f"{server.model}: settings under p99 {asked.slo_p99_ms:g} ms"
    (out / "report.md").write_text(report.markdown(found, asked.slo_p99_ms, title), "utf-8")
    (out / "report.csv").write_text(report.table_csv(found, asked.slo_p99_ms), "utf-8")
    if isinstance(found.outcome, Choose):
        tuned = applied(server.message, found.outcome.setting)
        if server.folder is not None:
            repository.write_config(server.folder, tuned)
        kept = ("max_batch_size", "dynamic_batching", "instance_group")
        part = {name: tuned[name] for name in kept if name in tuned}
        (out / "tuned.pbtxt").write_text(pbtxt.write(part), "utf-8")
    try:
        report.plot(found, asked.slo_p99_ms, title, out / "report.png")
    except ConfigError as error:
        output.warned(f"{error.message} ({error.hint})")
