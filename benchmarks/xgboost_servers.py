"""The servers of one XGBoost model: each peer as its own documentation starts it, on free ports of 127.0.0.1."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.environments import ASGI, BENTOML, FLASK, KSERVE, LITSERVE, MLSERVER, PEERS, TRITON, nginx
from benchmarks.processes import Server, free_port
from benchmarks.protocols import BINARY, GRPC, JSON, Caller

GLOWPLUG, STOCK, SILENT = "glowplug", "kserve", "kserve, logs off"
RAW_ASGI, FLOOR = "raw ASGI", "nginx, static answer"
TRITON_PLAIN, TRITON_BATCHING = "Triton", "Triton, batching"
ALL = (JSON, BINARY, GRPC)
READY = "/v2/health/ready"
_ROOT = pathlib.Path(__file__).parent.parent
_UNITS = sorted((*_ROOT.glob("predictors/*/src"), *_ROOT.glob("transformers/*/src")))
_SOURCES = os.pathsep.join(str(path) for path in (_ROOT / "src", *_UNITS))
# Rows of 100 trees take less time than handing them to a second thread; some peers would start one for each core.
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Place:
    """Where a benchmark's servers find the model and leave their files."""

    folder: pathlib.Path
    model_file: pathlib.Path

    @property
    def variables(self) -> dict[str, str]:
        return {**_ONE_THREAD, "MODEL_FILE": str(self.model_file)}


@dataclass(frozen=True)
class Peer:
    """A server by name: the protocols that it speaks, and how it is launched."""

    name: str
    protocols: tuple[str, ...]
    launch: Callable[[str, Place], Server]

    ready_path: str = READY

    def start(self, place: Place) -> Server:
        """Launch and wait until ready. Raises `Absent`; whatever was started is stopped then."""
        return await_ready(self.launch(self.name, place), self.ready_path)


def await_ready(server: Server, path: str = READY) -> Server:
    """Wait until the path answers 200. Raises `Absent`."""
    caller = Caller(server.http_port, 0)
    try:
        server.wait_until(lambda: caller.is_ready(path), every_s=0.005)
    finally:
        caller.close()
    return server


