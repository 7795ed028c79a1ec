"""Which values of an object have one owner as a whole, and which have owners inside.

Server-side apply and strategic merge patch need to know it of every field: is this list one value, a set, or a
list of named things (and by which keys)? Is this map a record of the schema, or free keys such as labels? One
table by field name answers for each of three families, because a name never changes its meaning within a family:
the kinds built into Kubernetes, KServe's and Knative's. The last two say in their CRDs what differs: there,
`containers` is one value.

`Shape` is what the walkers of `fieldsets_typed.py` and `apply_merge.py` carry down an object. A field that no
table names is a record; a list that no table names is one value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson


class ShapeError(ValueError):
    """A value cannot be what its field's shape says; `path` says where, as managed-field paths are written."""


@dataclass(frozen=True, eq=False)
class Shape:
    """How a value is owned.

    `keys` is for lists: None makes a list one value, `()` a set of scalars, names a list of maps told apart by
    those fields. `is_record` is for maps: their keys are fields of the schema, which nobody owns in themselves,
    whereas a free key is owned by who added it.
    """

    fields: Mapping[str, Shape] = field(default_factory=dict)
    other: Shape | None = None
    is_record: bool = True
    is_atomic: bool = False
    keys: tuple[str, ...] | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    items: Shape | None = None

    def child(self, name: str) -> Shape:
        """The shape of the value under `name`."""
        return self.fields.get(name) or self.other or self

    def has_field(self, name: str) -> bool:
        """Whether the schema has a field of that name here, rather than leaving the key to whoever adds it."""
        return self.is_record or name in self.fields

    def below(self, element: str) -> Shape:
        """The shape under a path element: a field (`f:`), or an item of a list (`k:`, `v:`)."""
        if element.startswith("f:"):
            return self.child(element[2:])
        return self.items or self

    def item_element(self, item: object) -> str:
        """The path element that names `item` of a list with keys or of a set; `ShapeError` if nothing names it."""
        if not self.keys:
            if item is None or isinstance(item, (dict, list)):
                raise ShapeError("a set takes strings, numbers and booleans only")
            return "v:" + canonical_json(item)
        if not isinstance(item, dict):
            raise ShapeError("associative list with keys may not have non-map elements")
        named = {key: item.get(key, self.defaults.get(key)) for key in self.keys}
        named = {key: value for key, value in named.items() if value is not None}
        if not named:
            wanted = " ".join(f'"{key}"' for key in self.keys)
            raise ShapeError(
                f"associative list with keys has an element that omits all key fields [{wanted}]"
            )
        return "k:" + canonical_json(named)


