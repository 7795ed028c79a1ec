"""A real Triton under test: installed once into the user's cache, models made here, the unit as a pod runs it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from glowplug.triton.home import home_of
from glowplug.triton.install import install, unsupported

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "predictors" / "triton"
SOURCES = os.pathsep.join((str(UNIT / "src"), str(ROOT / "src")))
DEADLINE_S = 90.0
FEATURES = 4
_READY = re.compile(r"HTTP 127\.0\.0\.1:(\d+), gRPC 127\.0\.0\.1:(\d+), metrics (\S+)/metrics")

ADD_SUB = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "a").as_numpy()
            time.sleep(float(a.flat[0]) if a.flat[0] < 2 else 0)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("b", a * 2)]))
        return answers
"""


def require_triton() -> None:
    """Install it where it is not there yet; a skip only where there is no Triton for this platform."""
    if why := unsupported():
        pytest.skip(why)
    install(home_of(os.environ))


def glowplug(*arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """The command."""
    ran = subprocess.run(
        [sys.executable, "-m", "glowplug.cli.main", *arguments],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT / "src"), **env},
    )  # fmt: skip
    assert not check or ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
    return ran


def tritonclient_python() -> Path:
    """An interpreter with the official client, in an environment of its own: its protobuf is not ours."""
    venv = Path("~/.cache/glowplug-peers/tritonclient").expanduser()
    venv.mkdir(parents=True, exist_ok=True)
    with (venv.parent / ".tritonclient.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = venv / "bin" / "python"
        if not (venv / "whole").exists():
            shutil.rmtree(venv)
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            uv = Path(sys.executable).parent / "uv"
            pip = [str(uv), "pip", "install", "--python", str(python)] if uv.exists() else [
                str(python), "-m", "pip", "install"]  # fmt: skip
            subprocess.run([*pip, "-q", "tritonclient[http,grpc]==2.46.0", "numpy<2"], check=True)
            (venv / "whole").touch()
    return python


def write_forest(path: Path, *, objective: str = "reg:squarederror", seed: int = 0) -> Any:
    """A booster of FEATURES features, saved at `path`; the regression is close to the sum of a row."""
    import xgboost

    rows = np.random.default_rng(seed).random((500, FEATURES), dtype=np.float32)
    labels = rows.sum(axis=1)
    if objective.startswith("binary"):
        labels = labels > FEATURES / 2
    if objective.startswith("multi"):
        labels = (labels * 3 / FEATURES).astype(int)
    parameters = {"objective": objective, "max_depth": 3, "nthread": 1, "seed": seed}
    if objective.startswith("multi"):
        parameters["num_class"] = 3
    booster = xgboost.train(parameters, xgboost.DMatrix(rows, label=labels), num_boost_round=20)
    path.parent.mkdir(parents=True, exist_ok=True)
    booster.save_model(path)
    return booster


class TritonUnit:
    """`python -m glowplug_triton` on free ports, which becomes a tritonserver."""

    def __init__(self, folder: Path, model_dir: Path, *flags: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "triton.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "glowplug_triton", "--model_name=m", f"--model_dir={model_dir}",
                 "--http_port=0", "--grpc_port=0", *flags],
                stdout=log, stderr=subprocess.STDOUT, cwd=folder,
                env={**os.environ, "HOST": "127.0.0.1", "PYTHONPATH": SOURCES, "PYTHONSAFEPATH": "1"},
            )  # fmt: skip
        self.url = self.grpc = self.metrics = ""

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_ready(self) -> TritonUnit:
        with httpx2.Client(trust_env=False, timeout=5) as client:
            deadline = time.monotonic() + DEADLINE_S
            while self.process.poll() is None and time.monotonic() < deadline:
                if found := _READY.search(self.text()):
                    self.url, self.grpc = f"http://127.0.0.1:{found[1]}", f"127.0.0.1:{found[2]}"
                    self.metrics = f"{found[3]}/metrics"
                    if is_ready(client, self.url):
                        return self
                time.sleep(0.02)
        raise AssertionError(self.text()[-4000:])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


def is_ready(client: httpx2.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/v2/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


def v2(name: str, rows: Any) -> dict[str, Any]:
    """A V2 JSON request of one FP32 tensor."""
    rows = np.asarray(rows, np.float32)
    return {
        "inputs": [
            {"name": name, "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
        ]
    }


class Hammer:
    """Closed loops that never retry; every answer is kept as (status or error, version, seconds)."""

    def __init__(self, url: str, body: dict[str, Any], loops: int = 3, host: str = "") -> None:
        self.answers: list[tuple[Any, str, float]] = []
        self._url, self._body, self._headers = url, body, {"Host": host} if host else {}
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._loop) for _ in range(loops)]

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def versions(self, last: int) -> set[str]:
        return {version for _, version, _ in self.answers[-last:]}

    def _loop(self) -> None:
        with httpx2.Client(trust_env=False, timeout=60, headers=self._headers) as client:
            while not self._is_over.is_set():
                started = time.perf_counter()
                try:
                    answer = client.post(self._url, json=self._body)
                    status: Any = answer.status_code
                    version = answer.json().get("model_version", "")
                except (httpx2.TransportError, ValueError) as error:
                    status, version = repr(error), ""
                self.answers.append((status, version, time.perf_counter() - started))
