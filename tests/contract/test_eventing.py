"""What happens with events: every object against its real CRD, every event that asks for a retraining starts one, and
the Job of it may do what it needs and nothing else."""

from __future__ import annotations

import pathlib

import kubernetes_validate
import pytest
import yaml
from contract import crds
from contract.manifests_lab import MANIFESTS, ROOT, Object, built, key, of_kind, overlay
from contract.test_manifests_security import may_of

from glowplug.spec.eventing import parse_broker

FOLDERS = [
    *(ROOT / "eventing" / name for name in ("channel", "kafka", "local")),
    *(ROOT / "pipelines" / name for name in ("job", "argo")),
]
MODULES = {
    "eventing.knative.dev": crds.EVENTING,
    "sources.knative.dev": crds.EVENTING,
    "sinks.knative.dev": crds.EVENTING,
    "serving.knative.dev": crds.SERVING,
    "argoproj.io": crds.ARGO,
}
# Kafka's kinds are in a module of their own, which Go's proxy may not have.
ELSEWHERE = {"KafkaSource"}
STARTING = (
    "dev.glowplug.drift.detected",
    "dev.glowplug.data.arrived",
    "dev.glowplug.alert.fired",
    "dev.glowplug.retraining.requested",
    "dev.glowplug.rollout.promoted",
    "dev.glowplug.rollout.rolledback",
)
ISVC = "serving.kserve.io"
WORKER = "retrain-flights"
NEEDED = [
    ("create", "", "configmaps", ""),
    ("get", "", "configmaps", "glowplug-retraining-flights"),
    ("update", "", "configmaps", "glowplug-retraining-flights"),
    ("get", ISVC, "inferenceservices", "flights"),
    ("patch", ISVC, "inferenceservices", "flights"),
]
REFUSED = [
    ("get", "", "secrets", "model-storage"),
    ("list", "", "secrets", ""),
    ("create", "", "secrets", ""),
    ("get", "", "configmaps", "feature-store"),
    ("list", "", "configmaps", ""),
    ("update", "", "configmaps", "events"),
    ("delete", "", "configmaps", "glowplug-retraining-flights"),
    ("patch", ISVC, "inferenceservices", "another"),
    ("delete", ISVC, "inferenceservices", "flights"),
    ("create", ISVC, "inferenceservices", ""),
    ("patch", ISVC, "inferenceservices/status", "flights"),
    ("create", "", "pods", ""),
    ("create", "batch", "jobs", ""),
    ("create", "", "pods/exec", "a"),
    ("create", "", "serviceaccounts/token", WORKER),
    ("patch", "sinks.knative.dev", "jobsinks", WORKER),
    ("patch", "rbac.authorization.k8s.io", "roles", WORKER),
]


