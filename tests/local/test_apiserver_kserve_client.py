"""KServe's own SDK, unchanged, against the API server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import kubernetes
import pytest
from kserve import (
    KServeClient,
    V1beta1InferenceService,
    V1beta1InferenceServiceSpec,
    V1beta1ModelFormat,
    V1beta1ModelSpec,
    V1beta1PredictorSpec,
    constants,
)
from kubernetes import client
from local.apiserver_fixture import ApiLab, api_server, wait_until

from glowplug.spec.kinds import INFERENCE_SERVICE


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiLab]:
    with api_server(tmp_path_factory.mktemp("sdk")) as lab:
        yield lab


@pytest.fixture
def kserve(lab: ApiLab) -> KServeClient:
    return KServeClient(config_file=str(lab.config.kubeconfig))


class DictService(dict[str, Any]):
    """A typed InferenceService as the JSON that it stands for, with the attributes that the SDK reads of it.

    Release 37 of the Kubernetes client takes nothing but dicts; KServe 0.21 hands it the typed object as it is.
    """

    class Metadata:
        """The two fields that the SDK looks at, kept in the JSON."""

        def __init__(self, json: dict[str, Any]) -> None:
            self._json = json
            self.namespace = json["namespace"]

        @property
        def resource_version(self) -> str | None:
            return self._json.get("resourceVersion")

        @resource_version.setter
        def resource_version(self, value: str) -> None:
            self._json["resourceVersion"] = value

    def __init__(self, typed: V1beta1InferenceService) -> None:
        super().__init__(client.ApiClient().sanitize_for_serialization(_plain(typed)))
        self.api_version = typed.api_version
        self.metadata = self.Metadata(self["metadata"])


def _plain(value: Any) -> Any:
    """KServe's models by their JSON names; everything else as it is."""
    if hasattr(value, "attribute_map"):
        fields = ((name, getattr(value, key)) for key, name in value.attribute_map.items())
        return {name: _plain(one) for name, one in fields if one is not None}
    return value


def service(name: str, uri: str = "pvc://models/flights") -> Any:
    model = V1beta1ModelSpec(
        model_format=V1beta1ModelFormat(name="xgboost"), storage_uri=uri, protocol_version="v2"
    )
    typed = V1beta1InferenceService(
        api_version=constants.KSERVE_V1BETA1,
        kind=constants.KSERVE_KIND_INFERENCESERVICE,
        metadata=client.V1ObjectMeta(name=name, namespace="default"),
        spec=V1beta1InferenceServiceSpec(predictor=V1beta1PredictorSpec(model=model)),
    )
    return typed if int(kubernetes.__version__.split(".")[0]) < 37 else DictService(typed)


def become_ready(lab: ApiLab, name: str) -> None:
    def write() -> None:
        obj = lab.objects.get(INFERENCE_SERVICE, "default", name)
        conditions = [{"type": one, "status": "True"} for one in ("PredictorReady", "Ready")]
        obj["status"] = {
            "url": f"http://127.0.0.1:8080/serving/default/{name}",
            "observedGeneration": obj["metadata"]["generation"],
            "conditions": conditions,
        }
        lab.objects.update_status(INFERENCE_SERVICE, obj)

    lab.do(write)


def test_create_get_delete(kserve: KServeClient, lab: ApiLab) -> None:
    made = kserve.create(service("made"))
    assert made["spec"]["predictor"]["model"]["storageUri"] == "pvc://models/flights"
    assert kserve.get("made", namespace="default")["metadata"]["uid"] == made["metadata"]["uid"]
    assert [one["metadata"]["name"] for one in kserve.get(namespace="default")["items"]] == ["made"]
    with pytest.raises(RuntimeError, match="AlreadyExists"):
        kserve.create(service("made"))
    kserve.delete("made", namespace="default")
    with pytest.raises(RuntimeError, match="not found"):
        kserve.get("made", namespace="default")


def test_patch_and_replace(kserve: KServeClient) -> None:
    kserve.create(service("changed"))
    patched = kserve.patch("changed", service("changed", "pvc://models/trains"))
    assert patched["spec"]["predictor"]["model"]["storageUri"] == "pvc://models/trains"
    assert patched["metadata"]["generation"] == 2
    replaced = kserve.replace("changed", service("changed", "pvc://models/boats"))
    assert replaced["spec"]["predictor"]["model"]["storageUri"] == "pvc://models/boats"
    kserve.delete("changed", namespace="default")


def test_wait_until_ready(kserve: KServeClient, lab: ApiLab) -> None:
    kserve.create(service("slow"))
    assert kserve.is_isvc_ready("slow", namespace="default") is False
    timer = threading.Timer(0.3, become_ready, (lab, "slow"))
    timer.start()
    start = time.monotonic()
    kserve.wait_isvc_ready("slow", namespace="default", timeout_seconds=10, polling_interval=0.1)
    assert time.monotonic() - start < 8
    timer.join()
    assert kserve.is_isvc_ready("slow", namespace="default") is True


def test_watch(kserve: KServeClient, lab: ApiLab, capsys: pytest.CaptureFixture[str]) -> None:
    kserve.create(service("watched"))
    follower = threading.Thread(
        target=kserve.get,
        args=("watched",),
        kwargs={"namespace": "default", "watch": True, "timeout_seconds": 10},
    )
    follower.start()
    wait_until(lambda: lab.state.hub.watcher_count == 1)
    become_ready(lab, "watched")
    follower.join(10)
    assert not follower.is_alive(), "the SDK ends its watch when the service is ready"
    assert "watched" in capsys.readouterr().out


def test_plain_kubernetes_client(kserve: KServeClient) -> None:
    core = client.CoreV1Api(kserve.api_instance.api_client)
    wish = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="c"), data={"a": "b"})
    core.create_namespaced_config_map("default", wish)
    assert core.read_namespaced_config_map("c", "default").data == {"a": "b"}
    core.patch_namespaced_config_map("c", "default", {"data": {"a": "c"}})
    assert [one.data for one in core.list_namespaced_config_map("default").items] == [{"a": "c"}]
    core.delete_namespaced_config_map("c", "default")
    assert core.list_namespaced_config_map("default").items == []
