"""A real Kubernetes API server with nothing behind it: etcd and kube-apiserver of a folder, as envtest has them.

$KUBEBUILDER_ASSETS names the folder (`setup-envtest use -p path`, or `bin` of a cluster's own). No node, no controller:
what those would do, a case does itself, or `Controllers` here, which make Deployments available and let writes pass by
webhooks that nobody serves.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from local.machine_lab import wait_for

Object = dict[str, Any]
ASSETS = "KUBEBUILDER_ASSETS"
ADMIN, NOBODY = "admin-token", "nobody-token"
STARTED_S = 120.0
STOPPED_S = 20.0
STEP_S = 0.2
_HOOKS = "/apis/admissionregistration.k8s.io/v1"
_MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True)
class ApiServer:
    """`kubeconfig` has the contexts `admin`, who may do everything, and `nobody`, who may do nothing."""

    url: str
    kubeconfig: pathlib.Path
    http: httpx2.Client

    def get(self, path: str) -> Object:
        answer = self.http.get(self.url + path)
        assert answer.status_code == 200, answer.text
        found: Object = answer.json()
        return found

    def create(self, path: str, *objects: Object) -> None:
        for each in objects:
            answer = self.http.post(self.url + path, json=each)
            assert answer.status_code == 201, answer.text

    def patch(self, path: str, change: Object) -> int:
        return self.http.patch(self.url + path, content=json.dumps(change), headers=_MERGE).status_code

    def delete(self, path: str) -> None:
        answer = self.http.delete(self.url + path)
        assert answer.status_code == 200, answer.text


def assets() -> pathlib.Path:
    """Skips the case where there are none."""
    folder = pathlib.Path(os.environ.get(ASSETS, "/nowhere"))
    if not all((folder / name).exists() for name in ("etcd", "kube-apiserver")):
        pytest.skip(f"${ASSETS} names no folder with etcd and kube-apiserver")
    return folder


@contextmanager
def api_server(binaries: pathlib.Path, folder: pathlib.Path) -> Iterator[ApiServer]:
    """Answers when the block begins; its state is in the folder."""
    peer, client, port = free_port(), free_port(), free_port()
    key = folder / "sa.key"
    key.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    (folder / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n{NOBODY},nobody,2\n')
    etcd = [
        *(binaries / "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync"),
        *("--listen-client-urls", f"http://127.0.0.1:{client}"),
        *("--advertise-client-urls", f"http://127.0.0.1:{client}"),
        *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-cluster", f"default=http://127.0.0.1:{peer}"),
    ]
    server = [
        *(binaries / "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{client}"),
        *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", str(port)),
        *("--cert-dir", folder / "certificates", "--service-cluster-ip-range", "10.97.0.0/16"),
        *("--authorization-mode", "RBAC", "--token-auth-file", folder / "tokens.csv", "--profiling=false"),
        *("--service-account-issuer", "https://kubernetes.default.svc"),
        *("--service-account-key-file", key, "--service-account-signing-key-file", key),
    ]
    url = f"https://127.0.0.1:{port}"
    with ExitStack() as stack:
        for command in (etcd, server):
            process = stack.enter_context(_process(list(map(str, command)), folder))
        http = stack.enter_context(
            httpx2.Client(
                verify=False, trust_env=False, timeout=30, headers={"Authorization": f"Bearer {ADMIN}"}
            )
        )
        wait_for(lambda: process.poll() is not None or _is_up(http, url), "the API server", STARTED_S)
        assert process.poll() is None, (folder / "kube-apiserver.log").read_text()[-4000:]
        (folder / "kubeconfig").write_text(json.dumps(_kubeconfig(url)))
        yield ApiServer(url, folder / "kubeconfig", http)


@contextmanager
def controllers(server: ApiServer) -> Iterator[None]:
    """What a cluster's own would do: see the module."""
    is_over = threading.Event()

    def run() -> None:
        with httpx2.Client(
            verify=False, trust_env=False, timeout=30, headers={"Authorization": f"Bearer {ADMIN}"}
        ) as http:
            own = ApiServer(server.url, server.kubeconfig, http)
            while not is_over.wait(STEP_S):
                try:
                    _make_available(own)
                    _let_pass(own)
                except httpx2.TimeoutException:
                    continue  # a busy computer: the next round sees what is left

    thread = threading.Thread(target=run, name="controllers")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _make_available(server: ApiServer) -> None:
    for each in server.get("/apis/apps/v1/deployments")["items"]:
        metadata, count = each["metadata"], each["spec"]["replicas"]
        wanted = {
            "observedGeneration": metadata["generation"],
            **dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count),
        }
        if wanted.items() <= each.get("status", {}).items():
            continue
        path = f"/apis/apps/v1/namespaces/{metadata['namespace']}/deployments/{metadata['name']}/status"
        server.patch(path, {"status": wanted})


def _let_pass(server: ApiServer) -> None:
    for kind in ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"):
        for each in server.get(f"{_HOOKS}/{kind}")["items"]:
            hooks = each.get("webhooks", [])
            # Nobody answers at a Service's address: a call would last as long as it may.
            if any(hook.get("rules") for hook in hooks):
                silent = [{**hook, "rules": []} for hook in hooks]
                server.patch(f"{_HOOKS}/{kind}/{each['metadata']['name']}", {"webhooks": silent})


def _is_up(http: httpx2.Client, url: str) -> bool:
    try:
        return http.get(f"{url}/readyz").status_code == 200
    except httpx2.HTTPError:
        return False


def _kubeconfig(url: str) -> Object:
    users = {"admin": ADMIN, "nobody": NOBODY}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "admin",
        "clusters": [{"name": "bare", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": name, "user": {"token": token}} for name, token in users.items()],
        "contexts": [{"name": name, "context": {"cluster": "bare", "user": name}} for name in users],
    }


@contextmanager
def _process(command: list[str], folder: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{pathlib.Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOPPED_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
