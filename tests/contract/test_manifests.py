"""Every kustomization builds, every object is one that its API takes, and everything that is named is there."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from contract.manifests_lab import (
    MANIFESTS,
    OVERLAYS,
    PLATFORM_NAMESPACES,
    ROOT,
    Object,
    built,
    containers,
    is_component,
    key,
    kustomizations,
    of_kind,
    overlay,
    pods,
    urls,
    with_component,
)

from glowplug.apiserver.schema import Schemas
from glowplug.apiserver.schema_check import check
from glowplug.cli import platform
from glowplug.rollout import platform as rollouts
from glowplug.spec import kinds, names
from glowplug.warmfloor import settings as floors

KUBERNETES = "1.34"
# What platform/configs adds to KServe's own object; it is whole only once the API server has put both together.
PARTIAL = {"ClusterStorageContainer"}
LOCAL = [path.parent for path in kustomizations() if not urls(path) and not is_component(path)]
REMOTE = [path for path in kustomizations() if urls(path)]
COMPONENTS = [path.parent for path in kustomizations() if is_component(path)]
# Where Redis and the models are is the user's to say.
BROUGHT_BY_USERS = {
    "production": {
        ("ConfigMap", "serving", "feature-store"),
        ("PersistentVolumeClaim", "serving", "models"),
        ("Secret", "serving", "model-storage"),
        ("Secret", "serving", "offline-store"),
    },
    # The machine's folder of models, and the Redis of the demo.
    "local": {("ConfigMap", "", "feature-store"), ("PersistentVolumeClaim", "", "models")},
}


def short(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return Schemas.load()


def faults(schemas: Schemas, target: Object) -> list[str]:
    """What the kind's real schema says against an object."""
    kind = kinds.by_name(target["apiVersion"], target["kind"])
    if kind is not None and not kind.group.endswith(("kserve.io", "knative.dev")):
        kind = None
    if kind is None:
        if target["kind"] in PARTIAL:
            return []
        if not target["apiVersion"].partition("/")[0].endswith(("knative.dev", "argoproj.io")):
            kubernetes_validate.validate(target, KUBERNETES, strict=True)
        # Else of a kind that the machine has not: test_eventing holds it to its real CRD.
        return []
    found = check(schemas, kind, target)
    return [
        *(f"unknown: {each}" for each in found.unknown),
        *map(str, found.problems),
        *map(str, found.missing),
    ]


@pytest.mark.parametrize("folder", LOCAL, ids=short)
def test_builds_and_is_valid(folder: pathlib.Path, schemas: Schemas) -> None:
    objects = built(folder)
    assert objects
    assert [(key(each), fault) for each in objects for fault in faults(schemas, each)] == []


@pytest.mark.parametrize("folder", COMPONENTS, ids=short)
def test_component_builds_and_is_valid(
    folder: pathlib.Path, schemas: Schemas, tmp_path: pathlib.Path
) -> None:
    objects = with_component(folder, tmp_path)
    assert [(key(each), fault) for each in objects for fault in faults(schemas, each)] == []
    plain = {key(each): each for each in (*built(MANIFESTS / "base"), *built(MANIFESTS / "base/flights"))}
    changed = [each for each in objects if plain.get(key(each)) != each]
    assert changed, "a component that changes nothing"
    # A strategic merge would have dropped them, see STYLE.
    for service in of_kind(objects, "InferenceService"):
        assert all("image" in each and "args" in each for each in containers(service["spec"]["predictor"]))


def test_a_wrong_object_is_found_out(schemas: Schemas) -> None:
    runtime = of_kind(overlay("kind"), "ClusterServingRuntime")[0]
    assert faults(schemas, {**runtime, "spec": {**runtime["spec"], "contianers": []}})
    with pytest.raises(kubernetes_validate.ValidationError):
        faults(
            schemas, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
        )


@pytest.mark.parametrize("path", REMOTE, ids=short)
def test_what_comes_from_elsewhere_is_pinned(path: pathlib.Path) -> None:
    for url in urls(path):
        assert re.fullmatch(
            r"https://github\.com/[\w-]+/[\w-]+/releases/download/(knative-)?v?\d+\.\d+\.\d+/[\w.-]+\.yaml",
            url,
        )
    by_repository: dict[str, set[str]] = {}
    for url in urls(path):
        by_repository.setdefault("/".join(url.split("/")[3:5]), set()).add(url.split("/")[7])
    assert all(len(versions) == 1 for versions in by_repository.values()), by_repository