def glowplug_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a unit of this repository, run by this Python."""
    return {"HOST": "127.0.0.1", "PYTHONPATH": _SOURCES, **_ONE_THREAD, **(extra or {})}


def glowplug_xgboost(name: str, place: Place) -> Server:
    """The unit as its runtime.yaml starts it."""
    server = Server(name, free_port(), free_port())
    command = [
        sys.executable, "-m", "glowplug_xgboost", "--model_name=m", f"--model_dir={place.model_file.parent}",
        f"--http_port={server.http_port}", f"--grpc_port={server.grpc_port}",
    ]  # fmt: skip
    server.launch(command, glowplug_environment(), place.folder)
    return server


def kserve_xgboost(name: str, place: Place) -> Server:
    """kserve.ModelServer with its defaults; `SILENT` turns its logs off."""
    server = Server(name, free_port(), free_port())
    quiet = ["--silent", "--enable_latency_logging=false", "--configure_logging=false"]
    command = [
        KSERVE.ensure().python, PEERS / "kserve_xgboost.py", "--model_name=m",
        f"--http_port={server.http_port}", f"--grpc_port={server.grpc_port}", *(quiet if name == SILENT else ()),
    ]  # fmt: skip
    server.launch(command, place.variables, place.folder)
    return server


def _mlserver(name: str, place: Place) -> Server:
    server = Server(name, free_port(), free_port())
    folder = place.folder / "mlserver" / "m"
    folder.mkdir(parents=True)
    settings = {
        "host": "127.0.0.1", "http_port": server.http_port, "grpc_port": server.grpc_port,
        "metrics_port": free_port(), "parallel_workers": 0,
    }  # fmt: skip
    model = {
        "name": "m", "implementation": "mlserver_xgboost.XGBoostModel", "parameters": {"uri": str(place.model_file)}
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    binary = MLSERVER.ensure().folder / "bin" / "mlserver"
    server.launch([binary, "start", folder], place.variables, place.folder)
    return server


def _bentoml(name: str, place: Place) -> Server:
    server = Server(name, free_port())
    home = {"BENTOML_HOME": str(place.folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    command = [
        BENTOML.ensure().folder / "bin" / "bentoml", "serve", "bentoml_xgboost:Predictor",
        "--host", "127.0.0.1", "--port", str(server.http_port), "--working-dir", PEERS,
    ]  # fmt: skip
    path = f"{BENTOML.folder / 'bin'}:{os.environ.get('PATH', '')}"
    server.launch(command, {**place.variables, **home, "PATH": path, "PYTHONPATH": str(PEERS)}, place.folder)
    return server


def _litserve(name: str, place: Place) -> Server:
    server = Server(name, free_port())
    command = [LITSERVE.ensure().python, PEERS / "litserve_xgboost.py", str(server.http_port)]
    server.launch(command, {**place.variables, "PYTHONPATH": str(PEERS)}, place.folder)
    return server


def _flask(name: str, place: Place) -> Server:
    server = Server(name, free_port())
    command = [
        FLASK.ensure().folder / "bin" / "gunicorn", "flask_xgboost:app", "--worker-class", "gthread",
        "--workers", str(os.cpu_count()), "--threads", "4", "--bind", f"127.0.0.1:{server.http_port}",
    ]  # fmt: skip
    server.launch(command, {**place.variables, "PYTHONPATH": str(PEERS)}, place.folder)
    return server


def _uvicorn(application: str) -> Callable[[str, Place], Server]:
    def launch(name: str, place: Place) -> Server:
        server = Server(name, free_port())
        command = [
            ASGI.ensure().folder / "bin" / "uvicorn", application, "--host", "127.0.0.1",
            "--port", str(server.http_port), "--no-access-log", "--log-level", "warning",
        ]  # fmt: skip
        server.launch(command, {**place.variables, "PYTHONPATH": str(PEERS)}, place.folder)
        return server

    return launch


def _nginx(name: str, place: Place) -> Server:
    server = Server(name, free_port())
    folder = place.folder / "nginx"
    (folder / "logs").mkdir(parents=True)
    output = {"name": "predict", "shape": [1], "datatype": "FP32", "data": [5.0]}
    answer = json.dumps({"model_name": "m", "id": "1", "outputs": [output]})
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;"
        " events { worker_connections 1024; }"
        f" http {{ access_log off; keepalive_requests 1000000; {temporary}"
        f" server {{ listen 127.0.0.1:{server.http_port};"
        f" location / {{ default_type application/json; return 200 '{answer}'; }} }} }}"
    )
    server.launch([nginx(), "-p", folder, "-c", folder / "nginx.conf"], {}, place.folder)
    return server


BATCHING = "dynamic_batching { max_queue_delay_microseconds: 5000 }\n"


def triton(
    name: str, folder: pathlib.Path, script: str, signature: str, variables: Mapping[str, str]
) -> Server:
    """tritonserver of nvidia-pytriton with one model `m` of its Python backend.

    `signature` is the inputs, outputs and batching in config.pbtxt's words; one instance, batches up to 32.
    """
    environment = TRITON.ensure()
    package = environment.site_packages / "pytriton" / "tritonserver"
    server = Server(name, free_port(), free_port())
    repository, backends = folder / f"{server.slug}-models", folder / f"{server.slug}-backends"
    (repository / "m" / "1").mkdir(parents=True)
    shutil.copy(PEERS / script, repository / "m" / "1" / "model.py")
    (repository / "m" / "config.pbtxt").write_text(
        f'name: "m"\nbackend: "python"\nmax_batch_size: 32\n{signature}'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    )
    # The stub for this Python must lie beside the backend, which the package keeps elsewhere.
    shutil.copytree(package / "backends", backends)
    stub = package / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    command = [
        package / "bin" / "tritonserver", f"--model-repository={repository}", f"--backend-directory={backends}",
        "--http-address=127.0.0.1", f"--http-port={server.http_port}",
        "--grpc-address=127.0.0.1", f"--grpc-port={server.grpc_port}",
        "--allow-metrics=false", "--exit-timeout-secs=5",
    ]  # fmt: skip
    # The stub finds its packages by the first python3 of the PATH, and needs that Python's library.
    library = pathlib.Path(os.path.realpath(environment.python)).parent.parent / "lib"
    server.launch(
        command,
        {
            **variables,
            "LD_LIBRARY_PATH": f"{environment.site_packages / 'nvidia_pytriton.libs'}:{library}",
            "PATH": f"{environment.folder / 'bin'}:{os.environ.get('PATH', '')}",
        },
        folder,
    )
    return server


def _triton_xgboost(name: str, place: Place) -> Server:
    signature = (
        'input [ { name: "input-0" data_type: TYPE_FP32 dims: [ 50 ] } ]\n'
        'output [ { name: "predict" data_type: TYPE_FP32 dims: [ 1 ] } ]\n'
    )
    batching = BATCHING if name == TRITON_BATCHING else ""
    return triton(name, place.folder, "triton_xgboost.py", signature + batching, place.variables)


PEERS_OF_XGBOOST = (
    Peer(GLOWPLUG, ALL, glowplug_xgboost),
    Peer(STOCK, ALL, kserve_xgboost),
    Peer(SILENT, ALL, kserve_xgboost),
    Peer("MLServer", (JSON, GRPC), _mlserver),
    Peer("BentoML", (JSON,), _bentoml, "/readyz"),
    Peer("LitServe", (JSON,), _litserve),
    Peer("Flask, gunicorn", (JSON,), _flask),
    Peer("FastAPI, orjson", (JSON,), _uvicorn("fastapi_xgboost:app")),
    Peer(RAW_ASGI, (JSON,), _uvicorn("raw_asgi:app")),
    Peer(TRITON_PLAIN, ALL, _triton_xgboost),
    Peer(TRITON_BATCHING, ALL, _triton_xgboost),
    Peer(FLOOR, (JSON,), _nginx),
)
