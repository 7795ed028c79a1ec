"""ResNet-50 and BERT-base behind servers: one row a request, tensors as bytes, as many threads as there are cores."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.environments import PEERS, TORCH, Absent
from benchmarks.load import Sample
from benchmarks.processes import Server, free_port
from benchmarks.protocols import BINARY, GRPC, RAW
from benchmarks.xgboost_servers import BATCHING, GLOWPLUG, await_ready, glowplug_environment, triton

STOCK_TORCH, MONOLITH, STANDALONE = "kserve + torch", "Flask + torch", "Triton + onnxruntime"
LOOP = "onnxruntime loop, no server"
# The same predictor with `--quantize=auto`: it takes int8 weights where they are faster and near enough.
INT8 = "glowplug, int8"
# What int8 weights may change of a logit, as a part of the largest.
INT8_TOLERANCE = 0.15
# kserve makes a Python list of binary REST tensors, which takes it 0.7 s for a picture: its better way is gRPC.
PROTOCOLS = {GLOWPLUG: BINARY, INT8: BINARY, STOCK_TORCH: GRPC, STANDALONE: BINARY, MONOLITH: RAW}
_CORES = str(os.cpu_count())
_LIMIT_S = 120
_SIGNATURES = {
    "resnet50": (
        'input [ { name: "pixel_values" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]\n'
        'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 1000 ] } ]\n'
    ),
    "bert-base": (
        'input [ { name: "input_ids" data_type: TYPE_INT64 dims: [ 128 ] },'
        ' { name: "attention_mask" data_type: TYPE_INT64 dims: [ 128 ] } ]\n'
        'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 2 ] } ]\n'
    ),
}


def rows_of(model_dir: pathlib.Path) -> list[tuple[dict[str, Any], Any]]:
    """The stored rows: inputs by name, and the logits that torch gave at the export."""
    stored = np.load(model_dir / "rows.npz")
    rows: list[dict[str, Any]] = [{} for _ in stored["answers"]]
    for key in stored.files:
        index, _, name = key.partition(".")
        if name:
            rows[int(index)][name] = stored[key]
    return list(zip(rows, stored["answers"], strict=True))


def start(name: str, model_dir: pathlib.Path, folder: pathlib.Path) -> Server:
    """Launch and wait until ready. Raises `Absent`."""
    variables = {"OMP_NUM_THREADS": _CORES, "MODEL_DIR": str(model_dir), "PYTHONPATH": str(PEERS)}
    if name == STANDALONE:
        signature = _SIGNATURES[model_dir.name] + BATCHING
        return await_ready(triton(name, folder, "triton_onnx.py", signature, variables))
    server = Server(name, free_port(), free_port())
    command, environment = _command(server, model_dir)
    server.launch(command, {**variables, **environment}, folder)
    return await_ready(server)


def _command(server: Server, model_dir: pathlib.Path) -> tuple[list[str], Mapping[str, str]]:
    if server.name in (GLOWPLUG, INT8):
        command = [sys.executable, "-m", "glowplug_onnx", "--model_name=m", f"--model_dir={model_dir}"]
        # The folder has torch's weights and the rows too; the unit takes the one ONNX file.
        environment = {**glowplug_environment(), "OMP_NUM_THREADS": _CORES}
        command += [f"--http_port={server.http_port}", f"--grpc_port={server.grpc_port}"]
        if server.name == INT8:
            command += ["--quantize=auto", f"--cache_dir={model_dir.parent / 'int8'}"]
        return command, environment
    TORCH.ensure()
    if server.name == MONOLITH:
        command = [
            str(TORCH.folder / "bin" / "gunicorn"), "flask_torch:app", "--worker-class", "gthread", "--workers", "1",
            "--threads", "4", "--timeout", "120", "--bind", f"127.0.0.1:{server.http_port}",
        ]  # fmt: skip
        server.grpc_port = 0
        return command, {"TORCH_THREADS": _CORES}
    command = [str(TORCH.python), str(PEERS / "kserve_torch.py"), "--model_name=m"]
    return [*command, f"--http_port={server.http_port}", f"--grpc_port={server.grpc_port}"], {}


def loop(model_dir: pathlib.Path, seconds: float) -> Sample:
    """onnxruntime without a server, in a process of its own with the same threads. Raises `Absent`."""
    command = [sys.executable, str(PEERS / "onnxruntime_loop.py"), str(model_dir), str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": _CORES}
    try:
        output = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=_LIMIT_S
        ).stdout
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise Absent(f"the onnxruntime loop failed: {error}") from error
    found = json.loads(output)
    return Sample(
        found["requests"] / found["seconds"],
        found["p50_ms"],
        found["p99_ms"],
        found["cpu_s"] / found["requests"] * 1e6,
    )
