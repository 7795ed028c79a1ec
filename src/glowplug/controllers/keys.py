"""What a control loop works on: keys, and the index that leads from a change to the keys that it concerns.

The index holds names and versions only. The objects themselves are read from the store when they are needed, so that
a decision never rests on a stale copy, and a thousand idle services cost a few names each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from glowplug.spec import kinds, names
from glowplug.spec.kinds import Kind

from .eventing.references import references_of
from .metadata import Object, annotations_of, at, labels_of, name_of, namespace_of, owner_name, version_of

ROUTES_ANNOTATION = "serving.knative.dev/routes"


class Key(NamedTuple):
    """One object to reconcile."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.kind.name} {self.namespace}/{self.name}"
            if self.namespace
            else f"{self.kind.name} {self.name}"
        )


class Relation(NamedTuple):
    """A way to find objects of `kind`: those related to `value` by `by`, in one namespace."""

    kind: Kind
    by: str
    namespace: str
    value: str


WATCHED: tuple[Kind, ...] = (
    kinds.SERVING_RUNTIME,
    kinds.CLUSTER_SERVING_RUNTIME,
    kinds.INFERENCE_SERVICE,
    kinds.KNATIVE_SERVICE,
    kinds.CONFIGURATION,
    kinds.REVISION,
    kinds.ROUTE,
    kinds.POD_AUTOSCALER,
    kinds.POD,
    kinds.JOB,
    kinds.BROKER,
    kinds.TRIGGER,
    kinds.JOB_SINK,
    kinds.PING_SOURCE,
    kinds.KAFKA_SOURCE,
    # What they name of a cluster and of who may speak to it.
    kinds.CONFIG_MAP,
    kinds.SECRET,
)
RECONCILED: tuple[Kind, ...] = (
    kinds.INFERENCE_SERVICE,
    kinds.KNATIVE_SERVICE,
    kinds.CONFIGURATION,
    kinds.REVISION,
    kinds.ROUTE,
    kinds.JOB,
    # What events are sent to comes before who sends them there.
    kinds.JOB_SINK,
    kinds.BROKER,
    kinds.TRIGGER,
    kinds.PING_SOURCE,
    kinds.KAFKA_SOURCE,
)

BY_REVISION = "revision"
BY_CONFIGURATION = "configuration"
BY_ROUTE = "route"
BY_RUNTIME = "runtime"
BY_OWNER = "owner"
# Pods of one component of an InferenceService, `name/component`.
BY_COMPONENT = "component"
# Pods that a Job of that name has made.
BY_JOB = "job"

# The owners whose keys a change of an owned object wakes.
_OWNERS: dict[Kind, Kind] = {
    kinds.KNATIVE_SERVICE: kinds.INFERENCE_SERVICE,
    kinds.CONFIGURATION: kinds.KNATIVE_SERVICE,
    kinds.ROUTE: kinds.KNATIVE_SERVICE,
    kinds.REVISION: kinds.CONFIGURATION,
    kinds.POD_AUTOSCALER: kinds.REVISION,
}


