from __future__ import annotations

from typing import Any

import pytest
from unit.controllers.fakes import CRASH, DOWNLOAD_FAILS, HANG, READY, Object
from unit.controllers.machine import NAMESPACE, Machine, inference_service, runtime

from glowplug.spec import kinds, names

FLIGHTS_URL = "http://127.0.0.1:8080/serving/default/flights"
TRANSFORMER = {
    "name": "transformer-container",
    "image": "glowplug/feature-lookup",
    "ports": [{"containerPort": 8090}],
    "args": ["--model_name={{.Name}}", "--http_port=8090", "--predictor_host=localhost:8081"],
    "envFrom": [{"configMapRef": {"name": "feature-store"}}],
    "volumeMounts": [{"name": "views", "mountPath": "/etc/views"}],
}


def with_runtime(image: str = "glowplug/xgboost") -> Machine:
    machine = Machine()
    found = runtime()
    found["spec"]["containers"][0]["image"] = image
    machine.apply(kinds.CLUSTER_SERVING_RUNTIME, found)
    return machine


def apply(machine: Machine, **extra: Any) -> None:
    machine.apply(kinds.INFERENCE_SERVICE, inference_service(**extra))
    machine.settle()


def status_of(machine: Machine, name: str = "flights") -> Object:
    found: Object = machine.get(kinds.INFERENCE_SERVICE, name)["status"]
    return found


def condition(machine: Machine, type: str = "Ready") -> tuple[str, str, str]:
    return machine.condition(kinds.INFERENCE_SERVICE, "flights", type)


def template(machine: Machine, name: str = "flights-predictor") -> Object:
    found: Object = machine.get(kinds.KNATIVE_SERVICE, name)["spec"]["template"]
    return found


def test_an_inference_service_becomes_ready_with_kserve_s_status() -> None:
    machine = with_runtime()
    apply(machine)
    status = status_of(machine)
    assert [(c["type"], c["status"], c.get("severity", "")) for c in status["conditions"]] == [
        ("IngressReady", "True", ""),
        ("LatestDeploymentReady", "True", "Info"),
        ("PredictorConfigurationReady", "True", "Info"),
        ("PredictorReady", "True", ""),
        ("PredictorRouteReady", "True", "Info"),
        ("Ready", "True", ""),
        ("RoutesReady", "True", "Info"),
        ("Stopped", "False", "Info"),
    ]
    assert status["url"] == FLIGHTS_URL and status["address"] == {"url": FLIGHTS_URL}
    assert status["deploymentMode"] == "Knative"
    assert status["clusterServingRuntimeName"] == "glowplug-xgboost" and "servingRuntimeName" not in status
    assert status["observedGeneration"] == 1
    predictor_url = "http://127.0.0.1:8080/serving/default/flights-predictor"
    assert status["components"] == {
        "predictor": {
            "address": {"url": predictor_url},
            "latestCreatedRevision": "flights-predictor-00001",
            "latestReadyRevision": "flights-predictor-00001",
            "latestRolledoutRevision": "flights-predictor-00001",
            "traffic": [{"latestRevision": True, "percent": 100, "revisionName": "flights-predictor-00001"}],
            "url": predictor_url,
        }
    }
    assert status["modelStatus"] == {
        "copies": {"failedCopies": 0, "totalCopies": 1},
        "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
        "transitionStatus": "UpToDate",
    }
    assert (
        "flights",
        "Normal",
        "InferenceServiceReady",
        "InferenceService [flights] is Ready",
    ) in machine.events
    machine.assert_settled()


