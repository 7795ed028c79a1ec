"""What a change of a canary's weight costs those who ask meanwhile: it should cost none of them anything.

Two versions of one model, REST and gRPC clients that ask without pause and never try again, and weights that go to and
fro between them. A change follows as soon as the ingress has confirmed the last one; after 100 % as soon as the pods
of the other version are gone, so that the way back starts them again.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import httpx2
import numpy as np

from benchmarks.lab import FEATURES, Lab, body, lab, wait_for
from benchmarks.results import Result, summarise
from benchmarks.rounds import Options
from glowplug.errors import NotFound
from glowplug.wire import v2_grpc
from glowplug.wire.tensors import InferRequest, Tensor

COMMAND = "make bench-canary"
NAME = "canary"
# Promotion (100) makes the way back a rollback, as in KServe.
WEIGHTS = (50, 100, 50, 10, 0, 10)
_ROUNDS, _QUICK = 20, 2
_CLIENTS = 4
_SERVICE = f"/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/{NAME}"
_ROUTE = f"/apis/serving.knative.dev/v1/namespaces/default/routes/{NAME}-predictor"
_PODS = "/api/v1/namespaces/default/pods"
_MERGE = {"Content-Type": "application/merge-patch+json"}
_CHANNEL: list[tuple[str, Any]] = [
    ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0),
    ("grpc.default_authority", f"{NAME}.default.localhost"),
]  # fmt: skip


@dataclass
class Outcome:
    """Answers by protocol, and what failed."""

    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)


def run(options: Options | None = None) -> list[Result]:
    """On a machine of its own; about two minutes, some seconds with `quick`."""
    rounds = _QUICK if options is not None and options.quick else _ROUNDS
    with lab() as found:
        found.create(NAME)
        with httpx2.Client(trust_env=False) as client:
            found.wait_until_served(client, NAME)
        wait_for(lambda: _shares(found) == {f"{NAME}-predictor-00001": 100}, "the first version")
        # Another environment is another revision.
        _patch(found, {"model": {"env": [{"name": "VERSION", "value": "2"}]}, "canaryTrafficPercent": 10})
        _wait_weight(found, 10)
        outcome, times = asyncio.run(_change_under_load(found, WEIGHTS * rounds))
    for what, count in outcome.wrong.items():
        print(f"  {count} × {what}", file=sys.stderr)
    return _results(outcome, times)


async def _change_under_load(found: Lab, weights: tuple[int, ...]) -> tuple[Outcome, list[float]]:
    outcome, is_over, times = Outcome(), asyncio.Event(), []
    asking = [
        asyncio.create_task(ask(found, outcome, is_over), name=f"{ask.__name__} {number}")
        for ask in (_rest, _grpc)
        for number in range(_CLIENTS)
    ]
    try:
        for weight in weights:
            began = time.perf_counter()
            await asyncio.to_thread(_patch, found, {"canaryTrafficPercent": weight})
            await asyncio.to_thread(_wait_weight, found, weight)
            times.append(1000 * (time.perf_counter() - began))
            if weight == 100:
                await asyncio.to_thread(_wait_gone, found)
    finally:
        is_over.set()
        await asyncio.gather(*asking)
    return outcome, times


async def _rest(found: Lab, outcome: Outcome, is_over: asyncio.Event) -> None:
    url, headers = f"{found.url(NAME)}/v2/models/{NAME}/infer", {"Content-Type": "application/json"}
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        while not is_over.is_set():
            try:
                answer = await client.post(url, content=body(), headers=headers)
            except httpx2.HTTPError as error:
                outcome.wrong[f"REST {error!r}"] += 1
                continue
            if answer.status_code == 200:
                outcome.right["REST"] += 1
            else:
                outcome.wrong[f"REST {answer.status_code} {answer.text[:200]}"] += 1


async def _grpc(found: Lab, outcome: Outcome, is_over: asyncio.Event) -> None:
    row = np.arange(FEATURES, dtype=np.float32).reshape(1, FEATURES) / 100
    message = v2_grpc.encode_infer_request(InferRequest(NAME, (Tensor.from_numpy("input-0", row),)))
    async with grpc.aio.insecure_channel(found.ingress.rpartition("/")[2], options=_CHANNEL) as channel:
        infer = channel.unary_unary(f"/{v2_grpc.SERVICE}/ModelInfer")
        while not is_over.is_set():
            try:
                await infer(message, timeout=30)
            except grpc.aio.AioRpcError as error:
                outcome.wrong[f"gRPC {error.code().name} {error.details()}"] += 1
            else:
                outcome.right["gRPC"] += 1


def _patch(found: Lab, predictor: dict[str, Any]) -> None:
    content = json.dumps({"spec": {"predictor": predictor}}).encode()
    found.cluster.request("PATCH", _SERVICE, body=content, headers=_MERGE)


def _wait_weight(found: Lab, weight: int) -> None:
    first, second = f"{NAME}-predictor-00001", f"{NAME}-predictor-00002"
    wanted = {name: share for name, share in ((first, 100 - weight), (second, weight)) if share}
    wait_for(lambda: _shares(found) == wanted, f"{weight} % for {second}", every_s=0.01)


def _wait_gone(found: Lab) -> None:
    label = f"serving.knative.dev/revision={NAME}-predictor-00001"
    wait_for(
        lambda: not found.cluster.get(_PODS, labelSelector=label)["items"],
        "the pods of the first version to go",
    )


def _shares(found: Lab) -> dict[str, int]:
    """What the ingress has confirmed; nothing while it has not."""
    try:
        route = found.cluster.get(_ROUTE)
    except NotFound:
        return {}
    status = route.get("status") or {}
    conditions = status.get("conditions") or ()
    is_observed = status.get("observedGeneration") == route["metadata"]["generation"]
    if not is_observed or any(condition["status"] != "True" for condition in conditions):
        return {}
    shares: Counter[str] = Counter()
    for target in status.get("traffic") or ():
        shares[target["revisionName"]] += target["percent"]
    return dict(+shares)


def _results(outcome: Outcome, times: list[float]) -> list[Result]:
    failed, right = sum(outcome.wrong.values()), outcome.right
    what = (
        f"failed over {len(times)} changes of weight ({' → '.join(map(str, WEIGHTS))} % and round again), of "
        f"{right['REST']:,} by REST and {right['gRPC']:,} by gRPC; clients never try again"
    )
    confirmed = "from the patch of canaryTrafficPercent until the ingress runs the weights, under that load"
    return [
        Result(
            "canary.weight_change.failed", failed, "requests", failed, failed, len(times), COMMAND, "0", what
        ),
        summarise("canary.weight_change.ms", times, "ms", command=COMMAND, note=confirmed),
    ]