class Index:
    """Names of the watched objects by relation, and the version of each that was last seen."""

    def __init__(self) -> None:
        self._versions: dict[Key, int] = {}
        self._relations: dict[Key, tuple[Relation, ...]] = {}
        self._members: dict[Relation, dict[str, None]] = {}
        # What an object refers to by kind and name, in any namespace, and who refers to it.
        self._references: dict[Key, frozenset[Key]] = {}
        self._referrers: dict[Key, dict[Key, None]] = {}

    def put(self, kind: Kind, obj: Object) -> bool:
        """Takes note of an object; False if this version or a later one was known already."""
        key = Key(kind, namespace_of(obj), name_of(obj))
        version = version_of(obj)
        if self._versions.get(key, -1) >= version:
            return False
        self._forget_relations(key)
        self._versions[key] = version
        relations = tuple(_relations(kind, obj))
        self._relations[key] = relations
        for relation in relations:
            self._members.setdefault(relation, {})[key.name] = None
        references = frozenset(Key(*target) for target in references_of(kind, obj))
        if references:
            self._references[key] = references
        for target in references:
            self._referrers.setdefault(target, {})[key] = None
        return True

    def drop(self, key: Key) -> None:
        self._versions.pop(key, None)
        self._forget_relations(key)

    def members(self, relation: Relation) -> list[str]:
        """Names of the objects in that relation, sorted."""
        return sorted(self._members.get(relation, ()))

    def keys(self, kind: Kind) -> list[Key]:
        """Every known object of a kind; for rare events only."""
        return [key for key in self._versions if key.kind == kind]

    def _forget_relations(self, key: Key) -> None:
        for relation in self._relations.pop(key, ()):
            members = self._members[relation]
            members.pop(key.name, None)
            if not members:
                del self._members[relation]
        for target in self._references.pop(key, ()):
            referrers = self._referrers[target]
            referrers.pop(key, None)
            if not referrers:
                del self._referrers[target]

    def concerned(self, kind: Kind, obj: Object) -> Iterator[Key]:
        """The keys to reconcile after a change of `obj`, itself not among them."""
        namespace = namespace_of(obj)
        yield from self._referrers.get(Key(kind, namespace, name_of(obj)), ())
        owner_kind = _OWNERS.get(kind)
        owner = owner_name(obj, owner_kind) if owner_kind else None
        if owner_kind and owner:
            yield Key(owner_kind, namespace, owner)
        if kind == kinds.POD:
            yield from _concerned_by_pod(obj)
        elif kind == kinds.CONFIGURATION:
            yield from self._routes(BY_CONFIGURATION, namespace, name_of(obj))
        elif kind == kinds.REVISION:
            yield from self._routes(BY_REVISION, namespace, name_of(obj))
            # Those that it is labelled with may have dropped it, or may never have named it.
            for route in routes_of(obj):
                yield Key(kinds.ROUTE, namespace, route)
            configuration = labels_of(obj).get(names.CONFIGURATION_LABEL, "")
            yield from self._routes(BY_CONFIGURATION, namespace, configuration)
        elif kind in (kinds.SERVING_RUNTIME, kinds.CLUSTER_SERVING_RUNTIME):
            yield from self._users_of(obj)

    def _routes(self, by: str, namespace: str, value: str) -> Iterator[Key]:
        for name in self.members(Relation(kinds.ROUTE, by, namespace, value)):
            yield Key(kinds.ROUTE, namespace, name)

    def _users_of(self, runtime: Object) -> Iterator[Key]:
        # Those that run on it, and those that wait for a runtime to appear (they use the one named "").
        wanted = (name_of(runtime), "")
        for key in self.keys(kinds.INFERENCE_SERVICE):
            used = [relation.value for relation in self._relations[key] if relation.by == BY_RUNTIME]
            if namespace_of(runtime) in ("", key.namespace) and any(name in wanted for name in used):
                yield key


def _concerned_by_pod(pod: Object) -> Iterator[Key]:
    namespace, labels = namespace_of(pod), labels_of(pod)
    if names.REVISION_LABEL in labels:
        yield Key(kinds.REVISION, namespace, labels[names.REVISION_LABEL])
    if names.INFERENCE_SERVICE_LABEL in labels:
        yield Key(kinds.INFERENCE_SERVICE, namespace, labels[names.INFERENCE_SERVICE_LABEL])
    job = owner_name(pod, kinds.JOB)
    if job:
        yield Key(kinds.JOB, namespace, job)


def _relations(kind: Kind, obj: Object) -> Iterable[Relation]:
    namespace, labels = namespace_of(obj), labels_of(obj)
    if kind == kinds.POD:
        if names.REVISION_LABEL in labels:
            yield Relation(kind, BY_REVISION, namespace, labels[names.REVISION_LABEL])
        if names.INFERENCE_SERVICE_LABEL in labels:
            component = f"{labels[names.INFERENCE_SERVICE_LABEL]}/{labels.get(names.COMPONENT_LABEL, '')}"
            yield Relation(kind, BY_COMPONENT, namespace, component)
        job = owner_name(obj, kinds.JOB)
        if job:
            yield Relation(kind, BY_JOB, namespace, job)
    elif kind == kinds.REVISION:
        if names.CONFIGURATION_LABEL in labels:
            yield Relation(kind, BY_CONFIGURATION, namespace, labels[names.CONFIGURATION_LABEL])
        for route in routes_of(obj):
            yield Relation(kind, BY_ROUTE, namespace, route)
    elif kind == kinds.ROUTE:
        yield from _targets(obj)
    elif kind == kinds.KNATIVE_SERVICE:
        owner = owner_name(obj, kinds.INFERENCE_SERVICE)
        if owner:
            yield Relation(kind, BY_OWNER, namespace, owner)
    elif kind == kinds.INFERENCE_SERVICE:
        status = at(obj, "status") or {}
        used = status.get("servingRuntimeName") or status.get("clusterServingRuntimeName") or ""
        yield Relation(kind, BY_RUNTIME, namespace, used)


def _targets(route: Object) -> Iterable[Relation]:
    namespace = namespace_of(route)
    found: dict[Relation, None] = {}
    for part in ("spec", "status"):
        for target in at(route, part, "traffic") or ():
            for field, by in (("revisionName", BY_REVISION), ("configurationName", BY_CONFIGURATION)):
                if target.get(field):
                    found[Relation(kinds.ROUTE, by, namespace, target[field])] = None
    return found


def routes_of(revision: Object) -> list[str]:
    """The routes that a revision is labelled with, sorted."""
    return sorted(part for part in annotations_of(revision).get(ROUTES_ANNOTATION, "").split(",") if part)