def short(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", FOLDERS, ids=short)
def test_is_valid_against_the_real_crds(folder: pathlib.Path) -> None:
    checked = 0
    for each in built(folder):
        module = MODULES.get(each["apiVersion"].partition("/")[0])
        if module is None or each["kind"] in ELSEWHERE:
            continue
        if not crds.is_there(module):
            pytest.skip(f"{module[0]}@{module[1]}: no Go here, or no way to its proxy")
        schema = crds.schema_of(module, each["apiVersion"], each["kind"])
        assert schema is not None, key(each)
        assert crds.faults(schema, each) == [], key(each)
        checked += 1
    assert checked


def test_a_wrong_object_is_found_out() -> None:
    if not crds.is_there(crds.ARGO):
        pytest.skip(f"{crds.ARGO[0]}: no Go here, or no way to its proxy")
    schema = crds.schema_of(crds.ARGO, "argoproj.io/v1alpha1", "WorkflowTemplate")
    (template,) = of_kind(built(ROOT / "pipelines/argo"), "WorkflowTemplate")
    assert schema is not None
    assert crds.faults(schema, {**template, "spec": {**template["spec"], "entrypiont": "a"}})
    broken = {**template["spec"], "templates": [{"name": "a", "container": {"image": 1}}]}
    assert crds.faults(schema, {**template, "spec": broken}) == [
        "$.spec.templates[0].container.image: 1 is not of type 'string'"
    ]


@pytest.mark.parametrize("broker", ["channel", "kafka"])
def test_every_event_that_asks_for_a_retraining_starts_one(broker: str) -> None:
    triggers = of_kind(built(ROOT / "eventing" / broker), "Trigger")
    for type in STARTING:
        names = [each["metadata"]["name"] for each in triggers if type in str(each["spec"]["filters"])]
        assert len(names) == 1, type
    assert all(
        each["spec"]["subscriber"]["ref"]["name"] == WORKER for each in triggers if WORKER in key(each)[2]
    )
    (ping,) = of_kind(built(ROOT / "eventing" / broker), "PingSource")
    model = {"type": "dev.knative.sources.ping", **ping["spec"]["ceOverrides"]["extensions"]}
    assert [{"exact": model}] in [each["spec"]["filters"] for each in triggers]


@pytest.mark.parametrize("broker", ["channel", "kafka"])
def test_what_nobody_takes_is_tried_again_then_kept(broker: str) -> None:
    objects = built(ROOT / "eventing" / broker)
    (found,) = of_kind(objects, "Broker")
    delivery = parse_broker(found).delivery
    assert delivery.retry >= 5 and delivery.delay_s > 0 and delivery.timeout_s
    assert delivery.dead_letter is not None and delivery.dead_letter.reference is not None
    assert delivery.dead_letter.reference.name == "dead-letters"
    # It would replace the Broker's as a whole, dead letters and all.
    assert [key(each) for each in of_kind(objects, "Trigger") if "delivery" in each["spec"]] == []


def test_the_job_of_the_sink_is_a_job() -> None:
    (sink,) = of_kind(built(ROOT / "pipelines/job"), "JobSink")
    job = {"apiVersion": "batch/v1", "kind": "Job", **sink["spec"]["job"]}
    job["metadata"] = {**job["metadata"], "name": WORKER}
    kubernetes_validate.validate(job, "1.34", strict=True)
    assert {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"} <= job["spec"].keys()


def test_the_pipelines_file_is_the_same_but_for_places() -> None:
    here = yaml.safe_load((ROOT / "pipelines/flights/pipeline.yaml").read_text())
    there = yaml.safe_load((ROOT / "pipelines/job/pipeline.yaml").read_text())
    for settings in (here, there):
        for place in ("namespace", "workDir", "offline", "registry", "triggering", "deploying"):
            settings.pop(place, None)
        settings["options"].pop("featureView", None)
    assert here == there


def test_the_workflow_has_all_steps_in_order() -> None:
    (template,) = of_kind(built(ROOT / "pipelines/argo"), "WorkflowTemplate")
    by_name = {each["name"]: each for each in template["spec"]["templates"]}
    tasks = by_name[template["spec"]["entrypoint"]]["dag"]["tasks"]
    order = ["dataset", "train", "evaluate", "profile", "gate", "register", "deploy"]
    assert [task["name"] for task in tasks] == order
    assert [task.get("depends", "").partition(".")[0] for task in tasks] == ["", *order[:-1]]
    for task in tasks:
        step = by_name[task["template"]]
        assert step["retryStrategy"]["limit"] and step["outputs"]["artifacts"]
        assert step["container"]["resources"]["limits"].keys() == {"cpu", "memory"}
    # A challenger that isn't better never deploys.
    assert "'pass'" in tasks[order.index("register")]["when"]
    assert [name for name, each in by_name.items() if each.get("serviceAccountName")] == ["deploying-step"]


@pytest.mark.parametrize("case", NEEDED, ids=lambda case: " ".join(case))
def test_a_retraining_may(case: tuple[str, str, str, str]) -> None:
    verb, group, resource, name = case
    assert may_of(_retraining(), (WORKER, "serving"), verb, group, resource, "serving", name)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: " ".join(case))
def test_a_retraining_may_not(case: tuple[str, str, str, str]) -> None:
    verb, group, resource, name = case
    assert not may_of(_retraining(), (WORKER, "serving"), verb, group, resource, "serving", name)


@pytest.mark.parametrize("case", [*NEEDED, *REFUSED], ids=lambda case: " ".join(case))
def test_nothing_beyond_its_namespace(case: tuple[str, str, str, str]) -> None:
    verb, group, resource, name = case
    assert not may_of(_retraining(), (WORKER, "serving"), verb, group, resource, "default", name)


def test_what_only_takes_events_has_no_key_to_the_api() -> None:
    for service in (each for each in built(ROOT / "eventing/channel") if each["kind"] == "Service"):
        assert service["spec"]["template"]["spec"]["automountServiceAccountToken"] is False, key(service)


@pytest.mark.parametrize("name", ["staging", "production"])
def test_a_retraining_reaches_what_it_needs(name: str) -> None:
    objects = overlay(name)
    (sink,) = of_kind(objects, "JobSink")
    labels = sink["spec"]["job"]["spec"]["template"]["metadata"]["labels"]
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "NetworkPolicy")}
    assert policies["pipelines"]["podSelector"]["matchLabels"].items() <= labels.items()


def _retraining() -> tuple[Object, ...]:
    return built(MANIFESTS / "base/eventing/channel")
