"""A machine of its own for a benchmark: free ports, a temporary data directory, a small real XGBoost model."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np

from glowplug.cli.kube import Cluster, connect

FEATURES = 50
TREES = 100
_DEADLINE_S = 60.0
_ISVC = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"


@dataclass(frozen=True)
class Lab:
    """A running machine: its API, its ingress URL, the process ids of what belongs to it."""

    cluster: Cluster
    ingress: str
    processes: dict[str, int]
    model_dir: pathlib.Path

    def create(self, name: str, *, initial_scale: int = 1) -> None:
        """Create an XGBoost InferenceService on the lab's model; see `allow_zero` for an initial scale of 0."""
        annotations = {"serving.kserve.io/deploymentMode": "Knative"}
        if initial_scale != 1:
            annotations["autoscaling.knative.dev/initial-scale"] = str(initial_scale)
        service = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "predictor": {
                    "minReplicas": initial_scale,
                    "model": {
                        "modelFormat": {"name": "xgboost"},
                        "protocolVersion": "v2",
                        "storageUri": self.model_dir.as_uri(),
                    },
                }
            },
        }
        self.cluster.request("POST", _ISVC, body=json.dumps(service).encode(), headers=_JSON)

    def allow_zero(self) -> None:
        """Lets services start without a pod, as an operator would: in the ConfigMap config-autoscaler."""
        for path, document in (
            ("/api/v1/namespaces", {"kind": "Namespace", "metadata": {"name": "knative-serving"}}),
            (
                "/api/v1/namespaces/knative-serving/configmaps",
                {
                    "kind": "ConfigMap",
                    "metadata": {"name": "config-autoscaler"},
                    "data": {"allow-zero-initial-scale": "true"},
                },
            ),
        ):
            body = json.dumps({"apiVersion": "v1", **document}).encode()
            self.cluster.request("POST", path, body=body, headers=_JSON)

    def delete(self, name: str) -> None:
        """Delete the InferenceService and wait until its pods are gone."""
        self.cluster.request("DELETE", f"{_ISVC}/{name}")
        pods = "/api/v1/namespaces/default/pods"
        label = f"serving.kserve.io/inferenceservice={name}"
        wait_for(
            lambda: not self.cluster.get(pods, labelSelector=label)["items"], f"the pods of {name} to go"
        )

    def url(self, name: str) -> str:
        """Where the InferenceService answers."""
        return f"{self.ingress}/serving/default/{name}"

    def wait_until_served(self, client: httpx2.Client, name: str) -> None:
        """Poll with a real inference call until it is answered with 200."""

        def is_served() -> bool:
            return predict(client, self.url(name), name).status_code == 200

        wait_for(is_served, f"{name} to answer", every_s=0.005)


_JSON = {"Content-Type": "application/json"}


def body() -> bytes:
    """A V2 JSON request of one row."""
    row = [round(0.01 * i, 2) for i in range(FEATURES)]
    tensor = {"name": "input-0", "shape": [1, FEATURES], "datatype": "FP32", "data": row}
    return json.dumps({"inputs": [tensor]}).encode()


def predict(client: httpx2.Client, url: str, model: str) -> httpx2.Response:
    """One inference call."""
    return client.post(f"{url}/v2/models/{model}/infer", content=body(), headers=_JSON)


def wait_for(condition: Any, what: str, *, every_s: float = 0.02) -> None:
    """Wait until `condition()` is true; TimeoutError names what did not come."""
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_DEADLINE_S:.0f} s for {what}")
        time.sleep(every_s)


def write_model(directory: pathlib.Path) -> None:
    """Train 100 trees of depth 6 on 50 random features: the model that the serving comparisons use."""
    import xgboost

    generator = np.random.default_rng(0)
    rows = generator.random((5000, FEATURES), dtype=np.float32)
    target = rows[:, :10].sum(axis=1) + generator.normal(0, 0.1, 5000)
    booster = xgboost.train(
        {"max_depth": 6, "nthread": 2}, xgboost.DMatrix(rows, label=target), num_boost_round=TREES
    )
    directory.mkdir(parents=True, exist_ok=True)
    booster.save_model(directory / "model.ubj")


@contextlib.contextmanager
def lab(*flags: str) -> Iterator[Lab]:
    """Start a machine on free ports, with more `flags` of `glowplug up`; stopped with everything of it at the end."""
    with tempfile.TemporaryDirectory(prefix="glowplug-bench-") as folder:
        root = pathlib.Path(folder)
        write_model(root / "model")
        data_dir = root / "data"
        glowplug = [sys.executable, "-m", "glowplug.cli.main"]
        where = ["--data-dir", str(data_dir)]
        subprocess.run(
            [
                *glowplug,
                "up",
                "--detach",
                "--ingress-port",
                "0",
                "--api-port",
                "0",
                "--broker-port",
                "0",
                *flags,
                *where,
            ],
            check=True,
        )
        try:
            description = json.loads((data_dir / "machine.json").read_text())
            yield Lab(
                connect(data_dir / "kubeconfig", None, None),
                description["urls"]["ingress"],
                description["processes"],
                root / "model",
            )
        finally:
            subprocess.run([*glowplug, "down", *where], check=True)