def test_the_service_is_built_from_the_runtime_and_the_model() -> None:
    machine = with_runtime()
    model = {
        "modelFormat": {"name": "xgboost"},
        "protocolVersion": "v2",
        "storageUri": "pvc://models/flights",
        "runtimeVersion": "1.2",
        "args": ["--nthread=2"],
        "env": [{"name": "OMP_NUM_THREADS", "value": "4"}, {"name": "B", "value": "b"}],
        "resources": {"limits": {"memory": "1Gi"}},
    }
    apply(
        machine,
        predictor={
            "model": model,
            "minReplicas": 2,
            "maxReplicas": 5,
            "scaleTarget": 10,
            "scaleMetric": "rps",
            "containerConcurrency": 8,
            "timeout": 20,
            "serviceAccountName": "robot",
            "logger": {"mode": "all", "url": "http://broker", "metadataHeaders": ["a", "b"]},
            "labels": {"team": "predictors"},
            "annotations": {"note": "own"},
        },
        labels={"team": "all", "networking.knative.dev/visibility": "cluster-local"},
        annotations={"note": "shared", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    )
    service = machine.get(kinds.KNATIVE_SERVICE, "flights-predictor")
    assert service["metadata"]["labels"] == {
        "team": "predictors",
        "networking.knative.dev/visibility": "cluster-local",
        "serving.kserve.io/inferenceservice": "flights",
        "component": "predictor",
    }
    owner = service["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("InferenceService", "flights", True)
    metadata, spec = template(machine)["metadata"], template(machine)["spec"]
    assert "networking.knative.dev/visibility" not in metadata["labels"]
    assert metadata["annotations"] == {
        "serving.kserve.io/deploymentMode": "Knative",
        "note": "own",
        "autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev",
        "autoscaling.knative.dev/min-scale": "2",
        "autoscaling.knative.dev/max-scale": "5",
        "autoscaling.knative.dev/target": "10",
        "autoscaling.knative.dev/metric": "rps",
        "internal.serving.kserve.io/storage-initializer-sourceuri": "pvc://models/flights",
        "internal.serving.kserve.io/logger": "true",
        "internal.serving.kserve.io/logger-mode": "all",
        "internal.serving.kserve.io/logger-sink-url": "http://broker",
        "internal.serving.kserve.io/logger-metadata-headers": "a,b",
    }
    assert (spec["timeoutSeconds"], spec["responseStartTimeoutSeconds"], spec["containerConcurrency"]) == (
        20,
        20,
        8,
    )
    assert spec["serviceAccountName"] == "robot"
    (container,) = spec["containers"]
    assert container["name"] == "kserve-container" and container["image"] == "glowplug/xgboost:1.2"
    assert container["args"] == [
        "--model_name=flights",
        "--model_dir=/mnt/models",
        "--http_port=8080",
        "--nthread=2",
    ]
    assert container["env"] == [
        {"name": "OMP_NUM_THREADS", "value": "4"},
        {"name": "B", "value": "b"},
        {"name": "INFERENCE_SERVICE_NAME", "value": "flights"},
    ]
    assert container["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    assert len(machine.pods("flights-predictor-00001")) == 2


def test_one_pod_with_a_collocated_transformer() -> None:
    machine = with_runtime()
    apply(
        machine, containers=[TRANSFORMER], volumes=[{"name": "views", "configMap": {"name": "feature-views"}}]
    )
    spec = template(machine)["spec"]
    assert [container["name"] for container in spec["containers"]] == [
        "kserve-container",
        "transformer-container",
    ]
    transformer = spec["containers"][1]
    assert transformer["args"][0] == "--model_name=flights"
    assert transformer["readinessProbe"]["tcpSocket"] == {"port": 0}
    assert "readinessProbe" not in spec["containers"][0] and "ports" not in spec["containers"][0]
    assert spec["volumes"] == [{"name": "views", "configMap": {"name": "feature-views"}}]
    (pod,) = machine.pods("flights-predictor-00001")
    assert pod["spec"]["containers"][1]["readinessProbe"]["tcpSocket"] == {"port": 8090}
    assert pod["metadata"]["annotations"][names.STORAGE_SOURCE_URI] == "pvc://models/flights"
    assert pod["metadata"]["labels"]["serving.kserve.io/inferenceservice"] == "flights"
    assert condition(machine)[0] == "True"
    assert machine.names(kinds.KNATIVE_SERVICE) == ["flights-predictor"]


def test_two_containers_without_a_port_are_refused_as_knative_does() -> None:
    machine = with_runtime()
    apply(machine, containers=[{key: value for key, value in TRANSFORMER.items() if key != "ports"}])
    status, reason, message = condition(machine, "PredictorReady")
    assert (status, reason) == ("False", "ReconcileFailed")
    assert "ports" in message
    assert machine.names(kinds.KNATIVE_SERVICE) == []


def test_custom_containers() -> None:
    machine = Machine()
    container = {
        "image": "mine",
        "command": ["python", "serve.py"],
        "env": [{"name": "STORAGE_URI", "value": "file:///models"}],
    }
    apply(machine, predictor={"containers": [container]})
    (found,) = template(machine)["spec"]["containers"]
    assert found["name"] == "kserve-container" and found["command"] == ["python", "serve.py"]
    assert template(machine)["metadata"]["annotations"][names.STORAGE_SOURCE_URI] == "file:///models"
    assert condition(machine)[0] == "True"
    assert "clusterServingRuntimeName" not in status_of(machine)


def test_an_older_framework_key_is_a_model() -> None:
    machine = with_runtime()
    apply(machine, predictor={"xgboost": {"storageUri": "s3://models/a", "protocolVersion": "v2"}})
    annotations = template(machine)["metadata"]["annotations"]
    assert annotations[names.STORAGE_SOURCE_URI] == "s3://models/a"
    assert condition(machine)[0] == "True"
    assert "model" not in machine.get(kinds.INFERENCE_SERVICE, "flights")["spec"]["predictor"]


def test_a_transformer_of_its_own_finds_its_predictor_and_takes_the_requests() -> None:
    machine = with_runtime()
    transformer = {"containers": [{"image": "lookup"}], "containerConcurrency": 2, "minReplicas": 0}
    apply(machine, transformer=transformer)
    spec = template(machine, "flights-transformer")["spec"]
    (container,) = spec["containers"]
    assert container["name"] == "kserve-container"
    assert container["args"] == [
        "--model_name", "flights",
        "--predictor_host", "flights-predictor.default",
        "--http_port", "8080",
        "--workers", "2",
    ]  # fmt: skip
    assert condition(machine, "TransformerReady")[0] == "True"
    assert machine.splits("flights") == {"flights-transformer-00001": 100}
    assert machine.splits("flights-predictor") == {"flights-predictor-00001": 100}
    assert set(status_of(machine)["components"]) == {"predictor", "transformer"}
    machine.assert_settled()
    apply(machine)
    machine.advance(30)
    assert machine.names(kinds.KNATIVE_SERVICE) == ["flights-predictor"]
    assert machine.splits("flights") == {"flights-predictor-00001": 100}
    assert set(status_of(machine)["components"]) == {"predictor"}
    assert condition(machine, "TransformerReady") == ("", "", "")
    machine.assert_settled()


def test_a_transformer_that_is_added_takes_the_requests_when_it_is_ready() -> None:
    machine = with_runtime()
    apply(machine)
    apply(machine, transformer={"containers": [{"image": f"lookup-{HANG}"}]})
    machine.advance(60)
    machine.restart()
    machine.settle()
    assert machine.splits("flights") == {"flights-predictor-00001": 100}
    assert condition(machine)[0] == "Unknown" and condition(machine, "TransformerReady")[0] == "Unknown"
    (pod,) = machine.pods("flights-transformer-00001")
    machine.node.orders[pod["metadata"]["name"]] = READY
    machine.settle()
    assert machine.splits("flights") == {"flights-transformer-00001": 100}
    assert condition(machine)[0] == "True"
    machine.node.orders[pod["metadata"]["name"]] = CRASH
    machine.advance(60)
    machine.restart()
    machine.settle()
    assert machine.splits("flights") == {"flights-transformer-00001": 100}, "nobody gets past a transformer"


def test_a_transformer_that_is_removed_stays_until_its_predictor_is_ready() -> None:
    machine = with_runtime()
    apply(machine, transformer={"containers": [{"image": "lookup"}]})
    apply(machine, predictor={"containers": [{"image": f"v2-{HANG}"}]})
    machine.advance(60)
    machine.restart()
    machine.settle()
    assert machine.splits("flights") == {"flights-transformer-00001": 100}
    assert len(machine.pods("flights-transformer-00001")) == 1
    machine.node.orders[machine.pods("flights-predictor-00002")[0]["metadata"]["name"]] = READY
    machine.advance(60)
    assert machine.splits("flights") == {"flights-predictor-00002": 100}
    assert machine.names(kinds.KNATIVE_SERVICE) == ["flights-predictor"]
    machine.assert_settled()


def test_a_first_deployment_answers_only_with_its_transformer() -> None:
    machine = with_runtime()
    apply(machine, transformer={"containers": [{"image": f"lookup-{HANG}"}]})
    machine.advance(10)
    assert machine.condition(kinds.KNATIVE_SERVICE, "flights-predictor")[0] == "True"
    assert machine.splits("flights") == {}
    assert "url" not in status_of(machine)


def test_arguments_of_the_user_s_are_not_added_again() -> None:
    machine = with_runtime()
    args = ["--model_name=x", "--predictor_host=elsewhere:80", "--http_port=9090"]
    apply(machine, transformer={"containers": [{"image": "lookup", "args": args}]})
    assert template(machine, "flights-transformer")["spec"]["containers"][0]["args"] == args


def test_min_replicas_zero_keeps_one_pod_and_says_so_in_the_annotation() -> None:
    machine = with_runtime()
    apply(machine, minReplicas=0)
    assert template(machine)["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] == "0"
    assert len(machine.pods("flights-predictor-00001")) == 1


def test_no_runtime_is_said_and_one_that_appears_is_taken() -> None:
    machine = Machine()
    apply(machine)
    status = status_of(machine)
    assert condition(machine)[:2] == ("False", "NoSupportingRuntime")
    assert "xgboost" in condition(machine)[2]
    assert status["modelStatus"]["transitionStatus"] == "InvalidSpec"
    assert status["modelStatus"]["states"] == {"activeModelState": "", "targetModelState": "FailedToLoad"}
    assert status["modelStatus"]["lastFailureInfo"]["reason"] == "NoSupportingRuntime"
    assert [reason for _, _, reason, _ in machine.events] == ["InternalError"]
    machine.assert_settled()
    machine.apply(kinds.CLUSTER_SERVING_RUNTIME, runtime())
    machine.settle()
    assert condition(machine)[0] == "True"
    assert status_of(machine)["modelStatus"]["transitionStatus"] == "UpToDate"


def test_a_changed_runtime_is_rolled_out() -> None:
    machine = with_runtime()
    apply(machine)
    changed = runtime()
    changed["spec"]["containers"][0]["image"] = "glowplug/xgboost:2"
    machine.apply(kinds.CLUSTER_SERVING_RUNTIME, changed)
    machine.settle()
    assert machine.splits("flights") == {"flights-predictor-00002": 100}


def test_a_new_spec_that_cannot_be_served_leaves_the_old_one_serving() -> None:
    machine = with_runtime()
    apply(machine)
    apply(machine, predictor={"model": {"modelFormat": {"name": "pmml"}, "storageUri": "s3://a/b"}})
    status = status_of(machine)
    assert condition(machine)[0] == "True"
    assert status["modelStatus"]["transitionStatus"] == "InvalidSpec"
    assert status["observedGeneration"] == 1, "what is said of Ready is about the older spec"
    assert machine.splits("flights") == {"flights-predictor-00001": 100}


def test_a_spec_past_admission_is_reported_with_every_problem() -> None:
    machine = with_runtime()
    apply(machine, minReplicas=-1, timeout=99999)
    status, reason, message = condition(machine)
    assert (status, reason) == ("False", "InvalidPredictorSpec")
    assert "minReplicas" in message and "timeout" in message


def test_a_model_that_crashes_is_blocked_by_its_failure() -> None:
    machine = with_runtime(f"glowplug/xgboost-{CRASH}")
    apply(machine)
    status = status_of(machine)
    assert condition(machine)[:2] == ("False", "RevisionFailed")
    assert status["modelStatus"] == {
        "copies": {"failedCopies": 0},
        "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
        "transitionStatus": "BlockedByFailedLoad",
        "lastFailureInfo": {
            "reason": "ModelLoadFailed",
            "message": "boom: no such model",
            "exitCode": 1,
            "time": "2026-01-01T00:00:00Z",
        },
    }
    assert condition(machine, "IngressReady")[0] == "Unknown"
    machine.advance(1000)
    assert status_of(machine)["modelStatus"]["lastFailureInfo"]["message"] == "boom: no such model"
    machine.assert_settled()


def test_a_download_that_fails_is_a_failure_of_the_model() -> None:
    machine = with_runtime(f"glowplug/xgboost-{DOWNLOAD_FAILS}")
    apply(machine)
    assert status_of(machine)["modelStatus"]["lastFailureInfo"]["reason"] == "ModelLoadFailed"


def test_stop_deletes_the_services_and_start_brings_them_back() -> None:
    machine = with_runtime()
    apply(machine)
    apply(machine, annotations={"serving.kserve.io/stop": "true"})
    machine.advance(60)
    assert machine.names(kinds.KNATIVE_SERVICE) == [] and machine.names(kinds.POD) == []
    assert condition(machine, "Stopped")[0] == "True"
    for type in ("Ready", "PredictorReady", "IngressReady"):
        assert condition(machine, type)[:2] == ("False", "Stopped")
    assert "url" not in status_of(machine) and machine.tables[-1].routes == ()
    machine.assert_settled()
    apply(machine)
    assert condition(machine)[0] == "True" and condition(machine, "Stopped")[0] == "False"
    assert machine.splits("flights") == {"flights-predictor-00001": 100}


def test_disable_auto_update_keeps_a_ready_service_as_it_is() -> None:
    machine = with_runtime()
    apply(machine, annotations={"serving.kserve.io/disable-auto-update": "true"})
    changed = runtime()
    changed["spec"]["containers"][0]["image"] = "glowplug/xgboost:2"
    machine.apply(kinds.CLUSTER_SERVING_RUNTIME, changed)
    machine.restart()
    machine.settle()
    assert machine.names(kinds.REVISION) == ["flights-predictor-00001"]
    assert machine.splits("flights") == {"flights-predictor-00001": 100}


def test_a_foreign_knative_service_of_that_name_is_left_alone() -> None:
    machine = with_runtime()
    theirs = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "flights-predictor", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"image": "theirs"}]}}},
    }
    machine.apply(kinds.KNATIVE_SERVICE, theirs)
    apply(machine)
    assert condition(machine)[:2] == ("False", "ReconcileFailed")
    assert machine.names(kinds.REVISION) == ["flights-predictor-00001"]


