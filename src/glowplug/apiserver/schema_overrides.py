"""Facts of the Kubernetes API that the generated Python models have lost, stated once.

Which strings are quantities, which untyped fields are "int or string", which lists are maps by a key (for
server-side apply and strategic merge patches), which models are other names of one another.
"""

from __future__ import annotations

QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"

# Model names that stand for something else: another model, or a basic type of the builder.
ALIASES = {
    "K8sIoApiAppsV1DeploymentStrategy": "V1DeploymentStrategy",
    "K8sIoApiAutoscalingV2HorizontalPodAutoscalerBehavior": "V2HorizontalPodAutoscalerBehavior",
    "KnativeDevServingPkgApisServingV1TrafficTarget": "ServingTrafficTarget",
    "KnativeURL": "str",
    "KnativeVolatileTime": "datetime",
    "V1Time": "datetime",
    "V1alpha1WorkerSpec": "V1beta1WorkerSpec",
    "V1beta1MetricQuantity": "ResourceQuantity",
}

# (model, field) -> type, where the generated type says too little.
FIELD_TYPES = {
    ("AdmissionregistrationV1WebhookClientConfig", "caBundle"): "bytes",
    ("V1EmptyDirVolumeSource", "sizeLimit"): "ResourceQuantity",
    ("V1ConfigMap", "binaryData"): "dict(str, bytes)",
    ("V1HTTPGetAction", "port"): "IntOrString",
    ("V1Secret", "data"): "dict(str, bytes)",
    ("V1TCPSocketAction", "port"): "IntOrString",
    ("V1RollingUpdateDeployment", "maxSurge"): "IntOrString",
    ("V1RollingUpdateDeployment", "maxUnavailable"): "IntOrString",
    ("V1ResourceFieldSelector", "divisor"): "ResourceQuantity",
    ("V1ResourceRequirements", "limits"): "dict(str, ResourceQuantity)",
    ("V1ResourceRequirements", "requests"): "dict(str, ResourceQuantity)",
    ("V1VolumeResourceRequirements", "limits"): "dict(str, ResourceQuantity)",
    ("V1VolumeResourceRequirements", "requests"): "dict(str, ResourceQuantity)",
    ("V1PodSpec", "overhead"): "dict(str, ResourceQuantity)",
    ("V1PodStatus", "allocatedResources"): "dict(str, ResourceQuantity)",
    ("V1ContainerStatus", "allocatedResources"): "dict(str, ResourceQuantity)",
}

# Required by Kubernetes, not by Knative: without a port a probe asks the container's own.
OPTIONAL = frozenset({("V1HTTPGetAction", "port"), ("V1TCPSocketAction", "port"), ("V1GRPCAction", "port")})

# Lists that are maps by these keys. Fields of these names mean the same in a PodSpec, in the KServe specs that
# inline one, and in a revision template.
LIST_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "webhooks": ("name",),
    "matchConditions": ("name",),
}
# The one key that strategic merge patches use, where it is not the first of LIST_KEYS's.
PATCH_KEYS = {"topologySpreadConstraints": "topologyKey", "ports": "containerPort"}
# Their items are replaced whole, beside merging the list.
PATCH_RETAIN_KEYS = frozenset({"volumes", "resourceClaims"})
SETS = frozenset({"finalizers"})

_GROUPS = {
    "io.k8s.apimachinery.pkg.apis.meta.v1": (
        "Condition", "FieldSelectorRequirement", "LabelSelector", "LabelSelectorRequirement", "ListMeta",
        "ManagedFieldsEntry", "ObjectMeta", "OwnerReference",
    ),
    "io.k8s.api.batch.v1": (
        "Job", "JobCondition", "JobSpec", "JobStatus", "PodFailurePolicy", "PodFailurePolicyOnExitCodesRequirement",
        "PodFailurePolicyOnPodConditionsPattern", "PodFailurePolicyRule", "SuccessPolicy", "SuccessPolicyRule",
        "UncountedTerminatedPods",
    ),
    "io.k8s.api.coordination.v1": ("Lease", "LeaseSpec"),
    "io.k8s.api.admissionregistration.v1": (
        "MatchCondition", "MutatingWebhook", "MutatingWebhookConfiguration", "RuleWithOperations",
        "ValidatingWebhook", "ValidatingWebhookConfiguration",
    ),
    "io.k8s.api.apps.v1": ("DeploymentStrategy", "RollingUpdateDeployment"),
}  # fmt: skip
_GROUP_OF = {f"V1{name}": group for group, names in _GROUPS.items() for name in names}

_PREFIXES = (
    ("CoreV1", "io.k8s.api.core.v1"),
    ("AdmissionregistrationV1", "io.k8s.api.admissionregistration.v1"),
    ("V2", "io.k8s.api.autoscaling.v2"),
    ("V1", "io.k8s.api.core.v1"),
    ("Serving", "dev.knative.serving.v1"),
    ("Autoscaling", "dev.knative.internal.autoscaling.v1alpha1"),
    ("Eventing", "dev.knative.eventing.v1"),
    ("Sources", "dev.knative.sources.v1"),
    ("Sinks", "dev.knative.sinks.v1alpha1"),
    ("Duck", "dev.knative.pkg.duck.v1"),
    ("Knative", "dev.knative.pkg.apis"),
)
_KSERVE = (("V1beta1", "io.kserve.serving.v1beta1"), ("V1alpha1", "io.kserve.serving.v1alpha1"))


def definition_name(model: str, is_kserve: bool) -> str:
    """The name under which OpenAPI knows a model; it is what `kubectl explain` finds a kind's fields by."""
    if model in _GROUP_OF:
        return f"{_GROUP_OF[model]}.{model[2:]}"
    for prefix, group in (*(_KSERVE if is_kserve else ()), *_PREFIXES):
        if model.startswith(prefix):
            return f"{group}.{model[len(prefix) :]}"
    return f"dev.glowplug.unknown.{model}"