def canonical_json(value: object) -> str:
    """Compact JSON with sorted keys, so that equal values give equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


ATOMIC = Shape(is_atomic=True)
# Free keys all the way down: what a schema leaves open (`x-kubernetes-preserve-unknown-fields`).
OPEN = Shape(is_record=False)

_PORT_KEYS = ("containerPort", "protocol")
_SPREAD_KEYS = ("topologyKey", "whenUnsatisfiable")
_CONTAINER_LISTS = {
    "env": ("name",),
    "ports": _PORT_KEYS,
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "claims": ("name",),
}
_POD_LISTS = {
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "topologySpreadConstraints": _SPREAD_KEYS,
}
_REFERENCES = (
    "configMapKeyRef", "dataSource", "fieldRef", "fileKeyRef", "labelSelector", "namespaceSelector",
    "nodePublishSecretRef", "nodeSelector", "preference", "resourceFieldRef", "secretKeyRef", "secretRef",
    "requiredDuringSchedulingIgnoredDuringExecution",
)  # fmt: skip
_OPEN_MAPS = (
    "annotations", "labels", "limits", "matchLabels", "options", "overhead", "requests", "volumeAttributes",
)  # fmt: skip


_METADATA = Shape(
    fields={
        "annotations": OPEN,
        "labels": OPEN,
        "finalizers": Shape(keys=(), items=ATOMIC),
        "ownerReferences": Shape(keys=("uid",), items=ATOMIC),
    },
    other=Shape(),
)
# In Knative's CRDs the pod template's metadata is open, but for these.
_TEMPLATE_METADATA = Shape(
    fields={
        "annotations": OPEN,
        "labels": OPEN,
        "finalizers": Shape(),
        "name": Shape(),
        "namespace": Shape(),
    },
    other=OPEN,
    is_record=False,
)


@dataclass(frozen=True)
class _Family:
    """The table of a family: what the fields of these names are, wherever they stand in an object."""

    lists: Mapping[str, tuple[str, ...]]
    atomic_maps: tuple[str, ...] = ()
    open_maps: tuple[str, ...] = ()
    record_maps: tuple[str, ...] = ()
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    # Records whose children differ from the table.
    exceptions: Mapping[str, Mapping[str, Shape]] = field(default_factory=dict)

    def record(self) -> Shape:
        """The record whose every descendant is looked up in this table."""
        fields: dict[str, Shape] = {}
        record = Shape(fields=fields)
        fields.update(dict.fromkeys(self.atomic_maps, ATOMIC))
        fields.update(dict.fromkeys(self.open_maps, OPEN))
        fields.update({name: Shape(other=record, is_record=False) for name in self.record_maps})
        fields.update({name: _keyed(keys, record) for name, keys in self.lists.items()})
        fields.update(self.shapes)
        for name, children in self.exceptions.items():
            fields[name] = Shape(fields={**fields, **children}, other=record)
        return record


def _keyed(keys: tuple[str, ...], record: Shape) -> Shape:
    """A list by those keys; where the same name is a map (`overhead`), it is a record."""
    defaults = {"protocol": "TCP"} if keys == _PORT_KEYS else {}
    return Shape(fields=record.fields, other=record, keys=keys, defaults=defaults, items=record)


def _root(record: Shape, **fields: Shape) -> Shape:
    return Shape(fields={**record.fields, "metadata": _METADATA, **fields}, other=record)


_BUILT_IN = _Family(
    lists={
        **_CONTAINER_LISTS,
        **_POD_LISTS,
        "conditions": ("type",),
        "containers": ("name",),
        "ephemeralContainers": ("name",),
        "hostAliases": ("ip",),
        "initContainers": ("name",),
        "podIPs": ("ip",),
        "resourceClaimStatuses": ("name",),
        "volumes": ("name",),
        "webhooks": ("name",),
        "failed": (),
        "succeeded": (),
    },
    atomic_maps=(*_REFERENCES, "involvedObject", "objectSelector", "related", "selector"),
    open_maps=(*_OPEN_MAPS, "allocatedResources", "binaryData", "data", "stringData", "userAnnotations"),
    shapes={"metadata": _METADATA, "imagePullSecrets": Shape(keys=("name",), items=ATOMIC)},
).record()

_KSERVE = _Family(
    lists={**_CONTAINER_LISTS, **_POD_LISTS},
    atomic_maps=(*_REFERENCES, "configMapRef"),
    open_maps=(*_OPEN_MAPS, "config", "parameters"),
    record_maps=("components", "nodes"),
).record()

_KSERVE_RUNTIME = _Family(
    lists={**_CONTAINER_LISTS, "resourceClaims": ("name",)},
    atomic_maps=tuple(name for name in (*_REFERENCES, "configMapRef") if name != "nodeSelector"),
    open_maps=(*_OPEN_MAPS, "nodeSelector", "parameters"),
    record_maps=("nodes",),
    exceptions={"builtInAdapter": {"env": Shape()}},
).record()

_KNATIVE = _Family(
    lists={"volumes": ("name",)},
    atomic_maps=("configMap", "nodeSelector", "scaleTargetRef"),
    open_maps=(
        *_OPEN_MAPS, "affinity", "attributes", "csi", "dnsConfig", "emptyDir", "ephemeral", "extensions",
        "hostPath", "image", "job", "persistentVolumeClaim", "securityContext",
    ),
    shapes={"imagePullSecrets": Shape(keys=("name",), items=ATOMIC)},
    exceptions={"template": {"metadata": _TEMPLATE_METADATA}},
).record()  # fmt: skip

_ROOTS: dict[tuple[str, str], Shape] = {
    ("", "ServiceAccount"): _root(
        _BUILT_IN, imagePullSecrets=Shape(), secrets=Shape(keys=("name",), items=ATOMIC)
    ),
    ("batch", "Job"): _root(
        _BUILT_IN, status=Shape(fields={**_BUILT_IN.fields, "conditions": Shape()}, other=_BUILT_IN)
    ),
    ("serving.kserve.io", "InferenceGraph"): _root(_KSERVE_RUNTIME),
    ("serving.kserve.io", "ServingRuntime"): _root(_KSERVE_RUNTIME),
    ("serving.kserve.io", "ClusterServingRuntime"): _root(_KSERVE_RUNTIME),
}
_FAMILIES = {
    "": _root(_BUILT_IN),
    "admissionregistration.k8s.io": _root(_BUILT_IN),
    "batch": _root(_BUILT_IN),
    "coordination.k8s.io": _root(_BUILT_IN),
    "serving.kserve.io": _root(_KSERVE),
}
_OTHERS = _root(_KNATIVE)


def shape_of(api_version: str, kind: str) -> Shape:
    """The shape of a whole object of that kind."""
    group = api_version.rpartition("/")[0]
    return _ROOTS.get((group, kind)) or _FAMILIES.get(group) or _OTHERS


@dataclass(frozen=True)
class PatchList:
    """How strategic merge patch treats a list: by the field `key`, or as a set of scalars where it is None."""

    key: str | None


# The built-in kinds' own patch keys; they are not always those of apply (`ports` here lacks the protocol).
_PATCH_LISTS: dict[str, PatchList] = {
    "conditions": PatchList("type"),
    "containers": PatchList("name"),
    "env": PatchList("name"),
    "ephemeralContainers": PatchList("name"),
    "finalizers": PatchList(None),
    "hostAliases": PatchList("ip"),
    "hostIPs": PatchList("ip"),
    "imagePullSecrets": PatchList("name"),
    "initContainers": PatchList("name"),
    "ownerReferences": PatchList("uid"),
    "podIPs": PatchList("ip"),
    "ports": PatchList("containerPort"),
    "resourceClaimStatuses": PatchList("name"),
    "resourceClaims": PatchList("name"),
    "schedulingGates": PatchList("name"),
    "secrets": PatchList("name"),
    "topologySpreadConstraints": PatchList("topologyKey"),
    "volumeDevices": PatchList("devicePath"),
    "volumeMounts": PatchList("mountPath"),
    "volumes": PatchList("name"),
    "webhooks": PatchList("name"),
}


def patch_list(name: str) -> PatchList | None:
    """How strategic merge patch merges the list under `name`; None where it replaces it."""
    return _PATCH_LISTS.get(name)