@pytest.mark.parametrize(
    ("controller", "least"), [("knative-serving", platform.KNATIVE), ("kserve", platform.KSERVE)]
)
def test_doctor_asks_for_what_is_pinned(controller: str, least: tuple[int, int]) -> None:
    found = urls(MANIFESTS / "platform/controllers" / controller / "kustomization.yaml")
    assert platform.version_of(found[0].split("/")[7]) == least


def test_annotations_that_change_reach_no_revision() -> None:
    config = next(
        each for each in built(MANIFESTS / "platform/configs/kserve") if each["kind"] == "ConfigMap"
    )
    rollouts.check(config)
    listed = json.loads(config["data"]["inferenceService"])["serviceAnnotationDisallowedList"]
    floor = {value for value in vars(floors).values() if str(value).startswith(floors.ENABLED)}
    assert {*names.ROLLOUT_KEYS, names.CANARY_AFFINITY, names.SHADOW, *floor} == set(listed)
    assert len(floor) == 7
    assert json.loads(config["data"]["ingress"])["disableIstioVirtualHost"] is True


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_that_is_named_is_there(name: str) -> None:
    objects = overlay(name)
    there = {key(each) for each in objects} | BROUGHT_BY_USERS.get(name, set())
    missing = [
        (key(owner), wanted) for owner in objects for wanted in references(owner) if wanted not in there
    ]
    assert missing == []


@pytest.mark.parametrize("name", [each for each in OVERLAYS if each != "local"])
def test_every_namespace_is_there(name: str) -> None:
    objects = overlay(name)
    there = {each["metadata"]["name"] for each in of_kind(objects, "Namespace")} | PLATFORM_NAMESPACES
    assert {each["metadata"].get("namespace", "serving") for each in objects} <= there


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_model_has_a_runtime(name: str) -> None:
    runtimes = of_kind(overlay(name), "ClusterServingRuntime")
    formats = {
        each["name"]
        for runtime in runtimes
        for each in runtime["spec"]["supportedModelFormats"]
        if each.get("autoSelect")
    }
    services = of_kind(overlay(name), "InferenceService")
    assert services
    assert {each["spec"]["predictor"]["model"]["modelFormat"]["name"] for each in services} <= formats


@pytest.mark.parametrize("name", OVERLAYS)
def test_selectors_and_ports_meet(name: str) -> None:
    objects = overlay(name)
    templates = [
        (each["metadata"]["namespace"], each["spec"]["template"])
        for each in of_kind(objects, "Deployment", "StatefulSet")
    ]
    for each in of_kind(objects, "Service", "PodDisruptionBudget"):
        wanted = each["spec"]["selector"].get("matchLabels", each["spec"]["selector"])
        chosen = [
            template
            for namespace, template in templates
            if namespace == each["metadata"]["namespace"]
            and wanted.items() <= template["metadata"]["labels"].items()
        ]
        assert len(chosen) == 1, key(each)
        open_ports = {port["name"] for box in chosen[0]["spec"]["containers"] for port in box["ports"]}
        assert {port["targetPort"] for port in each["spec"].get("ports", ())} <= open_ports, key(each)


@pytest.mark.parametrize("name", OVERLAYS)
def test_addresses_within_the_bundle_lead_somewhere(name: str) -> None:
    objects = overlay(name)
    services = {
        (each["metadata"]["name"], each["metadata"]["namespace"]): each
        for each in of_kind(objects, "Service")
    }
    text = yaml.safe_dump_all(objects)
    for service, namespace, port in re.findall(r"//([\w-]+)\.(backing|glowplug)(?:\.svc)?:(\d+)", text):
        ports = {each["port"] for each in services[service, namespace]["spec"]["ports"]}
        assert int(port) in ports
    for space, service in re.findall(r"--webhook-service=([\w-]+)/([\w-]+)", text):
        assert (service, space) in services


def test_the_local_machine_runs_the_same_files() -> None:
    own = list(yaml.safe_load_all((ROOT / "transformers/feature-lookup/isvc.yaml").read_text()))
    assert of_kind(overlay("local"), "InferenceService") == own
    in_cluster = of_kind(built(MANIFESTS / "base/flights"), "InferenceService")
    assert [{**each, "metadata": {**each["metadata"], "namespace": "serving"}} for each in own] == in_cluster


