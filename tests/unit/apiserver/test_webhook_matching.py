"""Which webhooks a write concerns: rules, scopes, subresources and selectors, as Kubernetes decides them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from glowplug.apiserver.codec import encode
from glowplug.apiserver.webhook_configurations import Hook, default_mutating, hooks_of
from glowplug.apiserver.webhook_matching import CREATE, DELETE, UPDATE, Attributes, is_ruled, is_selected
from glowplug.errors import NotFound
from glowplug.spec import kinds

Object = dict[str, Any]
MAPS = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}


def hook(*rules: Object, **more: Any) -> Hook:
    one = {
        "name": "a.b.c",
        "clientConfig": {"url": "https://127.0.0.1"},
        "rules": list(rules or (MAPS,)),
        **more,
    }
    (found,) = hooks_of(encode(default_mutating({"webhooks": [one]})))
    return found


def asked(**more: Any) -> Attributes:
    found = {"kind": kinds.CONFIG_MAP, "namespace": "ns", "name": "n", "operation": UPDATE, **more}
    return Attributes(**found)


@pytest.mark.parametrize(
    ("rule", "write", "is_covered"),
    [
        ({}, {}, True),
        ({"apiGroups": ["apps"]}, {}, False),
        ({"apiGroups": ["*"], "apiVersions": ["*"]}, {}, True),
        ({"apiVersions": ["v2", "v1"]}, {}, True),
        ({"apiVersions": ["v2"]}, {}, False),
        ({"operations": ["CREATE", "DELETE"]}, {}, False),
        ({"operations": ["CREATE", "DELETE"]}, {"operation": DELETE}, True),
        ({"resources": ["secrets", "configmaps"]}, {}, True),
        ({"resources": ["*"]}, {}, True),
        ({"resources": ["*"]}, {"subresource": "status"}, False),
        ({"resources": ["configmaps"]}, {"subresource": "status"}, False),
        ({"resources": ["configmaps/status"]}, {"subresource": "status"}, True),
        ({"resources": ["configmaps/status"]}, {}, False),
        ({"resources": ["configmaps/*"]}, {"subresource": "status"}, True),
        ({"resources": ["configmaps/*"]}, {}, True),
        ({"resources": ["*/status"]}, {"subresource": "status"}, True),
        ({"resources": ["*/*"]}, {"subresource": "status"}, True),
        ({"resources": ["*/*"]}, {}, True),
        ({"scope": "Namespaced"}, {}, True),
        ({"scope": "Cluster"}, {}, False),
        ({"scope": "Cluster", "resources": ["namespaces"]}, {"kind": kinds.NAMESPACE, "namespace": ""}, True),
        ({"scope": "Namespaced", "resources": ["*"]}, {"kind": kinds.NAMESPACE, "namespace": ""}, False),
    ],
)
def test_rules(rule: Object, write: Object, is_covered: bool) -> None:
    assert is_ruled(hook({**MAPS, **rule}), asked(**write)) is is_covered
    # One rule of several is enough.
    assert is_ruled(hook({**MAPS, "apiGroups": ["none"]}, {**MAPS, **rule}), asked(**write)) is is_covered


def test_no_webhook_is_asked_about_webhooks() -> None:
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}
    for kind in (kinds.MUTATING_WEBHOOK_CONFIGURATION, kinds.VALIDATING_WEBHOOK_CONFIGURATION):
        assert not is_ruled(hook(everything), asked(kind=kind, namespace=""))
    assert is_ruled(hook(everything), asked(kind=kinds.REVISION))


def labels(name: str) -> Mapping[str, str]:
    if name == "absent":
        raise NotFound(name)
    return {"kubernetes.io/metadata.name": name, "team": "a"}


def labelled(**values: str) -> Object:
    return {"metadata": {"labels": values}}


def test_object_selectors_look_at_what_was_and_what_becomes() -> None:
    one = hook(objectSelector={"matchLabels": {"x": "1"}})
    yes, no = labelled(x="1"), labelled(x="2")
    assert is_selected(one, asked(new=yes, operation=CREATE), labels)
    assert not is_selected(one, asked(new=no, operation=CREATE), labels)
    assert is_selected(one, asked(new=no, old=yes), labels)
    assert is_selected(one, asked(new=yes, old=no), labels)
    assert is_selected(one, asked(old=yes, operation=DELETE), labels)
    assert not is_selected(one, asked(new={"metadata": {}}, old=no), labels)


@pytest.mark.parametrize(
    ("expression", "is_held"),
    [
        ({"operator": "In", "values": ["a", "b"]}, True),
        ({"operator": "In", "values": ["b"]}, False),
        ({"operator": "NotIn", "values": ["b"]}, True),
        ({"operator": "NotIn", "values": ["a"]}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
    ],
)
def test_namespace_selectors(expression: Object, is_held: bool) -> None:
    one = hook(namespaceSelector={"matchExpressions": [{"key": "team", **expression}]})
    assert is_selected(one, asked(), labels) is is_held
    # A namespace is selected by its own labels, as they become; when it is deleted by those it has.
    space = {"kind": kinds.NAMESPACE, "namespace": "", "name": "ns"}
    assert is_selected(one, asked(**space, new=labelled(team="a"), operation=CREATE), labels) is is_held
    assert is_selected(one, asked(**space, old={}, operation=DELETE), labels) is is_held
    # What is in no namespace is never spared.
    cluster = {"kind": kinds.CLUSTER_SERVING_RUNTIME, "namespace": ""}
    assert is_selected(one, asked(**cluster), labels)


def test_only_a_selector_of_namespaces_needs_the_namespace() -> None:
    assert is_selected(hook(), asked(namespace="absent"), labels)
    with pytest.raises(NotFound):
        is_selected(hook(namespaceSelector={"matchLabels": {"a": "b"}}), asked(namespace="absent"), labels)


@pytest.mark.parametrize("labels", [[1], "x", 5, {"a": 5}, {"a": ["b"]}, None])
def test_labels_that_another_webhook_has_spoiled_select_nothing(labels: object) -> None:
    selective = hook(objectSelector={"matchLabels": {"a": "b"}})
    for new in ({"metadata": {"labels": labels}}, {"metadata": labels}):
        assert not is_selected(selective, asked(new=new), lambda name: {})
