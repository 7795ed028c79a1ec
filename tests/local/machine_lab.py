"""A whole machine under test, driven as a user drives it: the `glowplug` command, the real kubectl, HTTP.

Clients here never retry: a failed request during a change must be seen.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx2
import psutil

from glowplug.local.datadir import DataDir

DEADLINE_S = 60.0
Object = dict[str, Any]
BIN = pathlib.Path(sys.executable).parent


def write_model(folder: pathlib.Path, *, features: int = 3, seed: int = 0) -> None:
    """Train a small regressor of the sum of `features` numbers between 0 and 1; written as `model.ubj`."""
    import numpy as np
    import xgboost

    rows = np.random.default_rng(seed).random((2000, features), dtype=np.float32)
    matrix = xgboost.DMatrix(rows, label=rows.sum(axis=1))
    booster = xgboost.train({"max_depth": 5, "eta": 0.3, "nthread": 1}, matrix, num_boost_round=40)
    folder.mkdir(parents=True, exist_ok=True)
    booster.save_model(folder / "model.ubj")


def inference_service(name: str, model: pathlib.Path | str, **predictor: Any) -> Object:
    """An XGBoost InferenceService; keywords go into `spec.predictor`."""
    uri = model.as_uri() if isinstance(model, pathlib.Path) else model
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": {"serving.kserve.io/deploymentMode": "Knative"}},
        "spec": {
            "predictor": {
                "model": {"modelFormat": {"name": "xgboost"}, "protocolVersion": "v2", "storageUri": uri},
                **predictor,
            }
        },
    }


def v2_body(rows: list[list[float]]) -> Object:
    """A V2 JSON request with one FP32 tensor."""
    flat = [value for row in rows for value in row]
    return {
        "inputs": [{"name": "input-0", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": flat}]
    }


class MachineLab:
    """A machine on free ports in a data directory of its own."""

    def __init__(self, data_dir: pathlib.Path) -> None:
        self.data_dir = data_dir
        self.directory = DataDir.at(data_dir)
        self.http = httpx2.Client(timeout=30, trust_env=False)

    @property
    def description(self) -> Object:
        described = self.directory.described()
        assert described is not None, "the machine does not run"
        return described

    @property
    def ingress(self) -> str:
        return str(self.description["urls"]["ingress"])

    def glowplug(
        self, *arguments: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """The command, against this machine."""
        environment = {**os.environ, "KUBECONFIG": str(self.directory.kubeconfig), "NO_COLOR": "1"}
        command = [sys.executable, "-m", "glowplug.cli.main", *arguments]
        ran = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            timeout=DEADLINE_S,
            check=False,
        )
        assert not check or ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
        return ran

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """The real kubectl, against this machine."""
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.directory.kubeconfig), *arguments]
        # The client's discovery cache must not outlive the machine that it is about.
        environment = {**os.environ, "KUBECACHEDIR": str(self.data_dir.parent / "kubecache")}
        ran = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            env=environment,
        )
        assert not check or ran.returncode == 0, f"kubectl {arguments}: {ran.stdout}{ran.stderr}"
        return ran

    def up(self, *arguments: str) -> None:
        self.glowplug(
            "up",
            "--detach",
            "--data-dir",
            str(self.data_dir),
            "--ingress-port",
            "0",
            "--api-port",
            "0",
            "--broker-port",
            "0",
            *arguments,
        )

    def down(self) -> None:
        self.glowplug("down", "--data-dir", str(self.data_dir))

    def close(self) -> None:
        """Stop what runs, and let the client's connections go."""
        self.down()
        self.http.close()

    def kill(self) -> None:
        """`kill -9` of the machine's own process."""
        pid = self.description["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.directory.holder() is None, "the killed machine to be gone")

    def processes(self) -> list[psutil.Process]:
        """Every process of the machine, the pods' own children included."""
        machine = psutil.Process(self.description["pid"])
        return [machine, *machine.children(recursive=True)]

    def apply(self, *objects: Object) -> None:
        """`kubectl apply` of `objects`."""
        self.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def get(self, kind: str, name: str = "", *arguments: str) -> Object:
        found: Object = json.loads(
            self.kubectl("get", kind, *([name] if name else []), *arguments, "-o", "json").stdout
        )
        return found

    def wait_ready(self, name: str) -> Object:
        """`kubectl wait` for the InferenceService; on failure the machine's own account of it is shown."""
        waited = self.kubectl("wait", "--for=condition=Ready", "--timeout=50s", f"isvc/{name}", check=False)
        if waited.returncode:
            raise AssertionError(f"{name} is not ready: {waited.stderr}\n{self.account()}")
        return self.get("isvc", name)

    def delete(self, name: str) -> None:
        """Delete the InferenceService and wait for its pods to go."""
        self.kubectl("delete", "isvc", name, "--ignore-not-found")
        label = f"-lserving.kserve.io/inferenceservice={name}"
        wait_for(lambda: not self.get("pods", "", label)["items"], f"the pods of {name} to go")

    def account(self) -> str:
        """What there is to see when something went wrong."""
        shown = [self.kubectl(*arguments.split(), check=False).stdout for arguments in (
            "get isvc,ksvc,revisions,pods -A -o wide", "get isvc -o yaml", "get events -A", "describe pods",
        )]  # fmt: skip
        log = self.directory.log.read_text(errors="replace") if self.directory.log.exists() else ""
        return "\n".join([*shown, log[-4000:]])

    def infer(self, name: str, rows: list[list[float]]) -> httpx2.Response:
        """A V2 call by path."""
        return self.http.post(
            f"{self.ingress}/serving/default/{name}/v2/models/{name}/infer", json=v2_body(rows)
        )


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """What `condition()` gives once it is true; an error that says what did not come."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {deadline_s:.0f} s for {what}"
        time.sleep(0.05)
    return found
