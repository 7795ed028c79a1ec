"""`doctor` on a cluster: reads what the checks in `platform` decide on, and the few that are a look and nothing more.

Whoever asks may not be allowed to see everything; what cannot be read is told, and fails nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glowplug.cli import platform
from glowplug.cli.finding import Finding
from glowplug.cli.kube import Cluster
from glowplug.errors import ApiError, Forbidden, GlowplugError, NotFound

Object = dict[str, Any]

_MACHINE = "+glowplug"  # in the version that the local machine tells
_INSTALL = "`manifests/install` brings it"
_WEBHOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/rollout.glowplug.dev"
_SPACE = "glowplug"
_QUERY = "count(kn_serving_invocation_duration_seconds_count)"


def findings(cluster: Cluster, wants_gpus: bool) -> Iterator[Finding]:
    """Everything that can be said about it. Raises GlowplugError where it cannot be reached."""
    version = cluster.get("/version")["gitVersion"]
    is_machine = version.endswith(_MACHINE)
    least = (0, 0) if is_machine else platform.KUBERNETES
    yield platform.release(f"{cluster.kubeconfig}: Kubernetes API", version, least, "upgrade it")
    if wants_gpus and not is_machine:
        yield platform.gpus(cluster.get("/api/v1/nodes")["items"])
    kinds = [*_kinds(cluster)]
    yield from kinds
    if is_machine or not all(kind.is_ok for kind in kinds):
        return
    for check in (_knative, _kserve, _controllers):
        try:
            yield from check(cluster)
        except Forbidden as error:
            yield Finding(False, error.message, "ask as somebody who may read it", is_optional=True)


def _kinds(cluster: Cluster) -> Iterator[Finding]:
    for name, api_version, kind in (
        ("Knative Serving", "serving.knative.dev/v1", "Service"),
        ("KServe", "serving.kserve.io/v1beta1", "InferenceService"),
        ("KServe's runtimes", "serving.kserve.io/v1alpha1", "ClusterServingRuntime"),
    ):
        try:
            cluster.resource_of(api_version, kind)
        except NotFound:
            yield Finding(False, f"{name} is not installed: no {kind} in {api_version}", _INSTALL)
        else:
            yield Finding(True, f"{name}: {kind} in {api_version}")


def _knative(cluster: Cluster) -> Iterator[Finding]:
    deployments = _deployments(cluster, "knative-serving")
    version = next(
        (platform.knative_version(each) for each in deployments if each["metadata"]["name"] == "controller"),
        "",
    )
    yield platform.release(
        "Knative Serving",
        version,
        platform.KNATIVE,
        "`manifests/install --upgrade`, one minor version at a time",
    )
    yield platform.running("Knative Serving", deployments)
    yield platform.features(_config_map(cluster, "knative-serving", "config-features"))
    yield platform.observability(_config_map(cluster, "knative-serving", "config-observability"))


def _kserve(cluster: Cluster) -> Iterator[Finding]:
    deployments = _deployments(cluster, "kserve")
    manager = [each for each in deployments if each["metadata"]["name"] == "kserve-controller-manager"]
    version = platform.kserve_version(manager[0]) if manager else ""
    yield platform.release("KServe", version, platform.KSERVE, "`manifests/install --upgrade`")
    yield platform.running("KServe", deployments)
    config = _config_map(cluster, "kserve", "inferenceservice-config")
    yield from platform.unpassed_annotations(config, _found(cluster, _WEBHOOK) is not None)


def _controllers(cluster: Cluster) -> Iterator[Finding]:
    deployments = _deployments(cluster, _SPACE)
    if not deployments:
        hint = "`manifests/install` brings them, `kubectl apply -k manifests/base/controllers` them alone"
        yield Finding(
            False, "no rollouts and no warm floor: no controllers in namespace glowplug", hint, True
        )
        return
    yield platform.running("glowplug's controllers", deployments)
    has_webhook = _found(cluster, _WEBHOOK) is not None
    yield Finding(
        has_webhook,
        "webhook of the rollouts" if has_webhook else "the rollout's webhook is not configured",
        "the controller does it when it starts: `kubectl -n glowplug logs deploy/rollout`",
    )
    for name in sorted({_source(each) for each in deployments} - {""}):
        settings = _config_map(cluster, _SPACE, name).get("data") or {}
        yield _prometheus(cluster, settings.get("PROMETHEUS_URL", ""))
        services = cluster.get("/apis/serving.kserve.io/v1beta1/inferenceservices")["items"]
        unwatched = platform.unwatched(services, settings.get("GLOWPLUG_NAMESPACES", ""))
        if unwatched is not None:
            yield unwatched


def _prometheus(cluster: Cluster, url: str) -> Finding:
    path = platform.proxy_path(url)
    if path is None:
        return Finding(
            False, f"Prometheus at {url or 'no address'}: cannot be asked from here", "ask it", True
        )
    try:
        return platform.prometheus(url, cluster.get(f"{path}/api/v1/query", query=_QUERY))
    except (GlowplugError, ValueError) as error:
        hint = "set PROMETHEUS_URL in the ConfigMap `controllers` of your overlay; see docs/cluster.md, Prometheus"
        return Finding(False, f"Prometheus at {url} does not answer: {error}", hint, True)


def _source(deployment: Object) -> str:
    """The ConfigMap that its environment comes from."""
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        for source in container.get("envFrom") or ():
            return str((source.get("configMapRef") or {}).get("name", ""))
    return ""


def _deployments(cluster: Cluster, namespace: str) -> list[Object]:
    return list(cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"])


def _config_map(cluster: Cluster, namespace: str, name: str) -> Object:
    return _found(cluster, f"/api/v1/namespaces/{namespace}/configmaps/{name}") or {}


def _found(cluster: Cluster, path: str) -> Object | None:
    try:
        return cluster.get(path)
    except NotFound:
        return None
    except Forbidden:
        raise
    except ApiError:
        return None
