"""The cluster that is measured: kubectl, the gateway, what has to be there, and the processes behind its containers.

Its node is this computer (CPU is read from cgroups, `kill -9` is a signal to a process of this computer), so it is the
proving ground, or another cluster of one node whose processes are seen from here. $KUBECONFIG and $CONFORMANCE_GATEWAY
say where it is, as for tests/conformance; $BUNDLE_TAG is the tag of our images there, 0.1.0 unless set.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from benchmarks.environments import Absent

GATEWAY = "CONFORMANCE_GATEWAY"
REDIS_IMAGE = "CONFORMANCE_REDIS_IMAGE"
TAG = "BUNDLE_TAG"
ROOT = pathlib.Path(__file__).parent.parent
_IMAGES = "dev.local/glowplug"
_COMMAND_S = 120.0
_DEADLINE_S = 180.0
_HINT = "docs/cluster.md, section The numbers"
_NEEDED = (
    "crd/inferenceservices.serving.kserve.io",
    "crd/services.serving.knative.dev",
    "clusterservingruntimes/kserve-xgbserver",
)
Object = dict[str, Any]


@dataclass(frozen=True)
class Container:
    """One of a running pod's: `identity` is the runtime's, and part of its cgroup's name."""

    namespace: str
    pod: str
    name: str
    identity: str
    restarts: int
    is_ready: bool
    address: str


