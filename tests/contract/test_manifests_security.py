"""Nothing in the bundle may do more than it needs: pods are restricted, rights are few, passwords are referred to."""

from __future__ import annotations

import pytest
from contract.manifests_lab import MANIFESTS, OVERLAYS, Object, built, containers, key, of_kind, overlay, pods

# Kafka's start script writes into the image's folders, Triton makes its repository in its working directory.
WRITES_INTO_THE_IMAGE = {"kafka", "glowplug-triton"}
CONTROLLERS = built(MANIFESTS / "base/controllers")
ISVC, KNATIVE = "serving.kserve.io", "serving.knative.dev"
ADMISSION = "admissionregistration.k8s.io"

# account, verb, group, resource, namespace, name
NEEDED = [
    ("rollout", "watch", ISVC, "inferenceservices", "serving", ""),
    ("rollout", "patch", ISVC, "inferenceservices", "serving", "flights"),
    ("rollout", "patch", ISVC, "inferenceservices/status", "serving", "flights"),
    ("rollout", "list", KNATIVE, "services", "serving", ""),
    ("rollout", "get", KNATIVE, "revisions", "serving", "flights-predictor-00001"),
    ("rollout", "list", "", "pods", "serving", ""),
    ("rollout", "create", "", "events", "serving", ""),
    ("rollout", "get", "", "configmaps", "kserve", "inferenceservice-config"),
    ("rollout", "create", "coordination.k8s.io", "leases", "glowplug", ""),
    ("rollout", "update", "coordination.k8s.io", "leases", "glowplug", "glowplug-rollout"),
    ("rollout", "create", "", "secrets", "glowplug", ""),
    ("rollout", "update", "", "secrets", "glowplug", "rollout-certificate"),
    ("rollout", "create", ADMISSION, "mutatingwebhookconfigurations", "", ""),
    ("rollout", "update", ADMISSION, "mutatingwebhookconfigurations", "", "rollout.glowplug.dev"),
    ("warm-floor", "watch", ISVC, "inferenceservices", "serving", ""),
    ("warm-floor", "patch", KNATIVE, "revisions", "serving", "flights-predictor-00001"),
    ("warm-floor", "list", "", "pods", "serving", ""),
    ("warm-floor", "create", "", "events", "serving", ""),
    ("warm-floor", "delete", "", "configmaps", "serving", "flights-warm-floor"),
    ("warm-floor", "update", "coordination.k8s.io", "leases", "glowplug", "glowplug-warm-floor"),
]
REFUSED_TO_BOTH = [
    ("get", "", "secrets", "serving", "storage"),
    ("list", "", "secrets", "serving", ""),
    ("list", "", "secrets", "glowplug", ""),
    ("create", "", "pods", "serving", ""),
    ("delete", "", "pods", "serving", "a"),
    ("patch", "", "pods", "serving", "a"),
    ("create", "", "pods/exec", "serving", "a"),
    ("get", "", "pods/log", "serving", "a"),
    ("list", "", "pods", "kube-system", ""),
    ("patch", "apps", "deployments", "serving", "a"),
    ("patch", "", "namespaces", "", "serving"),
    ("patch", "apiextensions.k8s.io", "customresourcedefinitions", "", "a"),
    ("create", "", "serviceaccounts/token", "glowplug", "rollout"),
    ("create", ISVC, "inferenceservices", "serving", ""),
    ("delete", ISVC, "inferenceservices", "serving", "a"),
    ("patch", ISVC, "inferenceservices", "default", "a"),
]
REFUSED = [
    *((who, *case) for case in REFUSED_TO_BOTH for who in ("rollout", "warm-floor")),
    ("rollout", "get", "", "secrets", "glowplug", "another"),
    ("rollout", "get", "", "configmaps", "kserve", "another"),
    ("rollout", "update", "", "configmaps", "kserve", "inferenceservice-config"),
    (
        "rollout",
        "update",
        ADMISSION,
        "mutatingwebhookconfigurations",
        "",
        "inferenceservice.serving.kserve.io",
    ),
    ("rollout", "delete", ADMISSION, "mutatingwebhookconfigurations", "", "rollout.glowplug.dev"),
    ("rollout", "create", ADMISSION, "validatingwebhookconfigurations", "", ""),
    ("rollout", "update", "coordination.k8s.io", "leases", "glowplug", "glowplug-warm-floor"),
    ("rollout", "patch", KNATIVE, "services", "serving", "a"),
    ("warm-floor", "patch", ISVC, "inferenceservices", "serving", "a"),
    ("warm-floor", "get", "", "secrets", "glowplug", "rollout-certificate"),
    ("warm-floor", "get", "", "configmaps", "kube-system", "coredns"),
    ("warm-floor", "delete", KNATIVE, "revisions", "serving", "a"),
    ("warm-floor", "create", ADMISSION, "mutatingwebhookconfigurations", "", ""),
]