@pytest.mark.parametrize("name", ["staging", "production"])
def test_rollouts_are_asked_for_in_words_that_the_controller_takes(name: str) -> None:
    from glowplug.rollout import settings
    from glowplug.rollout.sources import PrometheusSource

    for service in of_kind(overlay(name), "InferenceService"):
        assert settings.parse(service["metadata"]["annotations"], PrometheusSource.metrics) is not None


def references(owner: Object) -> set[tuple[str, str, str]]:
    """What an object names of its own namespace, but for what is optional; and the roles that it binds."""
    namespace = owner["metadata"].get("namespace", "")
    found: set[tuple[str, str, str]] = set()
    if "roleRef" in owner:
        role = owner["roleRef"]
        found.add((role["kind"], namespace if role["kind"] == "Role" else "", role["name"]))
        found |= {("ServiceAccount", each["namespace"], each["name"]) for each in owner["subjects"]}
    for _, pod in pods((owner,)):
        found |= {(kind, namespace, name) for kind, name in _named(pod)}
        found |= (
            {("ServiceAccount", namespace, pod["serviceAccountName"])}
            if "serviceAccountName" in pod
            else set()
        )
        uri = pod.get("model", {}).get("storageUri", "") if isinstance(pod.get("model"), dict) else ""
        if uri.startswith("pvc://"):
            found.add(("PersistentVolumeClaim", namespace, uri.split("/")[2]))
    found |= _destinations(owner.get("spec"), namespace)
    if owner["kind"] == "ServiceAccount":
        found |= {("Secret", namespace, each["name"]) for each in owner.get("secrets", ())}
    if owner["kind"] == "Trigger":
        found.add(("Broker", namespace, owner["spec"]["broker"]))
    if owner["kind"] == "StatefulSet":
        found.add(("Service", namespace, owner["spec"]["serviceName"]))
    return found


def _destinations(target: Any, namespace: str) -> set[tuple[str, str, str]]:
    """Where events are sent."""
    if isinstance(target, list):
        return {found for each in target for found in _destinations(each, namespace)}
    if not isinstance(target, dict):
        return set()
    found = {each for value in target.values() for each in _destinations(value, namespace)}
    for field in ("sink", "subscriber", "deadLetterSink"):
        ref = target[field].get("ref") if isinstance(target.get(field), dict) else None
        if ref:
            found.add((ref["kind"], ref.get("namespace", namespace), ref["name"]))
    return found


def _named(target: Any) -> set[tuple[str, str]]:
    if isinstance(target, list):
        return {found for each in target for found in _named(each)}
    if not isinstance(target, dict):
        return set()
    found = {each for value in target.values() for each in _named(value)}
    for field, kind in (
        ("configMapRef", "ConfigMap"), ("configMapKeyRef", "ConfigMap"), ("configMap", "ConfigMap"),
        ("secretRef", "Secret"), ("secretKeyRef", "Secret"), ("secret", "Secret"),
    ):  # fmt: skip
        named = target.get(field)
        if isinstance(named, dict) and not named.get("optional"):
            found.add((kind, named.get("name") or named["secretName"]))
    return found


def test_prometheus_keeps_what_the_controllers_ask_for() -> None:
    from glowplug.rollout import sources
    from glowplug.warmfloor import demand

    jobs = {
        each["job_name"]: each
        for each in yaml.safe_load((MANIFESTS / "platform/prometheus-scrape.yaml").read_text())
    }
    asked = re.findall(r"kn_serving_\w+", sources.KNATIVE_QUERY)
    assert asked
    assert all(_is_kept(jobs["knative-revisions"], name) for name in asked)
    assert {"namespace", "revision"} <= {
        each.get("target_label") for each in jobs["knative-revisions"]["relabel_configs"]
    }
    pattern = re.search(r'__name__=~"([^"]+)"', demand.KNATIVE_QUERY)
    assert pattern is not None and re.fullmatch(pattern[1], "kn_revision_concurrency_panic")
    assert _is_kept(jobs["knative-serving"], "kn_revision_concurrency_panic")


def _is_kept(job: Object, metric: str) -> bool:
    keeps = [each["regex"] for each in job["metric_relabel_configs"] if each["action"] == "keep"]
    return all(re.fullmatch(regex, metric) for regex in keeps)