@dataclass(frozen=True)
class Cluster:
    """`gateway` is host:port, where the hosts of all services answer."""

    gateway: str
    tag: str

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        ran = subprocess.run(
            ["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )  # fmt: skip
        if check and ran.returncode != 0:
            raise Absent(f"kubectl {' '.join(arguments)[:120]}: {ran.stderr.strip()[:300]}")
        return ran.stdout

    def get(self, *arguments: str) -> Object:
        found: Object = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def apply(self, *objects: Object) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def image(self, name: str) -> str:
        """One of ours."""
        return f"{_IMAGES}/{name}:{self.tag}"

    def wait_ready(self, *services: str, namespace: str) -> None:
        """For InferenceServices of that namespace."""
        for name in services:
            self.kubectl("-n", namespace, "wait", f"isvc/{name}", "--for=condition=Ready", "--timeout=110s")

    def host(self, namespace: str, name: str) -> str:
        """What the gateway knows an InferenceService by."""
        return urlsplit(str(self.get("-n", namespace, "isvc", name)["status"]["url"])).netloc

    def containers(self, namespace: str, selector: str, name: str) -> list[Container]:
        """Those that run, of pods that stay."""
        return [
            Container(
                namespace,
                pod["metadata"]["name"],
                name,
                status["containerID"].rpartition("/")[2],
                status["restartCount"],
                status["ready"],
                pod["status"].get("podIP", ""),
            )
            for pod in self.get("-n", namespace, "pods", "-l", selector)["items"]
            if "deletionTimestamp" not in pod["metadata"]
            for status in pod["status"].get("containerStatuses", ())
            if status["name"] == name and "running" in status["state"]
        ]

    @contextmanager
    def namespace(self, name: str, models: pathlib.Path) -> Iterator[None]:
        """A namespace with the claim `models`; gone afterwards."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        try:
            with self.claim(name, models):
                yield
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", check=False)

    @contextmanager
    def claim(self, namespace: str, models: pathlib.Path) -> Iterator[None]:
        """The claim `models` of a namespace, on that folder of the node."""
        volume = f"{namespace}-models"
        claim = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        self.apply(
            {
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
                "spec": {
                    **claim, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(models)},
                    "claimRef": {"namespace": namespace, "name": "models"},
                },
            },
            {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"namespace": namespace, "name": "models"},
                "spec": {**claim, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
            },
        )  # fmt: skip
        try:
            # A revision whose pod cannot be scheduled at once has failed for good.
            bound = "--for=jsonpath={.status.phase}=Bound"
            self.kubectl("-n", namespace, "wait", "pvc/models", bound, "--timeout=110s")
            yield
        finally:
            self.kubectl("-n", namespace, "delete", "pvc", "models", "--wait=false", check=False)
            self.kubectl("delete", "pv", volume, "--wait=false", check=False)


def find() -> Cluster:
    """The cluster of the environment. Raises `Absent` with what is missing and what to do."""
    if shutil.which("kubectl") is None:
        raise Absent(f"there is no kubectl; hint: {_HINT}")
    address = urlsplit(os.environ.get(GATEWAY, "")).netloc
    if not os.environ.get("KUBECONFIG") or not address:
        raise Absent(
            f"no cluster: $KUBECONFIG and ${GATEWAY} (such as http://127.0.0.1:31080) say which; hint: {_HINT}"
        )
    found = Cluster(address, os.environ.get(TAG, "0.1.0"))
    found.kubectl("version")
    for each in _NEEDED:
        found.kubectl("get", each)
    nodes = found.get("nodes")["items"]
    if len(nodes) != 1 or not _runs_here(found):
        raise Absent(f"the cluster's node is not this computer, whose processes are measured; hint: {_HINT}")
    return found


def _runs_here(cluster: Cluster) -> bool:
    return any(
        process_of(each) for each in cluster.containers("knative-serving", "app=activator", "activator")
    )


def process_of(container: Container) -> int:
    """The process id, on this computer, of a container's first process; 0 where it is not to be seen."""
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if container.identity not in (folder / "cgroup").read_text():
                continue
            status = (folder / "status").read_text()
        except OSError:
            continue
        inner = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
        if inner.split()[-1:] == ["1"]:
            return int(folder.name)
    return 0


def kill(container: Container) -> None:
    """`kill -9` of the container's first process, from outside."""
    process = process_of(container)
    if not process:
        raise Absent(f"{container.namespace}/{container.pod}: no process of {container.name} is seen here")
    os.kill(process, signal.SIGKILL)


def cpu_s(container: Container) -> float:
    """What the container's processes have used so far, by their cgroup."""
    process = process_of(container)
    for line in pathlib.Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            usage = pathlib.Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage")
            if usage.exists():
                return int(usage.read_text()) / 1e9
        stat = pathlib.Path(f"/sys/fs/cgroup{path}/cpu.stat")
        if not controllers and stat.exists():
            return int(dict(each.split() for each in stat.read_text().splitlines())["usage_usec"]) / 1e6
    raise Absent(f"the CPU time of {container.pod} is in no cgroup that is known here")


def wait_for(condition: Callable[[], object], what: str, every_s: float = 0.2) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_DEADLINE_S:.0f} s for {what}")
        time.sleep(every_s)


def runtime(cluster: Cluster, namespace: str) -> Object:
    """Our XGBoost runtime for one namespace, with the image under test and requests that fit a small node."""
    found: Object = yaml.safe_load((ROOT / "predictors/xgboost/runtime.yaml").read_text())
    found["kind"], found["metadata"]["namespace"] = "ServingRuntime", namespace
    (container,) = found["spec"]["containers"]
    container["image"] = cluster.image("xgboost")
    container["resources"]["requests"] = {"cpu": "20m", "memory": "128Mi"}
    return found


def service(
    namespace: str, name: str, model_runtime: str, annotations: Object | None = None, **predictor: Any
) -> Object:
    """An InferenceService of `pvc://models/xgboost` by that runtime."""
    model = {
        "runtime": model_runtime,
        "modelFormat": {"name": "xgboost", "version": "2"},
        "protocolVersion": "v2",
        "storageUri": "pvc://models/xgboost",
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"serving.kserve.io/deploymentMode": "Knative", **(annotations or {})},
        },
        "spec": {"predictor": {"model": model, **predictor}},
    }


def load_average() -> str:
    """For the notes: what else this computer did."""
    return "load average " + ", ".join(f"{each:.1f}" for each in os.getloadavg())


def first_ready(found: Sequence[Container], what: str) -> Container:
    """Raises `Absent` where none is."""
    ready = next((each for each in found if each.is_ready), None)
    if ready is None:
        raise Absent(f"no {what} is ready")
    return ready
