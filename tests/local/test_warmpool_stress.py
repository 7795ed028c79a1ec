"""Many forks that serve real predictions, over REST and gRPC, with BLAS's and OpenMP's threads in the replicas.

GLOWPLUG_FORKS says how many; 500 take about a minute.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys

import grpc
import numpy as np
import psutil
import pytest
from unit.supervisor.machine import Machine, a_pod, running
from unit.supervisor.warm import ROOT, warm_machine, warm_unit, warmed

from glowplug.spec import names
from glowplug.spec.kinds import POD
from glowplug.supervisor.images import Unit, discover
from glowplug.wire import InferRequest, Tensor, v2_grpc, v2_json

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="replicas are forked on Linux only"
)
FORKS = int(os.environ.get("GLOWPLUG_FORKS", "48"))
AT_A_TIME = 4
SIZE = 256
ARGS = ["--model_name=m", "--drain_delay_s=0", "--http_port=8080", "--grpc_port=8081"]


def rows(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def call_rest(port: int, name: str, data: np.ndarray) -> np.ndarray:
    import httpx2

    body, length = v2_json.encode_request(
        InferRequest("m", (Tensor(name, "FP32", data.shape, data),)), binary=True
    )
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(length)}
    with httpx2.Client(trust_env=False, timeout=20) as client:
        answer = client.post(f"http://127.0.0.1:{port}/v2/models/m/infer", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found = v2_json.decode_response(
        answer.content, header_length=answer.headers.get("inference-header-content-length")
    )
    return np.asarray(found.outputs[0].data).reshape(found.outputs[0].shape)


def call_grpc(port: int, name: str, data: np.ndarray) -> np.ndarray:
    request = v2_grpc.encode_infer_request(InferRequest("m", (Tensor(name, "FP32", data.shape, data),)))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = v2_grpc.decode_infer_response(
            channel.unary_unary(f"/{v2_grpc.SERVICE}/ModelInfer")(request, timeout=20)
        )
    return np.asarray(answer.outputs[0].data).reshape(answer.outputs[0].shape)


async def serve_once(
    machine: Machine, name: str, container: dict, input_name: str, data: np.ndarray
) -> tuple:
    """One pod from its making to its end: what it answered over REST and gRPC."""
    annotations = {names.STORAGE_SOURCE_URI: container.pop("uri")} if "uri" in container else {}
    machine.objects.create(
        POD, a_pod(name, container, annotations=annotations, terminationGracePeriodSeconds=20)
    )
    await machine.ready(name)
    ports = machine.endpoint(name)
    answers = await asyncio.gather(
        asyncio.to_thread(call_rest, ports["http"], input_name, data),
        asyncio.to_thread(call_grpc, ports["grpc"], input_name, data),
    )
    runner = machine.supervisor._find("default", name)
    await machine.until(lambda: names.COLD_START in machine.pod(name)["metadata"]["annotations"], "timeline")
    assert '"how":"fork"' in machine.pod(name)["metadata"]["annotations"][names.COLD_START]
    machine.objects.delete(POD, "default", name)
    await machine.until(lambda: not machine.exists(name), "deleted")
    ended = runner._containers[0].snapshot.state
    assert ended.exit_code == 0, ended
    return answers


async def test_forks_that_serve_real_predictions(tmp_path):
    unit = warm_unit(tmp_path / "warm", "example/model")
    unit = Unit(unit.image, "python -m warm_model", unit.folder, "/v2/health/ready")
    weights = np.arange(SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE) / (SIZE * SIZE)
    left = list(range(FORKS))

    async def work(machine: Machine) -> None:
        while left:
            number = left.pop()
            data = rows((3, SIZE), number)
            container = {"name": "kserve-container", "image": "example/model", "args": ARGS}
            rest, rpc = await serve_once(machine, f"pod-{number}", container, "rows", data)
            np.testing.assert_allclose(rest, data @ weights, rtol=1e-4)
            np.testing.assert_array_equal(rest, rpc)

    async with running(warm_machine(tmp_path / "data", unit)) as machine:
        await warmed(machine)
        (before,) = machine.supervisor.pool()
        await asyncio.gather(*(work(machine) for _ in range(AT_A_TIME)))
        (after,) = machine.supervisor.pool()
        assert after.pid == before.pid, "one zygote made them all"
        assert not dead_children(), "left unreaped"


async def test_forks_of_the_xgboost_unit_with_openmp(tmp_path, small_model):
    shutil.copytree(ROOT / "predictors" / "xgboost", tmp_path / "xgboost")
    (unit,) = discover([tmp_path / "xgboost"]).units
    async with running(warm_machine(tmp_path / "data", unit)) as machine:
        await warmed(machine)

        async def work(number: int) -> None:
            data = rows((500, 3), number)
            container = {"name": "kserve-container", "image": unit.image, "args": [*ARGS, "--nthread=2"]}
            container["uri"] = small_model.as_uri()
            rest, rpc = await serve_once(machine, f"pod-{number}", container, "input-0", data)
            assert np.abs(rest - data.sum(axis=1)).mean() < 0.1
            np.testing.assert_array_equal(rest, rpc)

        await asyncio.gather(*map(work, range(AT_A_TIME)))


def dead_children() -> list[int]:
    children = psutil.Process().children()
    return [child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE]
