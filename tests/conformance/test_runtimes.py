"""Where a model comes from and which runtime serves it: storageUri, and the choice among ServingRuntimes."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conformance.controller import program
from conformance.recorder import Recorder
from conformance.target import READY_TIMEOUT_S, Object, Target, service
from local.machine_lab import wait_for, write_model

Served = Callable[[Object], str]
MODEL = pathlib.Path(__file__).parents[1] / "local" / "pods" / "model.py"
FORMAT = "conformance"
RUNTIME, CLUSTER_RUNTIME = "conformance-own", "conformance-of-all"
EXPECTED = pytest.approx([0.6], abs=0.3)


def test_a_model_is_downloaded(
    target: Target, served: Served, sink: Recorder, tmp_path: pathlib.Path
) -> None:
    write_model(tmp_path)
    uri = sink.keep("model.ubj", (tmp_path / "model.ubj").read_bytes())
    name = served(service(target, "downloaded", minReplicas=1, model={"storageUri": uri}))
    assert target.infer(name).json()["outputs"][0]["data"] == EXPECTED
    states = target.get("isvc", name)["status"]["modelStatus"]["states"]
    assert states == {"activeModelState": "Loaded", "targetModelState": "Loaded"}


@pytest.fixture
def runtimes(target: Target) -> Iterator[None]:
    """One of the namespace and one of the cluster, for a format that nobody else has; each answers with its name."""
    kinds = {"ServingRuntime": RUNTIME, "ClusterServingRuntime": CLUSTER_RUNTIME}
    for kind, name in kinds.items():
        target.apply(
            {
                "apiVersion": "serving.kserve.io/v1alpha1",
                "kind": kind,
                "metadata": {"name": name},
                "spec": {
                    "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": True}],
                    "protocolVersions": ["v1", "v2"],
                    "containers": [program(target, MODEL, VERSION=name)],
                },
            }
        )
    yield
    for kind, name in kinds.items():
        target.kubectl("delete", kind.lower(), name, "--ignore-not-found")


def of_format(target: Target, name: str, **model: Any) -> Object:
    return service(target, name, minReplicas=1, model={"modelFormat": {"name": FORMAT}, **model})


def answers(target: Target, name: str) -> str:
    return str(target.infer(name).json().get("version"))


def test_the_namespaces_runtime_is_chosen_and_another_by_name(
    target: Target, served: Served, runtimes: None
) -> None:
    name = served(of_format(target, "chosen"))
    assert answers(target, name) == RUNTIME
    status = target.get("isvc", name)["status"]
    assert (status.get("servingRuntimeName"), status.get("clusterServingRuntimeName")) == (RUNTIME, None)

    target.apply(of_format(target, name, runtime=CLUSTER_RUNTIME))
    wait_for(lambda: answers(target, name) == CLUSTER_RUNTIME, "the runtime that is named", READY_TIMEOUT_S)
    target.wait_ready(name)
    status = target.get("isvc", name)["status"]
    assert (status.get("servingRuntimeName"), status.get("clusterServingRuntimeName")) == (
        None,
        CLUSTER_RUNTIME,
    )


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"runtime": "nobody"}, "RuntimeNotRecognized"),
        ({"modelFormat": {"name": "nobody"}}, "NoSupportingRuntime"),
        ({"protocolVersion": "grpc-v1"}, "NoSupportingRuntime"),
    ],
)
def test_a_model_without_a_runtime_says_why(target: Target, model: Object, reason: str) -> None:
    name = "homeless"
    target.apply(service(target, name, model=model))
    try:

        def info() -> Object:
            status = target.get("isvc", name).get("status", {}).get("modelStatus", {})
            assert status.get("transitionStatus", "InvalidSpec") == "InvalidSpec"
            found: Object = status.get("lastFailureInfo", {})
            return found

        wait_for(lambda: info().get("reason") == reason, reason, READY_TIMEOUT_S)
        assert target.condition("isvc", name, "Ready")[0] != "True"
        assert target.condition("isvc", name, "PredictorReady")[0] != "True"
    finally:
        target.delete(name)
