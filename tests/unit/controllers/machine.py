"""Everything around the controllers, in virtual time: API, node, router; and the rules that must hold at every step."""

from __future__ import annotations

import itertools
from typing import Any

from unit.controllers.fakes import FakeNode, FakeObjects, FixedAutoscaler, Killed, Object

from glowplug.controllers import Controllers, ControllersConfig
from glowplug.spec import kinds
from glowplug.spec.kinds import Kind
from glowplug.spec.routes import Mode, RouteEntry, RouteTable

NAMESPACE = "default"
_MANY = 20_000


class Machine:
    """`settle` runs until nothing moves; `advance` lets time pass."""

    def __init__(self, config: ControllersConfig | None = None) -> None:
        self.now = 1_770_000_000.0
        self.config = config or ControllersConfig()
        self.objects = FakeObjects(lambda: self.now)
        self.node = FakeNode(self.objects, lambda: self.now)
        self.autoscaler = FixedAutoscaler()
        self.events: list[tuple[str, str, str, str]] = []
        self.tables: list[RouteTable] = []
        self.was_ready: set[str] = set()
        self.kills = 0
        # Revisions (`namespace/name`) that requests wait for.
        self.waited_for: set[str] = set()
        self._tokens = itertools.count()
        self.controllers = self._start()

    def _start(self) -> Controllers:
        def token() -> str:
            return f"{next(self._tokens):05d}"

        controllers = Controllers(
            self.objects,
            self._record,
            lambda table: None,
            self.autoscaler,
            self.config,
            lambda: self.now,
            token,
            self.waited_for.__contains__,
        )
        controllers.start()
        # A watch begins with what exists.
        self.objects.changes.clear()
        return controllers

    def restart(self) -> None:
        """The process died; another one takes over."""
        self.objects.fuse = None
        self.kills += 1
        self.controllers = self._start()

    def _record(self, regarding: Object, type: str, reason: str, message: str) -> None:
        self.events.append((regarding["metadata"]["name"], type, reason, message))

    def settle(self, node: bool = True) -> None:
        """Runs controllers, garbage collector, router and node until none of them has anything to do."""
        for _ in range(_MANY):
            try:
                if not self._turn(node):
                    assert not self.controllers.errors
                    return
            except Killed:
                self.restart()
        raise AssertionError("the controllers never come to rest")

    def _turn(self, node: bool) -> bool:
        while self.objects.changes:
            self.controllers.observe(self.objects.changes.popleft())
        if self.controllers.step():
            return True
        self._note_ready()
        taken = self.controllers.take_table()
        if taken is not None:
            self._publish(taken[0])
            self.controllers.confirm(taken[1])
            return True
        return self.objects.collect_garbage() or (node and self.node.step())

    def advance(self, seconds: float, node: bool = True) -> None:
        """Lets time pass, stopping at every timer on the way."""
        end = self.now + seconds
        while True:
            self.settle(node)
            due = self.controllers.next_due()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
        self.now = end
        self.settle(node)

    def _note_ready(self) -> None:
        for pod in self.objects.list(kinds.POD):
            if is_ready(pod):
                revision = pod["metadata"]["labels"]["serving.knative.dev/revision"]
                self.was_ready.add(f"{pod['metadata']['namespace']}/{revision}")

    def _publish(self, table: RouteTable) -> None:
        before = self.tables[-1] if self.tables else RouteTable()
        self.tables.append(table)
        hosts = [host for route in table.routes for host in route.hosts]
        prefixes = [prefix for route in table.routes for prefix in route.path_prefixes]
        assert len(hosts) == len(set(hosts)) and len(prefixes) == len(set(prefixes))
        known = {backend.revision for backend in table.backends}
        old = {(route.namespace, route.name): route for route in before.routes}
        for route in table.routes:
            assert sum(split.percent for split in route.splits) == 100, route
            assert all(split.percent > 0 and split.revision in known for split in route.splits), route
            self._check_move(route, old.get((route.namespace, route.name)), table)

    def _check_move(self, route: RouteEntry, before: RouteEntry | None, table: RouteTable) -> None:
        if before is None:
            return
        backends = {backend.revision: backend for backend in table.backends}
        old = {split.revision for split in before.splits}
        had_pods = any(is_ready(pod) for revision in old for pod in self.pods(revision.split("/")[1]))
        for revision in {split.revision for split in route.splits} - old:
            assert revision in self.was_ready, f"{route.name} leads to {revision}, which never was ready"
            if had_pods:
                is_held = backends[revision].mode is Mode.PROXY and not self.floor(revision)
                assert backends[revision].endpoints or is_held, (
                    f"{route.name} moved to {revision} without pods"
                )

    # What is there

    def floor(self, revision: str) -> int:
        """The min-scale of a revision, `namespace/name`."""
        namespace, _, name = revision.partition("/")
        annotations = self.objects.get(kinds.REVISION, namespace, name)["metadata"].get("annotations", {})
        return int(annotations.get("autoscaling.knative.dev/min-scale", 0))

    def apply(self, kind: Kind, obj: Object) -> Object:
        """Creates, or replaces the spec, labels and annotations."""
        try:
            live = self.objects.get(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        except Exception:
            return self._unkillable(lambda: self.objects.create(kind, obj))
        live["spec"] = obj["spec"]
        for field in ("labels", "annotations"):
            live["metadata"][field] = dict(obj["metadata"].get(field) or {})
        return self._unkillable(lambda: self.objects.update(kind, live))

    def _unkillable(self, write: Any) -> Any:
        fuse, self.objects.fuse = self.objects.fuse, None
        try:
            return write()
        finally:
            self.objects.fuse = fuse

    def get(self, kind: Kind, name: str) -> Object:
        return self.objects.get(kind, NAMESPACE, name)

    def names(self, kind: Kind) -> list[str]:
        return [obj["metadata"]["name"] for obj in self.objects.list(kind)]

    def pods(self, revision: str) -> list[Object]:
        """The pods of a revision that are not on their way out."""
        found = self.objects.list(kinds.POD, labels={"serving.knative.dev/revision": revision})
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def condition(self, kind: Kind, name: str, type: str = "Ready") -> tuple[str, str, str]:
        """(status, reason, message); all empty if it is not there."""
        for entry in self.get(kind, name).get("status", {}).get("conditions", ()):
            if entry["type"] == type:
                return entry["status"], entry.get("reason", ""), entry.get("message", "")
        return "", "", ""

    def splits(self, name: str) -> dict[str, int]:
        """Where the published table leads: revision → percent."""
        for route in self.tables[-1].routes if self.tables else ():
            if route.name == name:
                return {split.revision.split("/")[1]: split.percent for split in route.splits}
        return {}

    def assert_settled(self) -> None:
        """Looking at everything again writes nothing and publishes nothing."""
        self.settle()
        writes, tables = self.objects.writes, len(self.tables)
        self.controllers.wake_all()
        while self.controllers.step():
            pass
        assert self.objects.writes == writes
        assert len(self.tables) == tables
        assert not self.controllers.errors


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    is_true = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return is_true and "deletionTimestamp" not in pod["metadata"]


def knative_service(name: str = "web", image: str = "app", **extra: Any) -> Object:
    """A Knative Service; `extra`: annotations of the template, traffic, template_name, spec fields of the revision."""
    metadata: Object = {"annotations": extra.pop("annotations", {})}
    if "template_name" in extra:
        metadata["name"] = extra.pop("template_name")
    traffic = extra.pop("traffic", None)
    spec: Object = {"template": {"metadata": metadata, "spec": {"containers": [{"image": image}], **extra}}}
    if traffic is not None:
        spec["traffic"] = traffic
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def runtime(name: str = "glowplug-xgboost", **extra: Any) -> Object:
    """A ClusterServingRuntime for xgboost; `extra` overrides fields of its spec."""
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime",
        "metadata": {"name": name},
        "spec": {
            "supportedModelFormats": [{"name": "xgboost", "version": "1", "autoSelect": True, "priority": 1}],
            "protocolVersions": ["v1", "v2"],
            "containers": [
                {
                    "name": "kserve-container",
                    "image": "glowplug/xgboost",
                    "args": ["--model_name={{.Name}}", "--model_dir=/mnt/models", "--http_port=8080"],
                    "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
                    "resources": {"requests": {"cpu": "1"}},
                }
            ],
            **extra,
        },
    }


def inference_service(name: str = "flights", predictor: Object | None = None, **extra: Any) -> Object:
    """An InferenceService with an xgboost model; `extra`: annotations, labels, transformer, fields of the predictor."""
    metadata: Object = {
        "name": name,
        "namespace": NAMESPACE,
        "annotations": {"serving.kserve.io/deploymentMode": "Knative", **extra.pop("annotations", {})},
    }
    if "labels" in extra:
        metadata["labels"] = extra.pop("labels")
    spec: Object = {}
    if "transformer" in extra:
        spec["transformer"] = extra.pop("transformer")
    model = {
        "modelFormat": {"name": "xgboost"},
        "protocolVersion": "v2",
        "storageUri": "pvc://models/flights",
    }
    spec["predictor"] = predictor if predictor is not None else {"model": model, **extra}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": spec,
    }
