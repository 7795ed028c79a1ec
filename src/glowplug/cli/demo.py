"""`demo`: from raw data to predictions, on real flights, with the objects that a cluster would get too.

Redis runs as a Pod of the machine, so it is watched, restarted and stopped like everything else. The
InferenceService is the file in `transformers/feature-lookup`, unchanged.
"""

from __future__ import annotations

import json
import pathlib
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import httpx2
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from glowplug.cli import machine, objects, output
from glowplug.cli.doctor import is_free
from glowplug.cli.kube import Cluster, connect
from glowplug.cli.predict import predict_grpc, service_url
from glowplug.errors import ConfigError, GlowplugError, NotFound
from glowplug.local.config import MachineConfig
from glowplug.local.datadir import DataDir
from glowplug.local.units import unit_folders
from glowplug.spec.documents import Document, load

try:
    from glowplug.features.parse import parse_view
    from glowplug.features.redis_server import find_redis, redis_command, socket_path
    from glowplug_flights.demo import Flight, FlightsDemo
except ImportError as error:
    raise ConfigError(
        f"the demo needs the package {error.name}",
        hint="pip install 'glowplug[serving,pipelines]', or `make demo`",
    ) from error

_NAME = "flights"
_SHOWN = 10
_READY_TIMEOUT_S = 60.0
Object = dict[str, Any]


def run(data_dir: pathlib.Path, *, flights: int, keep: bool) -> None:
    """All of it; the machine is left running if `keep`."""
    directory = DataDir.at(data_dir)
    unit = _unit()
    started = time.monotonic()
    _start_machine(data_dir, directory)
    cluster = connect(directory.kubeconfig, None, "default")
    redis_url = _start_redis(cluster, directory)
    with _progress() as progress:
        demo = FlightsDemo(directory.root, _view(unit), progress)
        _prepare(demo, redis_url)
    sample = demo.sample_requests(flights)
    url, first_s = _serve(cluster, unit, redis_url, sample[0])
    predicted = _predict(url, sample)
    _report(demo, sample, predicted)
    output.done(
        f"{time.monotonic() - started:.0f} s in all; {first_s:.1f} s of it from apply to the first prediction"
    )
    demo.close()
    if not keep:
        machine.down(data_dir, timeout_s=60)
        return
    request = _write_request(directory, sample[0])
    output.next_steps(
        f"export KUBECONFIG={shlex.quote(str(directory.kubeconfig))}",
        "kubectl get isvc",
        f"glowplug predict {_NAME} -d {shlex.quote(output.relative(request))}",
        f"glowplug logs {_NAME} -f",
        f"glowplug down{machine.data_dir_flag(data_dir)}",
    )


def _unit() -> pathlib.Path:
    for folder in unit_folders():
        if (folder / "feature-lookup/isvc.yaml").exists():
            return folder / "feature-lookup"
    raise ConfigError("the unit transformers/feature-lookup is not here", hint="install glowplug anew")


def _view(unit: pathlib.Path) -> Any:
    path = unit / "feature_view.yaml"
    return parse_view(path.read_text(), str(path))


def _start_machine(data_dir: pathlib.Path, directory: DataDir) -> None:
    if (holder := directory.holder()) is not None:
        output.done(f"the machine runs already (process {holder})")
        return
    defaults = MachineConfig()
    config = MachineConfig(
        data_dir,
        ingress_port=defaults.ingress_port if is_free(defaults.ingress_port) else 0,
        api_port=defaults.api_port if is_free(defaults.api_port) else 0,
    )
    with output.step("starting the local machine"):
        machine.start_detached(config)


def _start_redis(cluster: Cluster, directory: DataDir) -> str:
    """Apply Redis as a Pod; its URL once it answers."""
    live = _live_pod(cluster, "redis")
    if (running := _socket_of(live)) is not None and _answers(running):
        output.done("Redis runs already")
        return f"unix://{running}"
    folder = directory.root / "redis"
    folder.mkdir(exist_ok=True)
    binary, (socket, _) = find_redis(), socket_path(folder)
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "redis", "namespace": "default", "labels": {"app": "redis"}},
        "spec": {
            "containers": [
                {"name": "redis", "image": "redis", "command": redis_command(binary, folder, socket)}
            ]
        },
    }
    with output.step("starting Redis"):
        # Another server may be found than the last time, and a pod's command cannot be changed.
        if live is not None and _command(live) != _command(pod):
            _delete_pod(cluster, "redis")
        objects.apply_quietly(cluster, pod)
        _wait(lambda: _answers(socket), "Redis to answer", lambda: _pod_account(cluster, "redis"))
    return f"unix://{socket}"


def _live_pod(cluster: Cluster, name: str) -> Object | None:
    try:
        return cluster.get(f"/api/v1/namespaces/default/pods/{name}")
    except NotFound:
        return None


def _delete_pod(cluster: Cluster, name: str) -> None:
    """Returns when it is gone; Redis has saved its data then."""
    with suppress(NotFound):
        cluster.request("DELETE", f"/api/v1/namespaces/default/pods/{name}")
    _wait(
        lambda: _live_pod(cluster, name) is None,
        f"the former pod {name} to end",
        lambda: _pod_account(cluster, name),
    )


def _command(pod: Object) -> list[str]:
    command: list[str] = pod["spec"]["containers"][0].get("command") or []
    return command


def _socket_of(pod: Object | None) -> pathlib.Path | None:
    """Where the Redis of a live pod of ours listens."""
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        return None
    command = _command(pod)
    at = command.index("--unixsocket") + 1 if "--unixsocket" in command else len(command)
    return pathlib.Path(command[at]) if at < len(command) else None


