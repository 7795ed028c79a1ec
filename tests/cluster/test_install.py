"""`manifests/install` and `glowplug doctor --context` against a real API server, from nothing to everything.

Upstream's releases come from this computer; that is all that is different in the copy of `manifests/` that is run.
There is no node: whether the controllers then work is what tests/conformance asks. One server, taken through its
stages in order.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest
from cluster.api_server import ApiServer, api_server, assets, controllers
from cluster.releases import GITHUB, mirror
from contract.manifests_lab import KUBECTL, MANIFESTS
from local.machine_lab import wait_for

pytestmark = pytest.mark.timeout(1800)
# On two busy cores KServe's definitions alone, 7 MB, take a minute to be read.
RUN_S = 600
MANAGER = "/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager"
EVENTING_HOOK = "validation.webhook.eventing.knative.dev"
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
LAYERS = (
    "cert-manager 1.17.0",
    "knative-serving 1.21.1",
    "knative-eventing 1.21.1",
    "kserve 0.20.0",
    "kserve-runtimes 0.20.0",
)
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}}


class Bench:
    """The copy of `manifests/`, and how it is run."""

    def __init__(self, server: ApiServer, manifests: pathlib.Path) -> None:
        self.server = server
        self.manifests = manifests

    def command(self, *arguments: str) -> list[str]:
        return [str(self.manifests / "install"), "--overlay", "none", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{KUBECTL.parent}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.server.kubeconfig),
            "KUBECACHEDIR": str(self.manifests.parent / "cache"),
            "NO_COLOR": "1",
        }

    def install(self, *arguments: str, code: int = 0) -> str:
        """What it said."""
        return self._run(self.command(*arguments), code)

    def doctor(self, *arguments: str, code: int) -> str:
        command = [sys.executable, "-m", "glowplug.cli.main", "doctor", "--context", "admin", *arguments]
        return " ".join(self._run(command, code).split())

    def _run(self, command: list[str], code: int) -> str:
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, env=self.environment, start_new_session=True
            )
            try:
                process.wait(RUN_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            out.seek(0)
            said = out.read()
        assert process.returncode == code, said
        return said


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    binaries, folder = assets(), tmp_path_factory.mktemp("cluster")
    with mirror() as address, api_server(binaries, folder) as server:
        shutil.copytree(MANIFESTS, folder / "manifests")
        for path in (folder / "manifests/platform/controllers").rglob("kustomization.yaml"):
            path.write_text(path.read_text().replace(GITHUB, address))
        yield Bench(server, folder / "manifests")


def test_an_empty_cluster(bench: Bench) -> None:
    said = bench.doctor("--gpus", code=1)
    for kind in ("Knative Serving", "KServe"):
        assert f"{kind} is not installed" in said
    assert "`manifests/install` brings it" in said
    assert "nvidia.com/gpu" in said
    planned = bench.install("--dry-run")
    for layer in LAYERS:
        assert f"{layer}: not there" in planned
    assert "nothing was changed" in planned
    assert not bench.server.get("/apis/apps/v1/deployments")["items"]
    refused = bench.install("--context", "nobody", code=1)
    assert "you may not create customresourcedefinitions" in refused and "hint:" in refused


def test_controllers_that_do_not_start_are_told(bench: Bench) -> None:
    said = bench.install("--timeout", "3", code=1)
    assert "cert-manager is not ready after 3 s" in said
    assert "kubectl describe pods -n cert-manager" in said


def test_killed_in_every_layer_it_is_finished_by_the_next_run(bench: Bench) -> None:
    """kill -9 of it and of the kubectl that it runs, as soon as the first object of a layer is there."""
    with controllers(bench.server):
        for space in ("knative-serving", "knative-eventing", "kserve"):
            process = subprocess.Popen(
                bench.command(), env=bench.environment, start_new_session=True, stderr=subprocess.DEVNULL
            )
            try:
                wait_for(lambda space=space: _has_space(bench.server, space), f"namespace {space}", RUN_S)
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert "is not installed" in bench.doctor(code=1)
        said = bench.install()
    for layer in LAYERS[3:]:
        assert f"✓ {layer}" in said
    assert "✓ configuration of Knative and KServe" in said
    for layer in LAYERS[:2]:
        assert f"✓ {layer} is there" in said
    # What KServe's release says beside our keys is still there.
    config = bench.server.get("/api/v1/namespaces/kserve/configmaps/inferenceservice-config")["data"]
    assert {"inferenceService", "ingress", "storageInitializer", "logger", "agent"} <= config.keys()
    storage = bench.server.get("/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers/default")
    assert storage["spec"]["supportedUriFormats"]
    healthy = bench.doctor(code=0)
    assert "Knative Serving 1.21.1" in healthy and "KServe v0.20.0" in healthy


def test_the_second_run_changes_nothing(bench: Bench) -> None:
    before = _versions(bench.server)
    with controllers(bench.server):
        said = bench.install()
    for layer in LAYERS[1:4]:
        assert f"✓ {layer} is there" in said
    assert _versions(bench.server) == before


def test_what_is_half_there_is_finished(bench: Bench) -> None:
    bench.server.delete(f"{HOOKS}/{EVENTING_HOOK}")
    with controllers(bench.server):
        said = bench.install()
    assert "knative-eventing 1.21.1: half there, without validatingwebhookconfiguration/" in said
    assert bench.server.get(f"{HOOKS}/{EVENTING_HOOK}")


def test_an_older_kserve(bench: Bench) -> None:
    old = [{"name": "manager", "image": "kserve/kserve-controller:v0.15.2"}]
    kubectl = [str(KUBECTL), "-n", "kserve", "set", "image", "deployment/kserve-controller-manager"]
    subprocess.run([*kubectl, f"manager={old[0]['image']}"], check=True, env=bench.environment)
    with controllers(bench.server):
        said = bench.install(code=1)
        assert "kserve 0.15.2 is older than 0.20.0" in said and "--upgrade" in said
        told = bench.doctor(code=1)
        assert "KServe v0.15.2 is older than 0.20" in told and "`manifests/install --upgrade`" in told
        said = bench.install("--upgrade")
    assert "kserve 0.15.2: upgrading to 0.20.0" in said and "✓ kserve 0.20.0" in said
    assert "KServe v0.20.0" in bench.doctor(code=0)


def test_another_ingress_is_left_alone(bench: Bench) -> None:
    config = "/api/v1/namespaces/knative-serving/configmaps/config-network"
    bench.server.patch(config, {"data": {"ingress-class": "istio.ingress.networking.knative.dev"}})
    with controllers(bench.server):
        said = bench.install(code=1)
        assert "Knative's ingress here is istio" in said and "--no-configs" in said
        assert "✓ configuration left as it is" in bench.install("--no-configs")


def test_gpus(bench: Bench) -> None:
    assert "nvidia.com/gpu" in bench.doctor("--gpus", code=1)
    bench.server.create("/api/v1/nodes", NODE)
    capacity = {"nvidia.com/gpu": "1"}
    bench.server.patch(
        "/api/v1/nodes/one/status", {"status": {"capacity": capacity, "allocatable": capacity}}
    )
    assert "✓" in bench.doctor("--gpus", code=0)


def _has_space(server: ApiServer, name: str) -> bool:
    return any(each["metadata"]["name"] == name for each in server.get("/api/v1/namespaces")["items"])


def _versions(server: ApiServer) -> dict[str, int]:
    """What is written into an object's specification counts its generation up."""
    return {
        f"{each['metadata']['namespace']}/{each['metadata']['name']}": each["metadata"]["generation"]
        for each in server.get("/apis/apps/v1/deployments")["items"]
    }
