"""What is lost on a cluster when a part of it dies, by `kill -9`, is taken off its node, or is upgraded.

Requests are due at a steady rate through the gateway while one part after another dies; they are counted from the kill
until the part has been ready again for a few seconds. The bundle's controllers run as its manifests say.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import yaml

from benchmarks.cluster_load import Count, OpenLoop
from benchmarks.cluster_place import (
    REDIS_IMAGE,
    ROOT,
    Cluster,
    Container,
    Object,
    find,
    first_ready,
    kill,
    load_average,
    service,
    wait_for,
)
from benchmarks.lab import body, write_model
from benchmarks.lookup_servers import fill
from benchmarks.results import Result, Table

COMMAND = "make bench-cluster_faults"
NEXT_TAG = "BUNDLE_NEXT_TAG"
RATE = 20.0
# After a part is ready again: what it had still to take up shows within these.
_SETTLE_S = 6.0
_BEFORE_S = 3.0
_WAIT_S = 5
_NAMESPACE, _LIGHT, _LOOKUP, _PATIENT, _REDIS = "serving", "light", "lookup", "patient", "redis"
_RUNTIME = "glowplug-xgboost"
# Stay twice while it is measured; as the manifests' platform has them.
_TWICE = (("knative-serving", "activator"), ("kourier-system", "3scale-kourier-gateway"))


@dataclass(frozen=True)
class Part:
    """What dies: a container of the pods that the selector finds. Losses are counted in `load`, and beside it in
    `kinder`, of a service with another setting."""

    fault: str
    namespace: str
    selector: str
    container: str
    note: str = ""
    load: str = _LIGHT
    kinder: str = ""


_GATEWAY = "app=3scale-kourier-gateway"
_PODS = f"serving.kserve.io/inferenceservice={_LIGHT}"
KILLED = (
    Part("controller", "knative-serving", "app=controller", "controller"),
    Part("autoscaler", "knative-serving", "app=autoscaler", "autoscaler"),
    Part("webhook", "knative-serving", "app=webhook", "webhook"),
    Part("net_kourier_controller", "knative-serving", "app=net-kourier-controller", "controller"),
    Part("kserve_controller", "kserve", "control-plane=kserve-controller-manager", "manager"),
    Part("rollout_controller", "glowplug", "app.kubernetes.io/name=rollout", "controller"),
    Part("warm_floor_controller", "glowplug", "app.kubernetes.io/name=warm-floor", "controller"),
    Part("activator", "knative-serving", "app=activator", "activator", "one of two"),
    Part("gateway", "kourier-system", _GATEWAY, "kourier-gateway", "one of two"),
    Part("queue_proxy", _NAMESPACE, _PODS, "queue-proxy", "of one of two replicas"),
    Part("model", _NAMESPACE, _PODS, "kserve-container", "of one of two replicas"),
    Part("redis", _NAMESPACE, "app=redis", "redis", "the only one", _LOOKUP, _PATIENT),
)
DRAINED = (
    Part("activator_drained", "knative-serving", "app=activator", "activator", "one of two, its pod deleted"),
    Part("gateway_drained", "kourier-system", _GATEWAY, "kourier-gateway", "one of two, its pod deleted"),
    Part("model_drained", _NAMESPACE, _PODS, "kserve-container", "one of two replicas, its pod deleted"),
)  # fmt: skip
ALONE = (
    Part("activator_alone", "knative-serving", "app=activator", "activator", "the only one, as Knative has it"),
    Part("gateway_alone", "kourier-system", _GATEWAY, "kourier-gateway", "the only one, as kourier has it"),
)  # fmt: skip


def run(only: tuple[str, ...] = ()) -> list[Result | Table]:
    """Under ten minutes. Raises `Absent` without a cluster."""
    cluster = find()
    with tempfile.TemporaryDirectory(prefix="glowplug-faults-") as folder, ExitStack() as stack:
        root = pathlib.Path(folder)
        root.chmod(0o755)
        write_model(root / "models" / "xgboost")
        bundle = _Bundle(cluster, root)
        stack.enter_context(bundle.applied())
        stack.enter_context(cluster.claim(_NAMESPACE, root / "models"))
        stack.enter_context(_redis(cluster, root))
        stack.enter_context(_services(cluster))
        found = _measure(cluster, bundle, only)
    return _results(found)


def _measure(cluster: Cluster, bundle: _Bundle, only: tuple[str, ...]) -> list[tuple[str, str, Count]]:
    user = {"inputs": [{"name": "user_id", "shape": [1], "datatype": "INT64", "data": [7]}]}
    asked = json.dumps(user).encode()
    bodies = {_LIGHT: body(), _LOOKUP: asked, _PATIENT: asked}
    found = []
    wanted = [part for part in (*KILLED, *DRAINED, *ALONE) if not only or part.fault in only]
    with ExitStack() as stack:
        stack.enter_context(_scales(cluster))
        loads = {
            name: stack.enter_context(
                OpenLoop(
                    cluster.gateway, cluster.host(_NAMESPACE, name), f"/v2/models/{name}/infer", content, RATE,
                    b'"outputs"',
                )
            )
            for name, content in bodies.items()
        }  # fmt: skip
        for part in wanted:
            _scale(cluster, 1 if part in ALONE else 2)
            act = partial(_drained if part in DRAINED else _killed, cluster, part)
            begin, end = _during(act)
            found.append((part.fault, part.note, loads[part.load].count(begin, end)))
            _say(*found[-1])
            if part.kinder:
                count = loads[part.kinder].count(begin, end)
                found.append(
                    (f"{part.fault}_waited_for", f"{part.note}; look-ups wait up to {_WAIT_S} s", count)
                )
                _say(*found[-1])
        if not only or "upgrade" in only:
            _scale(cluster, 2)
            note = "the bundle applied again with other labels and images: controllers, runtime, a service"
            found.append(("upgrade", note, loads[_LIGHT].count(*_during(bundle.upgrade))))
            _say(*found[-1])
    return found


def _during(act: Callable[[], None]) -> tuple[float, float]:
    """From before the act until all has settled."""
    begin = time.monotonic()
    time.sleep(_BEFORE_S)
    act()
    time.sleep(_SETTLE_S)
    return begin, time.monotonic()


def _killed(cluster: Cluster, part: Part) -> None:
    victim = _victim(cluster, part)
    kill(victim)
    wait_for(lambda: _is_back(cluster, part, victim), f"{part.fault} to be ready again")


def _is_back(cluster: Cluster, part: Part, victim: Container) -> bool:
    now = cluster.containers(part.namespace, part.selector, part.container)
    return any(
        each.pod == victim.pod and each.restarts > victim.restarts and each.is_ready for each in now
    ) and all(each.is_ready for each in now)


def _drained(cluster: Cluster, part: Part) -> None:
    """As when a node is emptied: the pod is told to end, and another is made."""
    victim = _victim(cluster, part)
    count = len(cluster.containers(part.namespace, part.selector, part.container))
    cluster.kubectl("-n", part.namespace, "delete", "pod", victim.pod, "--wait=true")

    def is_replaced() -> bool:
        now = cluster.containers(part.namespace, part.selector, part.container)
        return len(now) >= count and all(each.is_ready for each in now)

    wait_for(is_replaced, f"another {part.fault}")


def _victim(cluster: Cluster, part: Part) -> Container:
    return first_ready(cluster.containers(part.namespace, part.selector, part.container), part.fault)


@contextmanager
def _scales(cluster: Cluster) -> Iterator[None]:
    """What was scaled is as it was afterwards."""
    before = [(each, cluster.get("-n", each[0], f"deploy/{each[1]}")["spec"]["replicas"]) for each in _TWICE]
    try:
        yield
    finally:
        for (namespace, name), replicas in before:
            cluster.kubectl("-n", namespace, "scale", f"deploy/{name}", f"--replicas={replicas}")


def _scale(cluster: Cluster, count: int) -> None:
    """So many of each part that requests go through, once nothing of the others is left."""
    for namespace, name in _TWICE:
        if cluster.get("-n", namespace, f"deploy/{name}")["spec"]["replicas"] == count:
            continue
        cluster.kubectl("-n", namespace, "scale", f"deploy/{name}", f"--replicas={count}")
        wait_for(partial(_has, cluster, namespace, name, count), f"{count} of {name}")
        time.sleep(_SETTLE_S)


def _has(cluster: Cluster, namespace: str, name: str, count: int) -> bool:
    pods = cluster.get("-n", namespace, "pods", "-l", f"app={name}")["items"]
    ready = [all(each["ready"] for each in pod["status"].get("containerStatuses", ())) for pod in pods]
    return ready == [True] * count


class _Bundle:
    """manifests/base, with images of dev.local: first one version of it, then the next."""

    def __init__(self, cluster: Cluster, folder: pathlib.Path) -> None:
        self._cluster, self._folder = cluster, folder / "bundle"
        self._folder.mkdir()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Gone afterwards, but for runtimes that were there before, which are as they were."""
        stored = self._cluster.get("clusterservingruntimes")["items"]
        before = [_as_written(each) for each in stored if each["metadata"]["name"].startswith("glowplug-")]
        wait_for(self._is_gone, "the namespaces of a bundle before to be gone", 1.0)
        try:
            self._apply("1", self._cluster.tag)
            self._wait()
            yield
        finally:
            self._cluster.kubectl("delete", "-k", str(self._folder), "--wait=false", check=False)
            self._cluster.kubectl(
                "delete", "mutatingwebhookconfiguration", "rollout.glowplug.dev", "--ignore-not-found", check=False
            )  # fmt: skip
            if before:
                self._cluster.apply(*before)

    def upgrade(self) -> None:
        """The next version: other labels on all, another image where $BUNDLE_NEXT_TAG names one."""
        revision = self._revision()
        self._apply("2", os.environ.get(NEXT_TAG, self._cluster.tag))
        self._wait()
        # Services are the users' own: this one goes along, by a label of its pods.
        changed = {"spec": {"predictor": {"labels": {"app.kubernetes.io/version": "2"}}}}
        patch = ("--type=merge", "-p", json.dumps(changed))
        self._cluster.kubectl("-n", _NAMESPACE, "patch", "isvc", _LIGHT, *patch)
        wait_for(lambda: self._revision() != revision, "a revision of the next version")
        wait_for(self._is_settled, "the revision before to have no pods")

    def _is_gone(self) -> bool:
        found = self._cluster.get("namespaces")["items"]
        ending = {each["metadata"]["name"] for each in found if "deletionTimestamp" in each["metadata"]}
        return not ending & {"glowplug", _NAMESPACE}

    def _revision(self) -> str:
        status = self._cluster.get("-n", _NAMESPACE, "ksvc", f"{_LIGHT}-predictor")["status"]
        return str(status.get("latestReadyRevisionName"))

    def _is_settled(self) -> bool:
        pods = self._cluster.get("-n", _NAMESPACE, "pods", "-l", _PODS)["items"]
        return {pod["metadata"]["labels"]["serving.knative.dev/revision"] for pod in pods} == {
            self._revision()
        }

    def _apply(self, version: str, tag: str) -> None:
        relative = os.path.relpath(ROOT / "manifests", self._folder)
        names = re.findall(
            r"name: glowplug/(\S+)", (ROOT / "manifests/components/dev-images/kustomization.yaml").read_text()
        )
        document: Object = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{relative}/base"],
            "components": [f"{relative}/components/small"],
            "images": [
                {"name": f"glowplug/{name}", "newName": f"dev.local/glowplug/{name}", "newTag": tag} for name in names
            ],
            "labels": [
                {"pairs": {"app.kubernetes.io/version": version}, "includeTemplates": True, "includeSelectors": False}
            ],
        }  # fmt: skip
        (self._folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
        self._cluster.kubectl("apply", "-k", str(self._folder))

    def _wait(self) -> None:
        for name in ("rollout", "warm-floor"):
            self._cluster.kubectl("-n", "glowplug", "rollout", "status", f"deploy/{name}", "--timeout=110s")


def _as_written(found: Object) -> Object:
    kept = {
        key: found["metadata"][key] for key in ("name", "annotations", "labels") if key in found["metadata"]
    }
    kept.get("annotations", {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": kept, "spec": found["spec"]}


@contextmanager
def _services(cluster: Cluster) -> Iterator[None]:
    """Two replicas of a model; one of a lookup before its model in one pod, and another that waits longer for Redis."""
    names = (_LIGHT, _LOOKUP, _PATIENT)
    cluster.apply(
        service(_NAMESPACE, _LIGHT, _RUNTIME, minReplicas=2, maxReplicas=2),
        _lookup(cluster, _LOOKUP),
        _lookup(cluster, _PATIENT, f"--redis_timeout_s={_WAIT_S}"),
    )
    try:
        cluster.wait_ready(*names, namespace=_NAMESPACE)
        wait_for(lambda: _ready_pods(cluster) == 2, "two replicas")
        yield
    finally:
        cluster.kubectl("-n", _NAMESPACE, "delete", "isvc", *names, "--wait=true", check=False)


def _ready_pods(cluster: Cluster) -> int:
    return sum(each.is_ready for each in cluster.containers(_NAMESPACE, _PODS, "queue-proxy"))


def _lookup(cluster: Cluster, name: str, *arguments: str) -> Object:
    """As transformers/feature-lookup has it, for the benchmark's view."""
    found = yaml.safe_load((ROOT / "transformers/feature-lookup/isvc.yaml").read_text())["spec"]["predictor"]
    (container,) = found["containers"]
    container["image"] = cluster.image("feature-lookup")
    kept = [each for each in container["args"] if not each.startswith(("--model_name=", "--model_dir="))]
    container["args"] = [f"--model_name={name}", *kept, *arguments]
    container["resources"]["requests"] = {"cpu": "20m", "memory": "128Mi"}
    made = service(_NAMESPACE, name, _RUNTIME, minReplicas=1, maxReplicas=1)
    made["spec"]["predictor"] |= {"containers": [container], "volumes": found["volumes"]}
    return made


@contextmanager
def _redis(cluster: Cluster, folder: pathlib.Path) -> Iterator[None]:
    """A Redis that keeps what it has on a volume of its pod, filled, with the view and its address for the lookup."""
    labels = {"app": _REDIS}
    restricted = {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
        "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    container = {
        "name": "redis",
        "image": os.environ.get(REDIS_IMAGE, "redis:7.2.7"),
        "args": ["--protected-mode", "no", "--appendonly", "yes", "--dir", "/data"],
        "ports": [{"containerPort": 6379}],
        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": restricted,
    }
    metadata = {"name": _REDIS, "namespace": _NAMESPACE}
    pod = {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    cluster.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 6379}]},
        },
    )  # fmt: skip
    cluster.kubectl("-n", _NAMESPACE, "rollout", "status", f"deploy/{_REDIS}", "--timeout=110s")
    with _forwarded(f"svc/{_REDIS}") as port:
        store = asyncio.run(fill(f"redis://127.0.0.1:{port}", folder))
    view, address = store.view_file.read_text(), f"redis://{_REDIS}.{_NAMESPACE}:6379"
    for name, data in (
        ("feature-views", {"feature_view.yaml": view}),
        ("feature-store", {"REDIS_URL": address}),
    ):
        cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "name": name}, "data": data}
        )
    yield
    for each in ("deploy/redis", "service/redis", "cm/feature-views", "cm/feature-store"):
        cluster.kubectl("-n", _NAMESPACE, "delete", each, "--wait=false", check=False)