def may(who: str, verb: str, group: str, resource: str, namespace: str, name: str) -> bool:
    """One of the controllers."""
    return may_of(CONTROLLERS, (who, "glowplug"), verb, group, resource, namespace, name)


def may_of(
    objects: tuple[Object, ...],
    who: tuple[str, str],
    verb: str,
    group: str,
    resource: str,
    namespace: str,
    name: str,
) -> bool:
    """As the API decides it for a service account (name, namespace), from the roles that `objects` bind."""
    by_key = {key(each): each for each in objects}
    subject = {"kind": "ServiceAccount", "name": who[0], "namespace": who[1]}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        if subject not in binding["subjects"]:
            continue
        space = binding["metadata"].get("namespace", "")
        if space and space != namespace:
            continue
        role = binding["roleRef"]
        rules = by_key[role["kind"], space if role["kind"] == "Role" else "", role["name"]]["rules"]
        if any(_grants(rule, verb, group, resource, name) for rule in rules):
            return True
    return False


def _grants(rule: Object, verb: str, group: str, resource: str, name: str) -> bool:
    wanted = ((verb, "verbs"), (group, "apiGroups"), (resource, "resources"))
    is_named = "resourceNames" not in rule or name in rule["resourceNames"]
    return is_named and all({value, "*"} & set(rule[field]) for value, field in wanted)


@pytest.mark.parametrize("case", NEEDED, ids=lambda case: " ".join(case))
def test_may(case: tuple[str, str, str, str, str, str]) -> None:
    assert may(*case)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: " ".join(case))
def test_may_not(case: tuple[str, str, str, str, str, str]) -> None:
    assert not may(*case)


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_role_is_without_bounds(name: str) -> None:
    for role in of_kind(overlay(name), "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}, key(role)
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), key(role)


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_restricted(name: str) -> None:
    for owner, pod in pods(overlay(name)):
        of_pod = pod.get("securityContext", {})
        for container in containers(pod):
            own = {**of_pod, **container["securityContext"]}
            where = f"{key(owner)} {container['name']}"
            assert own["runAsNonRoot"] is True, where
            assert own["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            if owner["metadata"]["name"] not in WRITES_INTO_THE_IMAGE:
                assert own["readOnlyRootFilesystem"] is True, where
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][kind].keys(), where
        assert "hostNetwork" not in pod and "hostPID" not in pod
        assert not [volume for volume in pod.get("volumes", ()) if "hostPath" in volume]


@pytest.mark.parametrize("name", [each for each in OVERLAYS if each != "local"])
def test_namespaces_refuse_what_is_not_restricted(name: str) -> None:
    for space in of_kind(overlay(name), "Namespace"):
        assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_password_is_written_into_a_pod(name: str) -> None:
    for owner, pod in pods(overlay(name)):
        for container in containers(pod):
            for variable in container.get("env", ()):
                is_secret = any(word in variable["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "USER"))
                assert not (is_secret and "value" in variable), (key(owner), variable["name"])
    for config in of_kind(overlay(name), "ConfigMap"):
        assert "password" not in str(config.get("data")).lower(), key(config)


@pytest.mark.parametrize("name", ["staging", "production"])
def test_nothing_is_reached_unless_said(name: str) -> None:
    denied = {
        each["metadata"]["namespace"]
        for each in of_kind(overlay(name), "NetworkPolicy")
        if each["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    assert denied == {"glowplug", "serving"}


@pytest.mark.parametrize("name", ["kind", "staging", "production"])
def test_a_node_may_go(name: str) -> None:
    budgets = {
        each["metadata"]["name"]: each["spec"] for each in of_kind(overlay(name), "PodDisruptionBudget")
    }
    for controller in of_kind(overlay(name), "Deployment"):
        assert controller["spec"]["replicas"] > budgets[controller["metadata"]["name"]]["minAvailable"]
