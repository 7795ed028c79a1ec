"""The same cases on a local machine of their own (the default) and on a cluster.

    pytest tests/conformance
    pytest tests/conformance --target=cluster --gateway=http://127.0.0.1:31080 --model-uri=pvc://models/xgb

A cluster is that of $KUBECONFIG, with KServe on Knative and `kubectl apply -k predictors/xgboost` done. `--gateway` (or
$CONFORMANCE_GATEWAY) answers for the hosts of its services; without it they have to resolve. `--model-uri` (or
$CONFORMANCE_MODEL_URI) is a storageUri that the cluster can read, of a folder made by
`python -m conformance.model FOLDER` with `tests` on PYTHONPATH. The namespace is `--namespace`, else `conformance`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from conformance.recorder import Recorder, recorder
from conformance.target import Object, Target
from local.machine_lab import MachineLab, write_model

TARGETS = ("local", "cluster")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--target", choices=TARGETS, default="local", help="what the cases run against")
    group.addoption("--gateway", help="where the cluster's hosts answer, e.g. http://127.0.0.1:31080")
    group.addoption("--model-uri", help="a storageUri of the cases' model that the cluster can read")
    group.addoption("--record", action="store_true", help="write what statuses are expected from the target")
    group.addoption("--namespace", default="conformance", help="of the cluster")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    # Where all tests run, pytest has read its options before it comes to this file: there the defaults hold.
    with ExitStack() as stack:
        cache = tmp_path_factory.mktemp("kubecache")
        if request.config.getoption("--target", "local") == "local":
            found = _local(stack, tmp_path_factory.mktemp("conformance"), cache)
        else:
            found = _cluster(request.config, cache)
        stack.callback(found.http.close)
        yield found


@pytest.fixture
def served(target: Target) -> Iterator[Callable[[Object], str]]:
    """Apply an InferenceService, wait for it, give its name; it is deleted after the test."""
    names: list[str] = []

    def apply(service: Object) -> str:
        name = str(service["metadata"]["name"])
        names.append(name)
        target.apply(service)
        target.wait_ready(name)
        return name

    yield apply
    for name in names:
        target.delete(name)


@pytest.fixture(scope="session")
def sink(target: Target) -> Iterator[Recorder]:
    """One for all cases: events are told apart by their types and paths."""
    with recorder(target, "recorder") as found:
        yield found


def _local(stack: ExitStack, folder: pathlib.Path, cache: pathlib.Path) -> Target:
    lab = MachineLab(folder / "data")
    stack.callback(lab.close)
    write_model(folder / "model")
    lab.up()
    # A setting that a cluster has too; its default of 30 s would be most of the time that the cases take.
    metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
    lab.kubectl("create", "namespace", "knative-serving", check=False)
    lab.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"scale-to-zero-grace-period": "6s"},
        }
    )
    return Target("local", lab.directory.kubeconfig, "default", None, (folder / "model").as_uri(), cache)


def _cluster(config: pytest.Config, cache: pathlib.Path) -> Target:
    given = {
        "--gateway": config.getoption("--gateway") or os.environ.get("CONFORMANCE_GATEWAY"),
        "--model-uri": config.getoption("--model-uri") or os.environ.get("CONFORMANCE_MODEL_URI"),
    }
    if not given["--model-uri"]:
        pytest.exit(
            "--target=cluster needs --model-uri, a storageUri that the cluster can read", returncode=2
        )
    kubeconfig = pathlib.Path(os.environ.get("KUBECONFIG", "~/.kube/config")).expanduser()
    gateway = given["--gateway"]
    found = Target(
        "cluster",
        kubeconfig,
        config.getoption("--namespace"),
        gateway.rstrip("/") if gateway else None,
        given["--model-uri"],
        cache,
    )
    found.kubectl("create", "namespace", found.namespace, check=False)
    return found
