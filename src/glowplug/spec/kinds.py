"""The kinds of object that the machine serves, each spelled once.

A kind knows how the API names it; what an object of it may hold is in the schema, what a table of it shows is in
the API server. Kinds that only the cluster runs are not here: asking for one is a clear 404.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind as discovery describes it: `group` is empty for the core kinds."""

    group: str
    version: str
    name: str
    plural: str
    short_names: tuple[str, ...] = ()
    is_namespaced: bool = True
    categories: tuple[str, ...] = ()
    has_status: bool = True
    # Served, but not written by users: the machine itself derives or records it.
    is_read_only: bool = False

    @property
    def api_version(self) -> str:
        """`v1`, or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        """The lower-case name, as `kubectl get <singular>` takes it."""
        return self.name.lower()

    @property
    def resource(self) -> str:
        """`plural.group`, as error messages write it; the plural alone for core kinds."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACE = Kind("", "v1", "Namespace", "namespaces", ("ns",), is_namespaced=False)
POD = Kind("", "v1", "Pod", "pods", ("po",), categories=("all",))
EVENT = Kind("", "v1", "Event", "events", ("ev",), has_status=False)
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", ("cm",), has_status=False)
SECRET = Kind("", "v1", "Secret", "secrets", has_status=False)
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts", ("sa",), has_status=False)
JOB = Kind("batch", "v1", "Job", "jobs", categories=("all",))
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases", has_status=False)

INFERENCE_SERVICE = Kind(
    "serving.kserve.io",
    "v1beta1",
    "InferenceService",
    "inferenceservices",
    ("isvc",),
    categories=("all", "kserve"),
)
INFERENCE_GRAPH = Kind("serving.kserve.io", "v1alpha1", "InferenceGraph", "inferencegraphs", ("ig",))
SERVING_RUNTIME = Kind("serving.kserve.io", "v1alpha1", "ServingRuntime", "servingruntimes")
CLUSTER_SERVING_RUNTIME = Kind(
    "serving.kserve.io", "v1alpha1", "ClusterServingRuntime", "clusterservingruntimes", is_namespaced=False
)

KNATIVE_SERVICE = Kind(
    "serving.knative.dev",
    "v1",
    "Service",
    "services",
    ("kservice", "ksvc"),
    categories=("all", "knative", "serving"),
)
CONFIGURATION = Kind(
    "serving.knative.dev",
    "v1",
    "Configuration",
    "configurations",
    ("config", "cfg"),
    categories=("all", "knative", "serving"),
)
REVISION = Kind(
    "serving.knative.dev", "v1", "Revision", "revisions", ("rev",), categories=("all", "knative", "serving")
)
ROUTE = Kind(
    "serving.knative.dev", "v1", "Route", "routes", ("rt",), categories=("all", "knative", "serving")
)
POD_AUTOSCALER = Kind(
    "autoscaling.internal.knative.dev",
    "v1alpha1",
    "PodAutoscaler",
    "podautoscalers",
    ("kpa", "pa"),
    categories=("knative-internal", "autoscaling"),
)

BROKER = Kind("eventing.knative.dev", "v1", "Broker", "brokers", categories=("all", "knative", "eventing"))
TRIGGER = Kind("eventing.knative.dev", "v1", "Trigger", "triggers", categories=("all", "knative", "eventing"))
KAFKA_SOURCE = Kind(
    "sources.knative.dev", "v1", "KafkaSource", "kafkasources", categories=("all", "knative", "sources")
)
PING_SOURCE = Kind(
    "sources.knative.dev", "v1", "PingSource", "pingsources", categories=("all", "knative", "sources")
)
JOB_SINK = Kind(
    "sinks.knative.dev", "v1alpha1", "JobSink", "jobsinks", categories=("all", "knative", "eventing", "sink")
)

MUTATING_WEBHOOK_CONFIGURATION = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
    is_namespaced=False,
    categories=("api-extensions",),
    has_status=False,
)
VALIDATING_WEBHOOK_CONFIGURATION = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    is_namespaced=False,
    categories=("api-extensions",),
    has_status=False,
)

# Derived from the schemas, for clients that look for definitions before they watch (kopf does).
CUSTOM_RESOURCE_DEFINITION = Kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    ("crd", "crds"),
    is_namespaced=False,
    is_read_only=True,
)

KINDS: tuple[Kind, ...] = (
    NAMESPACE, POD, EVENT, CONFIG_MAP, SECRET, SERVICE_ACCOUNT, JOB, LEASE,
    INFERENCE_SERVICE, INFERENCE_GRAPH, SERVING_RUNTIME, CLUSTER_SERVING_RUNTIME,
    KNATIVE_SERVICE, CONFIGURATION, REVISION, ROUTE, POD_AUTOSCALER,
    BROKER, TRIGGER, KAFKA_SOURCE, PING_SOURCE, JOB_SINK,
    MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION,
    CUSTOM_RESOURCE_DEFINITION,
)  # fmt: skip

# Stored and served like every other kind, but no controller of the machine acts on them.
UNMANAGED: tuple[Kind, ...] = (INFERENCE_GRAPH,)

_BY_RESOURCE = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
_BY_NAME = {(kind.api_version, kind.name): kind for kind in KINDS}


def by_resource(group: str, version: str, plural: str) -> Kind | None:
    """The kind behind `/apis/<group>/<version>/<plural>`, or None."""
    return _BY_RESOURCE.get((group, version, plural))


def by_name(api_version: str, name: str) -> Kind | None:
    """The kind that an object's `apiVersion` and `kind` name, or None."""
    return _BY_NAME.get((api_version, name))
