"""The pair lock, the same on both targets: no request meets a transformer and a predictor of different versions.

On a cluster it needs Knative's `tag-header-based-routing`.
"""

from __future__ import annotations

import json
import pathlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest
from conformance.controller import controller, program, settle
from conformance.target import REQUEST_TIMEOUT_S, ROW, Object, Target
from conformance.test_traffic import has_tag_header
from local.machine_lab import v2_body, wait_for

Served = Callable[[Object], str]
PODS = pathlib.Path(__file__).parents[2] / "benchmarks" / "paired_pods"
COMPONENTS = ("predictor", "transformer")
OLD, NEW = 50, 51
CLIENTS = 3
Met = Counter[tuple[int, ...]]


def version(target: Target, name: str, features: int, percent: int | None = None) -> Object:
    """A transformer that makes so many features and a predictor that expects them; the webhook makes them a pair."""
    share = {} if percent is None else {"canaryTrafficPercent": percent}
    arguments = (f"--model_name={name}", "--http_port=8080", "--grpc_port=8081", "--predictor_protocol=v2")
    if target.is_local:
        arguments = (
            f"--model_name={name}",
            "--http_port=$(PORT)",
            "--grpc_port=0",
            "--predictor_protocol=v2",
        )
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Knative",
                "glowplug.dev/pair-lock": "true",
            },
        },
        "spec": {
            role: {
                "minReplicas": 1,
                "containers": [program(target, PODS / f"{role}.py", *arguments, FEATURES=str(features))],
                **share,
            }
            for role in COMPONENTS
        },
    }


@contextmanager
def meeting(target: Target, name: str) -> Iterator[tuple[Met, list[str]]]:
    """Clients that ask without pause and never retry: which version met which, and what failed."""
    url, host = target.address(name)
    met: Met = Counter()
    failures: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        with httpx2.Client(timeout=REQUEST_TIMEOUT_S, trust_env=False, headers={"Host": host}) as client:
            while not is_over.is_set():
                try:
                    answer = client.post(f"{url}/v2/models/{name}/infer", json=v2_body(ROW))
                except httpx2.HTTPError as error:
                    failures.append(repr(error))
                    continue
                if answer.status_code == 200:
                    met[tuple(answer.json()["outputs"][0]["data"])] += 1
                else:
                    failures.append(f"{answer.status_code} {answer.text}")

    with ThreadPoolExecutor(CLIENTS) as executor:
        asking = [executor.submit(ask) for _ in range(CLIENTS)]
        try:
            yield met, failures
        finally:
            is_over.set()
        for task in asking:
            task.result()


def set_percent(target: Target, name: str, percent: int | None) -> None:
    patch = {"spec": {role: {"canaryTrafficPercent": percent} for role in COMPONENTS}}
    target.kubectl("patch", "isvc", name, "--type=merge", "-p", json.dumps(patch))
    share = 100 if percent is None else percent
    for role in COMPONENTS:
        settle(target, name, {n: part for n, part in ((1, 100 - share), (2, share)) if part}, role)


def test_a_layout_of_features_changes_under_load(target: Target, served: Served) -> None:
    if not has_tag_header(target):
        pytest.skip("tag-header-based-routing is not enabled in knative-serving/config-features")
    name = "paired"
    with controller(target):
        served(version(target, name, OLD))
        with meeting(target, name) as (met, failures):
            target.apply(version(target, name, NEW, 10))
            for percent in (10, 50, 100, None):
                set_percent(target, name, percent)
                seen = met[NEW, NEW, NEW]
                wait_for(lambda seen=seen: met[NEW, NEW, NEW] >= seen + 50 or failures, "the new version")
    print(dict(met))
    assert not failures, (len(failures), failures[:5], met)
    assert set(met) == {(OLD,) * 3, (NEW,) * 3}