def test_a_name_too_long_for_its_predictor_is_refused_as_in_a_cluster() -> None:
    machine = with_runtime()
    name = "f" * 60
    machine.apply(kinds.INFERENCE_SERVICE, inference_service(name))
    machine.settle()
    assert machine.condition(kinds.INFERENCE_SERVICE, name, "PredictorReady")[0] == "False"
    assert machine.names(kinds.KNATIVE_SERVICE) == []


def test_deleting_it_takes_everything_with_it() -> None:
    machine = with_runtime()
    apply(machine, transformer={"containers": [{"image": "lookup"}]})
    machine.objects.delete(kinds.INFERENCE_SERVICE, "default", "flights")
    machine.settle()
    assert {kind for kind, _, _ in machine.objects.live} == {kinds.CLUSTER_SERVING_RUNTIME}
    assert machine.tables[-1].routes == ()


class TestCanary:
    def change(self, machine: Machine, image: str, percent: int | None, **annotations: str) -> None:
        predictor: dict[str, Any] = {"containers": [{"image": image}]}
        if percent is not None:
            predictor["canaryTrafficPercent"] = percent
        machine.apply(
            kinds.INFERENCE_SERVICE, inference_service(predictor=predictor, annotations=annotations)
        )
        machine.advance(30)

    def component(self, machine: Machine) -> Object:
        found: Object = status_of(machine)["components"]["predictor"]
        return found

    def test_on_a_first_deployment_all_traffic_goes_to_the_only_revision(self) -> None:
        machine = Machine()
        self.change(machine, "v1", 10)
        assert machine.splits("flights") == {"flights-predictor-00001": 100}
        assert self.component(machine)["latestRolledoutRevision"] == "flights-predictor-00001"

    def test_split_promotion_and_rollback(self) -> None:
        machine = Machine()
        self.change(machine, "v1", None)
        self.change(machine, "v2", 10)
        first, second = "flights-predictor-00001", "flights-predictor-00002"
        assert machine.splits("flights") == {first: 90, second: 10}
        assert self.component(machine)["latestRolledoutRevision"] == first
        assert machine.get(kinds.KNATIVE_SERVICE, "flights-predictor")["spec"]["traffic"] == [
            {"latestRevision": True, "percent": 10},
            {"latestRevision": False, "percent": 90, "revisionName": first, "tag": "prev"},
        ]
        assert machine.splits("prev-flights-predictor") == {first: 100}
        self.change(machine, "v2", 50)
        assert machine.splits("flights") == {first: 50, second: 50}
        assert machine.names(kinds.REVISION) == [first, second]
        self.change(machine, "v2", None)
        assert machine.splits("flights") == {second: 100}
        assert machine.pods(first) == []
        component = self.component(machine)
        assert (component["latestRolledoutRevision"], component["previousRolledoutRevision"]) == (
            second,
            first,
        )
        self.change(machine, "v2", 0)
        assert machine.splits("flights") == {first: 100}
        assert self.component(machine)["latestRolledoutRevision"] == first
        machine.assert_settled()

    def test_zero_takes_a_canary_back(self) -> None:
        machine = Machine()
        self.change(machine, "v1", None)
        self.change(machine, "v2", 20)
        self.change(machine, "v2", 0)
        assert machine.splits("flights") == {"flights-predictor-00001": 100}
        assert self.component(machine)["latestRolledoutRevision"] == "flights-predictor-00001"

    def test_a_canary_that_does_not_start_gets_no_traffic(self) -> None:
        machine = Machine()
        self.change(machine, "v1", None)
        self.change(machine, f"v2-{HANG}", 10)
        assert machine.splits("flights") == {"flights-predictor-00001": 100}
        (pod,) = machine.pods("flights-predictor-00002")
        machine.node.orders[pod["metadata"]["name"]] = READY
        machine.settle()
        assert machine.splits("flights") == {"flights-predictor-00001": 90, "flights-predictor-00002": 10}

    def test_tags_when_they_are_asked_for(self) -> None:
        machine = Machine()
        self.change(machine, "v1", None, **{names.ENABLE_TAG_ROUTING: "true"})
        self.change(machine, "v2", 10, **{names.ENABLE_TAG_ROUTING: "true"})
        assert machine.splits("latest-flights-predictor") == {"flights-predictor-00002": 100}
        assert machine.splits("prev-flights-predictor") == {"flights-predictor-00001": 100}

    def test_a_third_version_in_the_middle_of_a_canary_keeps_the_rolled_out_one(self) -> None:
        machine = Machine()
        self.change(machine, "v1", None)
        self.change(machine, "v2", None)
        self.change(machine, "v3", 10)
        self.change(machine, "v4", 10)
        assert machine.splits("flights") == {"flights-predictor-00002": 90, "flights-predictor-00004": 10}
        assert self.component(machine)["latestRolledoutRevision"] == "flights-predictor-00002"


