"""What kubectl makes of our OpenAPI: the real binary against a server that has nothing but discovery and OpenAPI."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from glowplug.apiserver.openapi import OpenAPI
from glowplug.apiserver.schema import Schemas
from glowplug.spec import kinds
from glowplug.spec.kinds import KINDS, Kind

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: default}\ndata: {a: b}\n"
ISVC = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: flights, namespace: default}
spec: {predictor: {model: {modelFormat: {name: xgboost}, storageUri: "pvc://models/flights"}}}
"""


def _resource(kind: Kind) -> dict[str, Any]:
    return {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.is_namespaced,
        "kind": kind.name,
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        "shortNames": list(kind.short_names),
    }


class _Server:
    """Answers discovery and OpenAPI, keeps objects that are posted, and remembers what it was asked."""

    def __init__(self, openapi: OpenAPI) -> None:
        self.openapi = openapi
        self.asked: list[str] = []
        self.objects: dict[str, dict[str, Any]] = {}
        self.patch_types: list[str] = []

    def get(self, path: str) -> tuple[int, bytes]:
        parts = path.strip("/").split("/")
        if path == "/openapi/v3":
            return 200, self.openapi.v3_index()
        if path.startswith("/openapi/v3/"):
            body = self.openapi.v3(path.removeprefix("/openapi/v3/"))
            return (200, body) if body is not None else (404, b"{}")
        if path == "/api":
            return 200, json.dumps({"kind": "APIVersions", "versions": ["v1"]}).encode()
        if path == "/apis":
            return 200, json.dumps(
                {"kind": "APIGroupList", "apiVersion": "v1", "groups": self._groups()}
            ).encode()
        group_version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
        if len(parts) == (2 if parts[0] == "api" else 3):
            resources = [_resource(kind) for kind in KINDS if kind.api_version == group_version]
            body = {"kind": "APIResourceList", "groupVersion": group_version, "resources": resources}
            return 200, json.dumps(body).encode()
        if path in self.objects:
            return 200, json.dumps(self.objects[path]).encode()
        missing = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": "NotFound",
            "code": 404,
        }
        return 404, json.dumps(missing).encode()

    def _groups(self) -> list[dict[str, Any]]:
        versions = sorted({(kind.group, kind.version) for kind in KINDS if kind.group})
        return [
            {
                "name": group,
                "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
            }
            for group, version in versions
        ]

    def write(self, path: str, body: bytes, content_type: str, is_patch: bool) -> tuple[int, bytes]:
        if is_patch:
            self.patch_types.append(content_type)
            return 200, json.dumps(self.objects[path]).encode()
        obj = json.loads(body)
        obj["metadata"].update(uid="1", resourceVersion="1")
        self.objects[f"{path}/{obj['metadata']['name']}"] = obj
        return 201, json.dumps(obj).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[_Server, str]]:
    answers = _Server(OpenAPI(Schemas.load()))

    class Handler(BaseHTTPRequestHandler):
        def _send(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            answers.asked.append(self.path)
            self._send(*answers.get(self.path.split("?")[0]))

        def _write(self) -> None:
            answers.asked.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            content_type = self.headers["Content-Type"]
            self._send(*answers.write(self.path.split("?")[0], body, content_type, self.command == "PATCH"))

        do_POST = do_PATCH = _write

        def log_message(self, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, name="openapi", daemon=True)
    thread.start()
    yield answers, f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def _kubectls() -> list[str]:
    """The kubectl of the environment, and another one that this computer may have: old and new ask differently."""
    beside = Path(sys.executable).parent / "kubectl"
    found = [str(beside)] if beside.exists() else []
    system = shutil.which("kubectl", path="/usr/bin:/usr/local/bin")
    return found + ([system] if system and system not in found else [])


@pytest.fixture(scope="module", params=_kubectls())
def kubectl(
    request: pytest.FixtureRequest, server: tuple[_Server, str], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    home = tmp_path_factory.mktemp("home")

    def run(*words: str, stdin: str | None = None) -> str:
        command = [request.param, f"--server={server[1]}", f"--cache-dir={home}", *words]
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={"HOME": str(home), "PATH": "/usr/bin:/bin", "KUBECONFIG": str(home / "none")},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def test_there_is_a_kubectl() -> None:
    assert _kubectls()


def test_explain_finds_fields_with_their_types_and_descriptions(kubectl: Any) -> None:
    text = kubectl("explain", "isvc.spec.predictor.model.modelFormat")
    assert "GROUP:      serving.kserve.io" in text
    assert "name\t<string>" in text
    assert "predictor\t<PredictorSpec> -required-" in kubectl("explain", "isvc.spec")
    assert "<integer>" in kubectl("explain", "isvc.spec.predictor.minReplicas")
    assert "one container" in kubectl("explain", "ksvc.spec.template.spec.containers").lower()


def test_explain_recursive_opens_every_level(kubectl: Any) -> None:
    text = kubectl("explain", "isvc", "--recursive")
    for field in ("transformer", "canaryTrafficPercent", "configMapKeyRef", "matchExpressions"):
        assert field in text


def test_explain_knows_every_kind(kubectl: Any) -> None:
    for kind in KINDS:
        if kind is not kinds.CUSTOM_RESOURCE_DEFINITION:
            text = kubectl("explain", kind.plural, f"--api-version={kind.api_version}")
            assert f"KIND:       {kind.name}\n" in text
            assert "metadata" in text


def test_create_asks_the_server_to_check_fields(server: tuple[_Server, str], kubectl: Any) -> None:
    server[0].asked.clear()
    server[0].objects.clear()
    kubectl("create", "-f", "-", stdin=ISVC)
    assert any("POST" in asked and "fieldValidation=Strict" in asked for asked in server[0].asked)
    assert not any("/openapi/v2" in asked for asked in server[0].asked)


def test_apply_patches_custom_kinds_by_merge_and_core_kinds_strategically(
    server: tuple[_Server, str], kubectl: Any
) -> None:
    server[0].objects.clear()
    server[0].patch_types.clear()
    for text, change in ((ISVC, ("xgboost", "sklearn")), (CONFIG_MAP, ("a: b", "a: c"))):
        kubectl("apply", "-f", "-", stdin=text)
        kubectl("apply", "-f", "-", stdin=text.replace(*change))
    assert server[0].patch_types == ["application/merge-patch+json", "application/strategic-merge-patch+json"]


def test_server_side_apply_is_offered(server: tuple[_Server, str], kubectl: Any) -> None:
    server[0].objects.clear()
    server[0].patch_types.clear()
    kubectl("create", "-f", "-", stdin=ISVC)
    kubectl("apply", "--server-side", "-f", "-", stdin=ISVC)
    assert server[0].patch_types == ["application/apply-patch+yaml"]
