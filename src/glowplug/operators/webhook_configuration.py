"""The MutatingWebhookConfiguration that makes the API call us. Pure: what it holds, and when to write it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from glowplug.spec.kinds import INFERENCE_SERVICE, MUTATING_WEBHOOK_CONFIGURATION

from .api import Object

PATH = "/mutate"
COLLECTION = f"/apis/{MUTATING_WEBHOOK_CONFIGURATION.api_version}/{MUTATING_WEBHOOK_CONFIGURATION.plural}"


@dataclass(frozen=True)
class WebhookConfig:
    """Where the API finds us.

    `service` empty: by URL, at `host` (the local machine), on a free port unless `port` is given. Else by that
    Service of `service_namespace`, whose target port is `port`. `certificate_dir` holds tls.crt, tls.key and ca.crt
    of a mounted Secret; without it the certificate is self-made, with a Service once for all replicas.

    The API calls webhooks in the order of their configurations' names, and ours is `<name>.glowplug.dev`: a name
    after `inferenceservice.serving.kserve.io` sees what KServe's own webhook has defaulted.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    service: str = ""
    service_namespace: str = ""
    service_port: int = 443
    certificate_dir: Path | None = None
    timeout_s: int = 5
    # How often it is looked whether the configuration is there, and the mounted certificate a new one.
    check_interval_s: float = 10.0

    @property
    def full_name(self) -> str:
        """The name of the configuration, and of the webhook in it."""
        return f"{self.name}.glowplug.dev"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names by which the API calls us."""
        if not self.service:
            return (self.host,)
        name = f"{self.service}.{self.service_namespace}.svc"
        return (name, f"{name}.cluster.local")


def configuration(config: WebhookConfig, port: int, authority: bytes, namespaces: tuple[str, ...]) -> Object:
    """The configuration; `port` is where we listen, `namespaces` empty all."""
    client: dict[str, Any] = {"caBundle": base64.b64encode(authority).decode()}
    if config.service:
        client["service"] = {
            "name": config.service,
            "namespace": config.service_namespace,
            "path": PATH,
            "port": config.service_port,
        }
    else:
        client["url"] = f"https://{config.host}:{port}{PATH}"
    here = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(namespaces)}
    webhook = {
        "name": config.full_name,
        "clientConfig": client,
        "rules": [
            {
                "apiGroups": [INFERENCE_SERVICE.group],
                "apiVersions": [INFERENCE_SERVICE.version],
                "operations": ["CREATE", "UPDATE"],
                "resources": [INFERENCE_SERVICE.plural],
                "scope": "Namespaced",
            }
        ],
        "namespaceSelector": {"matchExpressions": [here]} if namespaces else {},
        # Without us an InferenceService is what its author wrote, as if we had never been there.
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        # What we set depends on what others set, and setting it twice is setting it once.
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "timeoutSeconds": config.timeout_s,
        "admissionReviewVersions": ["v1"],
    }
    return {
        "apiVersion": MUTATING_WEBHOOK_CONFIGURATION.api_version,
        "kind": MUTATING_WEBHOOK_CONFIGURATION.name,
        "metadata": {"name": config.full_name},
        "webhooks": [webhook],
    }


def agrees(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether all that is wanted is in what was found; the API adds defaults."""
    hooks = found.get("webhooks") or []
    return len(hooks) == 1 and _contains(hooks[0], wanted["webhooks"][0])


def _contains(found: Any, wanted: Any) -> bool:
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(_contains(found.get(key), value) for key, value in wanted.items() if value != {})
    return bool(found == wanted)


def address(configuration: Mapping[str, Any]) -> tuple[str, int] | None:
    """Where a configuration by URL points to; None for another or none."""
    for hook in configuration.get("webhooks") or []:
        parts = urlsplit(hook.get("clientConfig", {}).get("url") or "")
        if parts.hostname:
            return parts.hostname, parts.port or 443
    return None


def authority(configuration: Mapping[str, Any]) -> bytes:
    """The PEM that the first webhook is to be known by. Raises ValueError for none."""
    hooks = configuration.get("webhooks") or [{}]
    bundle = hooks[0].get("clientConfig", {}).get("caBundle")
    if not bundle:
        raise ValueError("no caBundle")
    return base64.b64decode(bundle)
