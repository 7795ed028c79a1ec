"""What the cases run against: a local machine or a cluster, by the same kubectl, HTTP and gRPC clients.

Nothing here knows how either of them works; what a case sees is what kubectl and a request see. Clients never retry.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx2
from local.machine_lab import v2_body, wait_for
from local.machine_load import CHANNEL, INFER, infer_message

from glowplug.wire import v2_grpc

Object = dict[str, Any]
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"
COMMAND_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 120.0
ROW = [[0.1, 0.2, 0.3]]
AUTOSCALING = "autoscaling.knative.dev"
POD_AUTOSCALER = "podautoscalers.autoscaling.internal.knative.dev"
# Knative's shortest: a case need not wait a minute for a scale to go down.
WINDOW = {f"{AUTOSCALING}/window": "6s"}


@dataclass(frozen=True)
class Target:
    """A Kubernetes API with KServe behind it. `gateway` answers for the host in `status.url`; None: that URL itself."""

    name: str
    kubeconfig: pathlib.Path
    namespace: str
    gateway: str | None
    model_uri: str
    cache: pathlib.Path
    http: httpx2.Client = field(
        default_factory=lambda: httpx2.Client(timeout=REQUEST_TIMEOUT_S, trust_env=False)
    )

    @property
    def is_local(self) -> bool:
        return self.name == "local"

    def command(self, *arguments: str) -> list[str]:
        """A command line of the real kubectl."""
        return [str(KUBECTL), "--kubeconfig", str(self.kubeconfig), "-n", self.namespace, *arguments]

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """The real kubectl. Whether it worked is asserted, unless `check` is false."""
        ran = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S + READY_TIMEOUT_S,
            check=False,
            env={**os.environ, "KUBECACHEDIR": str(self.cache)},
        )
        assert not check or ran.returncode == 0, f"kubectl {arguments}: {ran.stdout}{ran.stderr}"
        return ran

    def get(self, kind: str, name: str = "", *arguments: str) -> Object:
        shown = self.kubectl("get", kind, *([name] if name else []), *arguments, "-o", "json").stdout
        found: Object = json.loads(shown)
        return found

    def apply(self, service: Object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(service), check=check)

    def wait_ready(self, name: str) -> None:
        """`kubectl wait`; on failure the objects and the output of the pods are shown."""
        self.wait(f"isvc/{name}")

    def wait(self, *objects: str, condition: str = "Ready") -> None:
        """`kubectl wait` for all of `KIND/NAME`."""
        arguments = (f"--for=condition={condition}", f"--timeout={READY_TIMEOUT_S:.0f}s", *objects)
        waited = self.kubectl("wait", *arguments, check=False)
        seen = "" if waited.returncode == 0 else self.account(objects[0].rpartition("/")[2])
        assert waited.returncode == 0, f"{objects} are not {condition}: {waited.stderr}\n{seen}"

    def delete(self, name: str) -> None:
        """Delete the InferenceService and wait for its pods to be on their way."""
        self.kubectl("delete", "isvc", name, "--ignore-not-found")
        wait_for(lambda: not self.pods(name), f"the pods of {name} to go", READY_TIMEOUT_S)

    def pods(self, name: str) -> list[Object]:
        """Those that are not being deleted."""
        listed = self.get("pods", "", f"-lserving.kserve.io/inferenceservice={name}")["items"]
        return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]

    def revisions(self, name: str) -> list[str]:
        listed = self.get("revisions", "", f"-lserving.knative.dev/configuration={name}-predictor")["items"]
        return sorted(revision["metadata"]["name"] for revision in listed)

    def scale(self, revision: str) -> tuple[int, int]:
        """Desired and actual, as the PodAutoscaler says; -1 where it does not know."""
        status = self.get(POD_AUTOSCALER, revision).get("status", {})
        return status.get("desiredScale", -1), status.get("actualScale", -1)

    def condition(self, kind: str, name: str, condition: str) -> tuple[str, str]:
        """A condition's status and reason; Unknown where it is not there."""
        listed = self.get(kind, name).get("status", {}).get("conditions", [])
        found: Object = next((each for each in listed if each["type"] == condition), {})
        return found.get("status", "Unknown"), found.get("reason", "")

    def account(self, name: str) -> str:
        """What there is to see when something went wrong."""
        return "\n".join(
            self.kubectl(*arguments.split(), check=False).stdout
            for arguments in (
                "get isvc,ksvc,revisions,pods -o wide",
                f"get {POD_AUTOSCALER} -o yaml",
                f"get isvc {name} -o yaml",
                "get brokers,triggers,jobsinks,jobs -o yaml",
                "get events",
                f"logs -lserving.kserve.io/inferenceservice={name} -c kserve-container --tail=20",
            )
        )

    def address(self, name: str) -> tuple[str, str]:
        """The URL that a request goes to, and the Host header that it carries."""
        url = str(self.get("isvc", name)["status"]["url"]).rstrip("/")
        parts = urlsplit(url)
        return (url if self.gateway is None else self.gateway + parts.path), parts.netloc

    def infer(self, name: str) -> httpx2.Response:
        """A V2 call of one row, in JSON."""
        url, host = self.address(name)
        return self.http.post(f"{url}/v2/models/{name}/infer", json=v2_body(ROW), headers={"Host": host})

    def infer_grpc(self, name: str) -> list[float]:
        """The same call over gRPC; grpc.RpcError where it fails."""
        url, host = self.address(name)
        parts = urlsplit(url)
        options = [*CHANNEL, ("grpc.default_authority", host)]
        with grpc.insecure_channel(parts.netloc, options=options) as channel:
            raw = channel.unary_unary(parts.path + INFER)(infer_message(name), timeout=REQUEST_TIMEOUT_S)
        (output,) = v2_grpc.decode_infer_response(raw).outputs
        return [float(value) for value in output.as_numpy()]

    def at_once(self, name: str, count: int) -> list[int]:
        """The statuses of `count` calls that are sent together."""
        url, host = self.address(name)

        def ask(_: int) -> int:
            with httpx2.Client(timeout=REQUEST_TIMEOUT_S, trust_env=False) as client:
                target = f"{url}/v2/models/{name}/infer"
                return client.post(target, json=v2_body(ROW), headers={"Host": host}).status_code

        with ThreadPoolExecutor(count) as executor:
            return list(executor.map(ask, range(count)))

    @contextmanager
    def load(self, name: str, clients: int) -> Iterator[list[str]]:
        """`clients` that ask without pause for as long as the block runs; what failed."""
        url, host = self.address(name)
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
                    if answer.status_code != 200:
                        failures.append(f"{answer.status_code} {answer.text}")

        with ThreadPoolExecutor(clients) as executor:
            asking = [executor.submit(ask) for _ in range(clients)]
            try:
                yield failures
            finally:
                is_over.set()
            for task in asking:
                task.result()


def service(target: Target, name: str, annotations: dict[str, str] | None = None, **predictor: Any) -> Object:
    """An XGBoost InferenceService; keywords go into `spec.predictor`, those of `model` into its model."""
    model = {
        "modelFormat": {"name": "xgboost"},
        "protocolVersion": "v2",
        "storageUri": target.model_uri,
        # Several of them have to fit on one small node.
        "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}},
        **predictor.pop("model", {}),
    }
    every = {"serving.kserve.io/deploymentMode": "Knative", **WINDOW, **(annotations or {})}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": every},
        "spec": {"predictor": {"model": model, **predictor}},
    }
