"""The OpenAPI documents and the CustomResourceDefinitions."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest

from glowplug.apiserver.openapi import OpenAPI
from glowplug.apiserver.schema import Schemas
from glowplug.spec import kinds
from glowplug.spec.kinds import KINDS


@pytest.fixture(scope="module")
def openapi() -> OpenAPI:
    return OpenAPI(Schemas.load())


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(_references(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_references(item) for item in value))
    return set()


def test_the_v3_index_lists_every_group_with_the_hash_of_its_document(openapi: OpenAPI) -> None:
    paths = orjson.loads(openapi.v3_index())["paths"]
    expected = {
        f"apis/{k.api_version}" if k.group else "api/v1" for k in KINDS if k.group != "apiextensions.k8s.io"
    }
    assert set(paths) == expected
    for path, entry in paths.items():
        body = openapi.v3(path)
        assert body is not None
        digest = hashlib.sha256(body).hexdigest().upper()
        assert entry["serverRelativeURL"] == f"/openapi/v3/{path}?hash={digest}"


def test_v3_references_stay_within_their_document(openapi: OpenAPI) -> None:
    for path in orjson.loads(openapi.v3_index())["paths"]:
        document = orjson.loads(openapi.v3(path) or b"")
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert _references(document) <= known


def test_v2_references_stay_within_the_document(openapi: OpenAPI) -> None:
    document = orjson.loads(openapi.v2())
    assert _references(document) <= {f"#/definitions/{name}" for name in document["definitions"]}
    assert (
        "/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/{name}" in document["paths"]
    )


@pytest.mark.parametrize("path", ["", "api", "api/v2", "apis/apps/v1", "../api/v1"])
def test_other_paths_have_no_document(openapi: OpenAPI, path: str) -> None:
    assert openapi.v3(path) is None


def test_writing_operations_take_the_parameters_that_kubectl_looks_for(openapi: OpenAPI) -> None:
    document = orjson.loads(openapi.v3("apis/serving.kserve.io/v1beta1") or b"")
    one = document["paths"]["/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/{name}"]
    all_of_them = document["paths"][
        "/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices"
    ]
    for operation in (one["put"], one["patch"], all_of_them["post"]):
        names = {parameter["name"] for parameter in operation["parameters"]}
        assert {"dryRun", "fieldManager", "fieldValidation"} <= names
        assert operation["x-kubernetes-group-version-kind"]["kind"] == "InferenceService"
    assert "application/apply-patch+yaml" in one["patch"]["requestBody"]["content"]
    assert "application/strategic-merge-patch+json" not in one["patch"]["requestBody"]["content"]
    core = orjson.loads(openapi.v3("api/v1") or b"")["paths"][
        "/api/v1/namespaces/{namespace}/configmaps/{name}"
    ]
    assert "application/strategic-merge-patch+json" in core["patch"]["requestBody"]["content"]


def test_definitions_of_custom_resources(openapi: OpenAPI) -> None:
    definitions = {item["metadata"]["name"]: item for item in openapi.custom_resource_definitions()}
    custom = [kind for kind in KINDS if "." in kind.group and not kind.group.endswith("k8s.io")]
    assert set(definitions) == {kind.resource for kind in custom}
    isvc = definitions["inferenceservices.serving.kserve.io"]
    assert isvc["spec"]["scope"] == "Namespaced"
    assert isvc["spec"]["names"]["shortNames"] == ["isvc"]
    assert {condition["type"] for condition in isvc["status"]["conditions"]} == {
        "NamesAccepted",
        "Established",
    }
    assert definitions[kinds.CLUSTER_SERVING_RUNTIME.resource]["spec"]["scope"] == "Cluster"
    isvc["metadata"]["uid"] = "changed"
    assert "uid" not in openapi.custom_resource_definitions()[0]["metadata"]
