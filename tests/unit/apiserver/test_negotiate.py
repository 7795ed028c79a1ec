"""Accept headers to forms, and objects into them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from unit.apiserver.world import START

from glowplug.apiserver.codec import encode
from glowplug.apiserver.negotiate import Form, Renderer, choose
from glowplug.apiserver.paging import Listing
from glowplug.errors import NotAcceptable
from glowplug.spec.kinds import CONFIG_MAP

KUBECTL_GET = ",".join(
    (
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
        "application/json",
    )
)
DISCOVERY = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)
OBJECT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "x", "namespace": "default", "resourceVersion": "7", "uid": "u"},
    "data": {"a": "b"},
}
RAW = encode(OBJECT)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form()),
        ("*/*", Form()),
        ("application/json, */*", Form()),
        (KUBECTL_GET, Form(convert_to="Table")),
        (DISCOVERY, Form(convert_to="APIGroupDiscoveryList")),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Form()),
        ("application/vnd.kubernetes.protobuf,application/json", Form()),
        (
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Form(convert_to="PartialObjectMetadataList"),
        ),
        ("application/yaml", Form("application/yaml")),
    ],
)
def test_accept(accept: str, form: Form) -> None:
    assert choose(accept) == form


def test_nothing_acceptable() -> None:
    with pytest.raises(NotAcceptable, match="application/json, application/yaml"):
        choose("application/vnd.kubernetes.protobuf")


@given(st.text(max_size=60))
def test_any_header_is_a_form_or_refused(accept: str) -> None:
    try:
        assert choose(accept).media_type in ("application/json", "application/yaml")
    except NotAcceptable:
        assert accept.strip()


def renderer(accept: str) -> Renderer:
    return Renderer(CONFIG_MAP, choose(accept), START)


def test_list_splices_stored_bytes() -> None:
    text = renderer("").many(Listing([RAW, RAW], 9, "token", 3))
    assert json.loads(text) == {
        "kind": "ConfigMapList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "9", "continue": "token", "remainingItemCount": 3},
        "items": [OBJECT, OBJECT],
    }
    assert RAW in text
    assert json.loads(renderer("").many(Listing([], 9)))["items"] == []


def test_table_carries_the_lists_metadata() -> None:
    found = json.loads(renderer(KUBECTL_GET).many(Listing([RAW], 9, "token", 3)))
    assert (found["kind"], found["metadata"]["continue"]) == ("Table", "token")
    assert found["rows"][0]["cells"][0] == "x"
    assert json.loads(renderer(KUBECTL_GET).one(RAW))["metadata"] == {"resourceVersion": "7"}


def test_watched_table_tells_its_columns_once() -> None:
    one = renderer(KUBECTL_GET)
    assert json.loads(one.event(RAW))["columnDefinitions"]
    assert not json.loads(one.event(RAW))["columnDefinitions"]


def test_metadata_alone() -> None:
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    found = json.loads(renderer(accept).one(RAW))
    assert found == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": OBJECT["metadata"],
    }
    accept = accept.replace("Metadata;", "MetadataList;")
    assert json.loads(renderer(accept).many(Listing([RAW], 9)))["items"][0] == found


def test_yaml() -> None:
    assert yaml.safe_load(renderer("application/yaml").one(RAW)) == OBJECT
    assert yaml.safe_load(renderer("application/yaml").many(Listing([RAW], 9)))["items"] == [OBJECT]
