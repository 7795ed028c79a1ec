"""What the platform of a cluster must be like for glowplug: decisions on objects that were read. Pure.

`manifests/platform` makes it so; versions are those that it pins, and a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from glowplug.cli.finding import Finding
from glowplug.errors import ConfigError
from glowplug.rollout import platform as rollouts
from glowplug.spec import names
from glowplug.warmfloor.settings import ENABLED as WARM_FLOOR

Object = Mapping[str, Any]

KUBERNETES = (1, 33)
KNATIVE = (1, 21)
KSERVE = (0, 20)
GPU = "nvidia.com/gpu"
# Not a rollout's, but they change while a service runs, too.
LIVE_KEYS = (names.CANARY_AFFINITY, names.SHADOW)
_CONFIGS = "kubectl apply --server-side --force-conflicts -k manifests/platform/configs"
_VERSION_LABEL = "app.kubernetes.io/version"
_SERVICE_URL = re.compile(r"https?://([^./:]+)\.([^./:]+)(?:\.svc(?:\.[^/:]+)?)?(?::(\d+))?/?")


def version_of(text: str) -> tuple[int, int] | None:
    """Major and minor; None for what is no version, as a build of one's own has it."""
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def release(what: str, text: str, least: tuple[int, int], hint: str) -> Finding:
    """Whether a version is new enough; one that cannot be told is told as such."""
    found = version_of(text)
    wanted = ".".join(map(str, least))
    if found is None:
        return Finding(False, f"{what}: version {text or 'unknown'}", f"{wanted} is what is tested", True)
    if found < least:
        return Finding(False, f"{what} {text} is older than {wanted}", hint)
    return Finding(True, f"{what} {text}")


def knative_version(deployment: Object) -> str:
    """As Knative's releases label it."""
    return str((deployment["metadata"].get("labels") or {}).get(_VERSION_LABEL, ""))


def kserve_version(deployment: Object) -> str:
    """The tag of the manager's image."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    image = next((each["image"] for each in containers if each["name"] == "manager"), containers[0]["image"])
    return str(image).rpartition(":")[2]


def idle_deployments(deployments: Iterable[Object]) -> list[str]:
    """Those that want replicas and have none."""
    return [
        f"{each['metadata']['namespace']}/{each['metadata']['name']}"
        for each in deployments
        if each["spec"].get("replicas", 1) and not (each.get("status") or {}).get("availableReplicas")
    ]


def running(what: str, deployments: Iterable[Object]) -> Finding:
    """Whether a namespace's controllers run."""
    idle = idle_deployments(deployments)
    if not idle:
        return Finding(True, f"{what}: running")
    space = idle[0].partition("/")[0]
    hint = f"`kubectl -n {space} describe pods` says why; `manifests/install` finishes what is half there"
    return Finding(False, f"{what}: not running: {', '.join(idle)}", hint)


def features(config: Object) -> Finding:
    """config-features."""
    is_on = (config.get("data") or {}).get("tag-header-based-routing", "").lower() == "enabled"
    return Finding(
        is_on,
        "requests can name a revision (tag-header-based-routing)"
        if is_on
        else "tag-header-based-routing is off in knative-serving/config-features: no pair lock",
        f"{_CONFIGS}; or set it to enabled there",
        is_optional=True,
    )


def observability(config: Object) -> Finding:
    """config-observability."""
    data = config.get("data") or {}
    missing = [
        key for key in ("metrics-protocol", "request-metrics-protocol") if data.get(key) != "prometheus"
    ]
    return Finding(
        not missing,
        f"{' and '.join(missing)} not set to prometheus in knative-serving/config-observability: nothing to judge"
        " rollouts by, nor to raise the warm floor by"
        if missing
        else "Knative has metrics for Prometheus",
        f"{_CONFIGS}, then `kubectl -n knative-serving rollout restart deploy autoscaler activator`",
        is_optional=True,
    )


def unpassed_annotations(config: Object, has_rollouts: bool) -> Iterator[Finding]:
    """KServe's inferenceservice-config: a failure where the rollout controller is installed, which refuses to start."""
    try:
        rollouts.check(config)
    except ConfigError as error:
        yield Finding(False, error.message, f"{error.hint}; {_CONFIGS} does it", is_optional=not has_rollouts)
        return
    yield Finding(True, "KServe leaves the annotations of rollouts alone")
    text = config["data"]["inferenceService"]
    missing = [key for key in LIVE_KEYS if key not in text]
    if missing:
        yield Finding(
            False,
            f"changing {', '.join(missing)} makes a new revision: not in serviceAnnotationDisallowedList",
            _CONFIGS,
            is_optional=True,
        )


def unwatched(services: Iterable[Object], namespaces: str) -> Finding | None:
    """InferenceServices that ask for a controller where none looks; `namespaces` as GLOWPLUG_NAMESPACES has them."""
    watched = namespaces.split()
    asking = [
        f"{each['metadata']['namespace']}/{each['metadata']['name']}"
        for each in services
        if {names.ROLLOUT_STEPS, WARM_FLOOR} & set(each["metadata"].get("annotations") or {})
        and watched
        and each["metadata"]["namespace"] not in watched
    ]
    if not asking:
        return None
    return Finding(
        False,
        f"{', '.join(asking[:5])}: asking for a rollout or a warm floor where nobody looks; the controllers look after"
        f" {namespaces}",
        "bind them there as manifests/base/controllers/binding says, and add the namespace to GLOWPLUG_NAMESPACES",
        is_optional=True,
    )


def gpus(nodes: Iterable[Object]) -> Finding:
    """Whether any node offers one."""
    offered = {
        node["metadata"]["name"]: int((node.get("status") or {}).get("allocatable", {}).get(GPU, 0))
        for node in nodes
    }
    having = {name: count for name, count in offered.items() if count}
    return Finding(
        bool(having),
        ", ".join(f"{name}: {count} GPUs" for name, count in having.items())
        if having
        else f"no node of {len(offered)} offers {GPU}",
        "install NVIDIA's device plugin (or GPU operator) on nodes that have one; without, leave components/gpu out",
    )


def proxy_path(url: str) -> str | None:
    """The API's own way to a Service of the cluster, by the URL that pods use; None for anything else."""
    match = _SERVICE_URL.fullmatch(url)
    if match is None:
        return None
    service, namespace, port = match[1], match[2], match[3] or "80"
    return f"/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy"


def prometheus(url: str, answer: Object) -> Finding:
    """The answer to a count of Knative's request metrics."""
    try:
        result = answer["data"]["result"]
        count = int(float(result[0]["value"][1])) if result else 0
    except (KeyError, IndexError, TypeError, ValueError):
        return Finding(False, f"{url} answers as no Prometheus does", "see docs/cluster.md, Prometheus", True)
    return Finding(
        count > 0,
        f"Prometheus at {url}: {count} series of Knative's requests"
        if count
        else f"Prometheus at {url} has nothing of Knative's pods",
        "scrape them as docs/cluster.md says; a pod has metrics from its first request on",
        is_optional=True,
    )