def _answers(socket: pathlib.Path) -> bool:
    import redis

    try:
        with redis.Redis(unix_socket_path=str(socket), socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _prepare(demo: FlightsDemo, redis_url: str) -> None:
    """Features, model, registry: each step says what came out."""
    tables = demo.prepare_offline()
    output.done(f"offline features: {_counts(tables)}")
    online = anyio.run(demo.materialize, redis_url)
    output.done(f"online features in Redis: {_counts(online)}")
    trained = demo.train()
    output.done(
        f"trained on January to March: {', '.join(f'{k} {v:.3g}' for k, v in trained.metrics().items())}"
    )
    version = demo.register()
    output.done(f"registered in MLflow: {version.name} version {version.version}, alias champion")


def _serve(cluster: Cluster, unit: pathlib.Path, redis_url: str, first: Flight) -> tuple[str, float]:
    """Apply the InferenceService as it lies there; its URL, and the seconds until it answered the first flight."""
    for config_map in (
        _config_map("feature-store", {"REDIS_URL": redis_url}),
        _config_map("feature-views", {"feature_view.yaml": (unit / "feature_view.yaml").read_text()}),
    ):
        objects.apply_quietly(cluster, config_map)
    file = unit / "isvc.yaml"
    started = time.monotonic()
    with output.step(f"applying {output.relative(file)} and waiting for its first answer"):
        documents: list[Document] = load(file.read_text(), str(file))
        for document in documents:
            objects.apply_quietly(cluster, document.object)
        body = json.dumps(first.body()).encode()
        with httpx2.Client(trust_env=False, timeout=10) as client:
            _wait(
                lambda: _first_answer(cluster, client, body),
                "the first prediction",
                lambda: _service_account(cluster),
            )
    return service_url(cluster, _NAME), time.monotonic() - started


def _first_answer(cluster: Cluster, client: httpx2.Client, body: bytes) -> bool:
    try:
        url = service_url(cluster, _NAME)
    except GlowplugError:
        return False
    return client.post(f"{url}/v2/models/{_NAME}/infer", content=body, headers=_JSON).status_code == 200


_JSON = {"Content-Type": "application/json"}


def _predict(url: str, sample: list[Flight]) -> list[float]:
    """A call a flight, by turns over REST and over gRPC."""
    predicted: list[float] = []
    latencies: dict[str, list[float]] = {"REST": [], "gRPC": []}
    with httpx2.Client(trust_env=False, timeout=30) as client, output.progress() as bar:
        task = bar.add_task("predicting April's flights", total=len(sample))
        for i, flight in enumerate(sample):
            body = json.dumps(flight.body()).encode()
            protocol = "gRPC" if i % 2 else "REST"
            started = time.perf_counter()
            if protocol == "gRPC":
                answer = predict_grpc(url, _NAME, body, gateway=None, timeout_s=30)
            else:
                response = client.post(f"{url}/v2/models/{_NAME}/infer", content=body, headers=_JSON)
                if response.status_code != 200:
                    raise GlowplugError(f"{flight.name}: {response.status_code} {response.text}")
                answer = response.json()
            latencies[protocol].append((time.perf_counter() - started) * 1000)
            predicted.append(float(answer["outputs"][0]["data"][0]))
            bar.advance(task)
    spoken = ", ".join(f"{name} {statistics.median(ms):.1f} ms" for name, ms in latencies.items() if ms)
    output.done(
        f"{len(sample)} predictions by entity id (median: {spoken}; each gRPC call on a new connection)"
    )
    return predicted


def _report(demo: FlightsDemo, sample: list[Flight], predicted: list[float]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="")
    for heading in ("FLIGHT", "FROM", "TO", "SCHEDULED (UTC)"):
        table.add_column(heading)
    for heading in ("PREDICTED min", "ACTUAL min"):
        table.add_column(heading, justify="right")
    step = max(1, len(sample) // _SHOWN)
    for flight, minutes in list(zip(sample, predicted, strict=True))[::step][:_SHOWN]:
        table.add_row(
            flight.name, flight.entities["origin"], flight.entities["dest"],
            f"{flight.scheduled_hour:%d %b %H:%M}", f"{minutes:+.0f}", f"{flight.arr_delay:+.0f}",
        )  # fmt: skip
    Console(highlight=False, width=100).print(table)
    evaluation = demo.evaluate(sample, predicted)
    print(f"\nmean absolute error over {evaluation.flights} flights of April, minutes:")
    for name, error in [("this model", evaluation.mae), *evaluation.baselines.items()]:
        print(f"  {error:6.2f}  {name}")
    print(f"  {evaluation.improvement_percent:.0f} % below the best baseline")
    sys.stdout.flush()


def _write_request(directory: DataDir, flight: Flight) -> pathlib.Path:
    path = directory.root / "flight.json"
    path.write_text(json.dumps(flight.body(), indent=2) + "\n")
    return path


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar that follows the pipeline's reports."""
    bar: Progress = output.progress()
    with bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for old in tasks.values():
                    bar.update(old, visible=False)
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done, total=total or None)

        yield report


def _wait(condition: Callable[[], bool], what: str, account: Callable[[], str]) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise GlowplugError(f"waited {_READY_TIMEOUT_S:.0f} s for {what}\n{account()}")
        time.sleep(0.02)


def _pod_account(cluster: Cluster, name: str) -> str:
    return json.dumps(cluster.get(f"/api/v1/namespaces/default/pods/{name}").get("status", {}), indent=2)


def _service_account(cluster: Cluster) -> str:
    root = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
    conditions = cluster.get(f"{root}/{_NAME}").get("status", {}).get("conditions", [])
    return "\n".join(
        f"{condition['type']}={condition['status']} {condition.get('reason', '')} {condition.get('message', '')}"
        for condition in conditions
    )


def _config_map(name: str, data: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in rows.items())