@contextmanager
def _forwarded(target: str) -> Iterator[int]:
    """A port of this computer that leads to Redis."""
    command = ["kubectl", "-n", _NAMESPACE, "port-forward", target, ":6379"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield int(line.partition("127.0.0.1:")[2].split(" ", 1)[0])
        finally:
            process.terminate()


def _say(fault: str, note: str, count: Count) -> None:
    print(
        f"  {fault} ({note}): lost {count.lost} of {count.due} in {count.span_s:.0f} s, slowest {count.slowest_s:.2f} s"
        f" {count.errors}; {load_average()}",
        file=sys.stderr,
    )


def _results(found: list[tuple[str, str, Count]]) -> list[Result | Table]:
    measured: list[Result | Table] = []
    for fault, note, count in found:
        within = f"of {count.due} requests within {count.span_s:.0f} s, {RATE:.0f} a second"
        said = f"{within}; slowest {count.slowest_s:.2f} s"
        whole = "; ".join(filter(None, (note, said, count.errors)))
        measured.append(
            Result(f"cluster.lost.{fault}", count.lost, "requests", count.lost, count.lost, 1, COMMAND, "0", whole)
        )  # fmt: skip
    rows = [[fault, count.due, count.lost, count.slowest_s, note] for fault, note, count in found]
    columns = ("what died", "requests due", "lost", "slowest, s", "")
    notes = (
        f"{RATE:.0f} requests a second through the gateway, each on a new connection, none tried again",
        load_average(),
    )
    return [
        *measured,
        Table("cluster.lost", "Requests lost when a part of a cluster dies", columns, rows, notes),
    ]


if __name__ == "__main__":
    for each in run(tuple(sys.argv[1:])):
        if isinstance(each, Result):
            print(f"{each.metric} = {each.value:.4g} ({each.note})")
