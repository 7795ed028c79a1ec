"""The environment of a container, in the order in which Kubernetes and Knative give it.

A container does not inherit the machine's environment: of it, it gets what a program needs to run at all (`PATH`,
locale, certificates, proxies), and no credentials.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glowplug.spec import names
from glowplug.supervisor import downward
from glowplug.supervisor.expansion import expand
from glowplug.supervisor.rewrite import Rewriter
from glowplug.supervisor.sources import Sources, reference

INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "NIX_LD", "NIX_LD_LIBRARY_PATH",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip

_KNATIVE = {
    "K_SERVICE": names.SERVICE_LABEL,
    "K_CONFIGURATION": names.CONFIGURATION_LABEL,
    "K_REVISION": names.REVISION_LABEL,
}


def inherited(host_env: Mapping[str, str]) -> dict[str, str]:
    """The part of the machine's environment that every container gets."""
    return {key: value for key, value in host_env.items() if key in INHERITED or key.startswith("LC_")}


def python(*path: str) -> dict[str, str]:
    """What every Python process here gets; `path` is where it finds packages, besides those installed."""
    env = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    if path:
        env["PYTHONPATH"] = os.pathsep.join(path)
        # onnxruntime starts a thread and opens a database in the home directory when imported, to report on its use.
        env["ORT_DISABLE_TELEMETRY"] = "1"
    return env


def knative(pod: Mapping[str, Any]) -> dict[str, str]:
    """Knative's runtime contract, as far as the pod's labels tell it."""
    labels = pod["metadata"].get("labels") or {}
    return {key: labels[label] for key, label in _KNATIVE.items() if label in labels}


def service_account(pod: Mapping[str, Any], kubeconfig: Path) -> dict[str, str]:
    """The API for a pod that says that it wants a token; there is one token here, and it may do everything.

    Said, and not left out: a model must not get what a cluster's default would give it.
    """
    wanted = (pod.get("spec") or {}).get("automountServiceAccountToken") is True
    return {"KUBECONFIG": str(kubeconfig.resolve())} if wanted else {}


def declared(
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    sources: Sources,
    rewriter: Rewriter,
    known: Mapping[str, str],
) -> dict[str, str]:
    """What `envFrom` and `env` add to `known`, later entries over earlier ones, all made true locally.

    References that lead nowhere are noted in `sources.missing`.
    """
    result: dict[str, str] = {}
    for entry in container.get("envFrom") or ():
        result.update(_from_source(entry, sources, rewriter))
    for entry in container.get("env") or ():
        if entry.get("valueFrom") is None:
            value = rewriter.text(entry.get("value") or "")
            result[entry["name"]] = rewriter.ports(expand(value, {**known, **result}))
            continue
        found = _value_from(pod, container, entry["valueFrom"], sources)
        if found is not None:
            result[entry["name"]] = rewriter.text(found)
    return result


def threads(container: Mapping[str, Any]) -> dict[str, str]:
    """OMP_NUM_THREADS from the CPU limit, rounded up: numerical libraries see all cores of the computer otherwise."""
    limit = downward.quantity(((container.get("resources") or {}).get("limits") or {}).get("cpu"))
    return {} if limit is None or limit <= 0 else {"OMP_NUM_THREADS": str(math.ceil(limit))}


def _from_source(entry: Mapping[str, Any], sources: Sources, rewriter: Rewriter) -> dict[str, str]:
    found = reference(entry)
    if found is None:
        sources.missing.append(f"envFrom of kind {', '.join(sorted(entry))} is not known")
        return {}
    kind, ref = found
    prefix = entry.get("prefix") or ""
    values = sources.whole(kind, ref.get("name", ""), bool(ref.get("optional")))
    return {
        prefix + key: rewriter.text(value.decode("utf-8", "surrogateescape"))
        for key, value in values.items()
        if "=" not in key and b"\0" not in value
    }


def _value_from(
    pod: Mapping[str, Any], container: Mapping[str, Any], source: Mapping[str, Any], sources: Sources
) -> str | None:
    found = reference(source)
    if found is not None:
        kind, ref = found
        value = sources.one(kind, ref.get("name", ""), ref.get("key", ""), bool(ref.get("optional")))
        return None if value is None else value.decode("utf-8", "surrogateescape")
    if source.get("fieldRef") is not None:
        path = source["fieldRef"].get("fieldPath", "")
        return _required(downward.field(pod, path), f"unsupported fieldPath: {path}", sources)
    if source.get("resourceFieldRef") is not None:
        ref = source["resourceFieldRef"]
        value_text = downward.resource(pod, container, ref)
        return _required(
            value_text, f"no value for resource {ref.get('resource')}: it has no limit here", sources
        )
    sources.missing.append(f"env valueFrom of kind {', '.join(sorted(source))} is not known")
    return None


def _required(value: str | None, problem: str, sources: Sources) -> str | None:
    if value is None:
        sources.missing.append(problem)
    return value
