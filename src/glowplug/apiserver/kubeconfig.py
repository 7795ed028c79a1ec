"""The kubeconfig that clients take: address, authority and token in one file of mode 0600."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from glowplug.apiserver.tls import write_private

NAME = "glowplug"


def write_kubeconfig(path: Path, *, server: str, token: str, ca_cert: Path | None) -> None:
    """Write the file in one step; `ca_cert` is None for a server without TLS."""
    cluster: dict[str, str] = {"server": server}
    if ca_cert is not None:
        cluster["certificate-authority-data"] = base64.b64encode(ca_cert.read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
        "current-context": NAME,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, yaml.safe_dump(content, sort_keys=False).encode())