@pytest.mark.parametrize("way", ["deleted", "stopped"])
def test_a_predictor_goes_when_the_pods_of_its_transformer_have_gone(way: str) -> None:
    machine = with_runtime()
    apply(machine, transformer={"containers": [{"image": "lookup"}]})
    assert machine.get(kinds.INFERENCE_SERVICE, "flights")["metadata"]["finalizers"] == [
        "inferenceservice.finalizers"
    ]
    (pod,) = machine.pods("flights-transformer-00001")
    if way == "deleted":
        machine.objects.delete(kinds.INFERENCE_SERVICE, NAMESPACE, "flights")
    else:
        stopped = inference_service(
            transformer={"containers": [{"image": "lookup"}]}, annotations={"serving.kserve.io/stop": "true"}
        )
        machine.apply(kinds.INFERENCE_SERVICE, stopped)
    machine.advance(30, node=False)
    assert machine.splits("flights") == {}
    assert "deletionTimestamp" in machine.get(kinds.POD, pod["metadata"]["name"])["metadata"]
    # The transformer's last requests ask it still.
    assert machine.splits("flights-predictor") == {"flights-predictor-00001": 100}
    assert len(machine.pods("flights-predictor-00001")) == 1
    machine.restart()
    machine.advance(30)
    assert machine.names(kinds.POD) == []
    assert machine.names(kinds.KNATIVE_SERVICE) == []
    assert machine.names(kinds.INFERENCE_SERVICE) == ([] if way == "deleted" else ["flights"])
