"""Upstream's releases from this computer: what `manifests/platform` names at GitHub, under the same paths.

Knative's are put together from its Go modules, as its own release is, KServe's is in its module as released.
cert-manager's is a stand-in of the objects that `install` looks at, since its module has templates only.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

GITHUB = "https://github.com"
# As they are pinned in manifests/platform, and what they are in Go's terms.
KNATIVE = "1.21.1"
MODULES = {
    "serving": "knative.dev/serving@v0.48.1",
    "eventing": "knative.dev/eventing@v0.48.1",
    "kourier": "knative.dev/net-kourier@v0.48.0",
    "networking": "knative.dev/networking@v0.0.0-20260120131110-a7cdca238a0d",
    "caching": "knative.dev/caching@v0.0.0-20260120130310-f1fc03b7f5ee",
    "kserve": "github.com/kserve/kserve@v0.20.0",
}
_TIMEOUT_S = 120
# Each file of a release: module, globs. Definitions that Knative's repository links to are in other modules.
PARTS: dict[str, list[tuple[str, str]]] = {
    "/knative/serving/releases/download/knative-v1.21.1/serving-crds.yaml": [
        ("serving", "config/core/300-resources/*.yaml"),
        ("networking", "config/*.yaml"),
        ("caching", "config/image.yaml"),
    ],
    "/knative/serving/releases/download/knative-v1.21.1/serving-core.yaml": [
        ("serving", "config/core/[12]*.yaml"),
        ("serving", "config/core/200-roles/*.yaml"),
        ("serving", "config/core/configmaps/*.yaml"),
        ("serving", "config/core/deployments/*.yaml"),
        ("serving", "config/core/webhooks/*.yaml"),
    ],
    "/knative-extensions/net-kourier/releases/download/knative-v1.21.0/kourier.yaml": [
        ("kourier", "config/*.yaml")
    ],
    "/knative/eventing/releases/download/knative-v1.21.1/eventing-crds.yaml": [
        ("eventing", "config/core/resources/*.yaml")
    ],
    "/knative/eventing/releases/download/knative-v1.21.1/eventing-core.yaml": [
        ("eventing", "config/core/[12]*.yaml"),
        *(("eventing", f"config/core/{part}/*.yaml") for part in ("roles", "configmaps", "deployments")),
        ("eventing", "config/core/webhooks/*.yaml"),
    ],
    "/knative/eventing/releases/download/knative-v1.21.1/in-memory-channel.yaml": [
        ("eventing", "config/channels/in-memory-channel/*.yaml"),
        ("eventing", "config/channels/in-memory-channel/*/*.yaml"),
    ],
    "/knative/eventing/releases/download/knative-v1.21.1/mt-channel-broker.yaml": [
        ("eventing", "config/brokers/mt-channel-broker/*/*.yaml")
    ],
    "/kserve/kserve/releases/download/v0.20.0/kserve.yaml": [("kserve", "install/v0.20.0/kserve.yaml")],
    "/kserve/kserve/releases/download/v0.20.0/kserve-cluster-resources.yaml": [
        ("kserve", "install/v0.20.0/kserve-cluster-resources.yaml")
    ],
}
CERT_MANAGER = "/cert-manager/cert-manager/releases/download/v1.17.0/cert-manager.yaml"


@contextmanager
def mirror() -> Iterator[str]:
    """The address that stands for GitHub's; skips where the modules cannot be had."""
    pages = {path: release(path).encode() for path in (*PARTS, CERT_MANAGER)}

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *values: object) -> None:
            """Nothing: kustomize says what it misses."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, name="mirror").start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@functools.cache
def release(path: str) -> str:
    """The YAML of one of its files."""
    if path == CERT_MANAGER:
        return yaml.safe_dump_all(_cert_manager())
    made: dict[tuple[str, str], str] = {}
    if len(PARTS[path]) == 1 and "*" not in (only := PARTS[path][0])[1]:
        return (_folder(only[0]) / only[1]).read_text()
    for module, glob in PARTS[path]:
        files = sorted(_folder(module).glob(glob))
        assert files, f"{module} {glob}: no such file"
        for file in files:
            for text in re.split(r"^---$", file.read_text(), flags=re.MULTILINE):
                # Of what is in several files, as a definition that is linked to, one is enough.
                found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
                if found:
                    metadata = found["metadata"]
                    key = f"{found['kind']}/{metadata.get('namespace', '')}/{metadata['name']}"
                    made.setdefault((found["apiVersion"], key), text)
    return "---\n".join(made.values()).replace("/version: devel", f'/version: "{KNATIVE}"')


@functools.cache
def _folder(module: str) -> pathlib.Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go, whose modules have upstream's manifests")
    asked = [go, "mod", "download", "-json", MODULES[module]]
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "on", "GOWORK": "off"}
    try:
        ran = subprocess.run(
            asked, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, cwd="/", env=environment
        )
        return pathlib.Path(json.loads(ran.stdout)["Dir"])
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        pytest.skip(f"the Go module {MODULES[module]} cannot be had")


def _cert_manager() -> Iterator[dict[str, object]]:
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cert-manager"}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    for kind in ("Certificate", "Issuer"):
        names = {
            "kind": kind,
            "plural": f"{kind.lower()}s",
            "singular": kind.lower(),
            "listKind": f"{kind}List",
        }
        yield {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{names['plural']}.cert-manager.io"},
            "spec": {
                "group": "cert-manager.io",
                "names": names,
                "scope": "Namespaced",
                "versions": [version],
            },
        }
    for name in ("cert-manager", "cert-manager-cainjector", "cert-manager-webhook"):
        labels = {"app": name, "app.kubernetes.io/version": "v1.17.0"}
        yield {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "cert-manager", "labels": labels},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": name, "image": f"example/{name}"}]},
                },
            },
        }
    yield {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "cert-manager-webhook"},
    }
