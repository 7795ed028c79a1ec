"""Objects for the tests of validation: valid ones, and any JSON at all in their place."""

from __future__ import annotations

import copy
import re
from typing import Any

from hypothesis import strategies as st

Object = dict[str, Any]

# Field names that the validators read: arbitrary JSON made of them gets further than arbitrary JSON.
_NAMES = re.findall(
    r"\w+",
    """
spec metadata name labels annotations finalizers predictor transformer explainer model sklearn
modelFormat protocolVersion storageUri storage containers initContainers image env envFrom
valueFrom configMapKeyRef secretKeyRef fieldRef fieldPath key value ports containerPort protocol
readinessProbe livenessProbe httpGet tcpSocket exec grpc port command resources limits requests
cpu memory volumes volumeMounts mountPath secret configMap projected sources items path emptyDir
persistentVolumeClaim claimName minReplicas maxReplicas scaleMetric scaleTarget timeout
containerConcurrency canaryTrafficPercent logger mode url template traffic revisionName
latestRevision percent tag timeoutSeconds supportedModelFormats priority autoSelect multiModel
data stringData binaryData immutable type ownerReferences periodSeconds nodeSelector workerSpec
batcher confidential enabled downwardAPI
    """,
)

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(
        ["", "v1", "kserve-container", "pvc://a/b", "oci://x", "10s", "500m", "1Gi", "a/b", "-1", "0"]
    )
)
_keys = st.sampled_from(_NAMES) | st.text(max_size=8)

any_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=6),
    max_leaves=30,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _paths(item, (*path, index))
    return found


def changed(obj: Object) -> st.SearchStrategy[Object]:
    """`obj` with arbitrary JSON at a few arbitrary places."""

    def put(changes: list[tuple[tuple[Any, ...], Any]]) -> Object:
        result = copy.deepcopy(obj)
        for path, value in changes:
            parent: Any = result
            for part in path[:-1]:
                known = isinstance(parent, dict) and part in parent
                listed = isinstance(parent, list) and isinstance(part, int) and part < len(parent)
                parent = parent[part] if known or listed else None
            last = path[-1]
            is_key = isinstance(parent, dict) and isinstance(last, str)
            is_index = isinstance(parent, list) and isinstance(last, int) and last < len(parent)
            if is_key or is_index:
                parent[last] = value
        return result

    return st.lists(st.tuples(st.sampled_from(_paths(obj)), any_json), max_size=3).map(put)


def inference_service(**predictor: Any) -> Object:
    """The collocated form: a model with a transformer in the same pod."""
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "flights", "annotations": {"serving.kserve.io/deploymentMode": "Knative"}},
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "containerConcurrency": 8,
                "timeout": 60,
                "model": {
                    "modelFormat": {"name": "xgboost"},
                    "protocolVersion": "v2",
                    "storageUri": "pvc://models/flights",
                    "env": [{"name": "THREADS", "value": "1"}],
                },
                "containers": [
                    {
                        "name": "transformer-container",
                        "image": "glowplug/feature-lookup",
                        "ports": [{"containerPort": 8090}],
                        "args": [
                            "--model_name=flights",
                            "--http_port=8090",
                            "--predictor_host=localhost:8081",
                        ],
                        "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
                        "envFrom": [{"configMapRef": {"name": "feature-store"}}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": 8090}, "periodSeconds": 5},
                        "volumeMounts": [{"name": "views", "mountPath": "/etc/views", "readOnly": True}],
                    }
                ],
                "volumes": [{"name": "views", "configMap": {"name": "feature-views"}}],
                **predictor,
            }
        },
    }


def custom_inference_service() -> Object:
    """A custom predictor and a transformer of its own."""
    obj = inference_service()
    container = {"image": "example/model:1", "command": ["python", "-m", "model"]}
    obj["spec"] = {
        "predictor": {"containers": [dict(container)]},
        "transformer": {"containers": [dict(container)]},
    }
    return obj


def knative_service(**spec: Any) -> Object:
    container = {
        "image": "example/app:1",
        "ports": [{"containerPort": 8080, "name": "http1"}],
        "env": [{"name": "A", "value": "b"}],
        "livenessProbe": {"tcpSocket": {"port": 8080}},
        "volumeMounts": [{"name": "v", "mountPath": "/data"}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}},
    }
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {
            "template": {
                "metadata": {"annotations": {"autoscaling.knative.dev/min-scale": "1"}},
                "spec": {
                    "containers": [container],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                    "timeoutSeconds": 100,
                },
            },
            **spec,
        },
    }


def serving_runtime() -> Object:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime",
        "metadata": {"name": "glowplug-xgboost"},
        "spec": {
            "supportedModelFormats": [
                {"name": "xgboost", "version": "1", "autoSelect": True, "priority": 1},
                {"name": "xgboost", "version": "2", "autoSelect": True, "priority": 1},
            ],
            "protocolVersions": ["v1", "v2", "grpc-v2"],
            "containers": [
                {
                    "name": "kserve-container",
                    "image": "glowplug/xgboost",
                    "args": ["--model_name={{.Name}}", "--model_dir=/mnt/models", "--http_port=8080"],
                }
            ],
        },
    }
