"""Webhook configurations: Kubernetes' defaults and rules, and what this machine refuses beyond them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from unit.spec.shapes import any_json, changed

from glowplug.apiserver.admission import Admission
from glowplug.apiserver.codec import encode
from glowplug.apiserver.schema import Schemas
from glowplug.apiserver.webhook_configurations import hooks_of
from glowplug.errors import ApiError, Invalid
from glowplug.spec import kinds

Object = dict[str, Any]
ADMISSION = Admission(Schemas.load())
KINDS = (kinds.MUTATING_WEBHOOK_CONFIGURATION, kinds.VALIDATING_WEBHOOK_CONFIGURATION)


def webhook(**more: Any) -> Object:
    return {
        "name": "a.example.com",
        "clientConfig": {"url": "https://127.0.0.1:9443/path", "caBundle": "Cg=="},
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
        ],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1", "v1beta1"],
        **more,
    }


def configuration(*webhooks: Object) -> Object:
    return {"metadata": {"name": "c"}, "webhooks": list(webhooks)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_defaults(kind: kinds.Kind) -> None:
    admitted = ADMISSION.admit(kind, configuration(webhook(failurePolicy=None)), None).object
    (one,) = admitted["webhooks"]
    assert (one["failurePolicy"], one["matchPolicy"], one["timeoutSeconds"]) == ("Fail", "Equivalent", 10)
    assert one["namespaceSelector"] == one["objectSelector"] == {}
    assert one["rules"][0]["scope"] == "*"
    assert one.get("reinvocationPolicy") == ("Never" if kind is KINDS[0] else None)
    assert ADMISSION.admit(kind, admitted, admitted).object == admitted
    (hook,) = hooks_of(encode(admitted))
    assert (hook.name, hook.url, hook.ca) == ("a.example.com", "https://127.0.0.1:9443/path", b"\n")
    assert (hook.timeout_s, hook.is_optional, hook.is_reinvoked) == (10, False, False)


RULE = webhook()["rules"][0]


@pytest.mark.parametrize(
    ("more", "field", "message"),
    [
        ({"name": "a"}, "name", "at least three segments"),
        ({"name": "A.b.c"}, "name", "RFC 1123"),
        ({"name": ""}, "name", "Required"),
        ({"clientConfig": {}}, "clientConfig", "exactly one of url or service"),
        (
            {"clientConfig": {"service": {"name": "s", "namespace": "n"}}},
            "clientConfig.service",
            "give `url`",
        ),
        ({"clientConfig": {"url": "http://h"}}, "clientConfig.url", "'https' is the only allowed"),
        ({"clientConfig": {"url": "https:///x"}}, "clientConfig.url", "host must be specified"),
        ({"clientConfig": {"url": "https://a@h"}}, "clientConfig.url", "user information"),
        ({"clientConfig": {"url": "https://h?x"}}, "clientConfig.url", "query parameters"),
        ({"clientConfig": {"url": "https://h#x"}}, "clientConfig.url", "fragments"),
        ({"clientConfig": {"url": "https://h:x"}}, "clientConfig.url", "valid URL"),
        ({"rules": [{**RULE, "apiGroups": []}]}, "rules[0].apiGroups", "Required"),
        ({"rules": [{**RULE, "apiVersions": ["*", "v1"]}]}, "rules[0].apiVersions", "if '*' is present"),
        ({"rules": [{**RULE, "operations": ["create"]}]}, "rules[0].operations[0]", "Unsupported"),
        ({"rules": [{**RULE, "resources": ["*", "pods"]}]}, "rules[0].resources", "if '*' is present"),
        ({"rules": [{**RULE, "resources": ["*/*", "pods"]}]}, "rules[0].resources", "if '*/*' is present"),
        ({"rules": [{**RULE, "scope": "Some"}]}, "rules[0].scope", "Unsupported"),
        ({"failurePolicy": "Maybe"}, "failurePolicy", "Unsupported"),
        ({"matchPolicy": "Maybe"}, "matchPolicy", "Unsupported"),
        ({"sideEffects": "Some"}, "sideEffects", "Unsupported"),
        ({"timeoutSeconds": 0}, "timeoutSeconds", "between 1 and 30"),
        ({"admissionReviewVersions": ["v1beta1"]}, "admissionReviewVersions", "must include v1"),
        ({"matchConditions": [{"name": "c", "expression": "true"}]}, "matchConditions", "CEL"),
        ({"objectSelector": {"matchLabels": {"a b": "c"}}}, "objectSelector.matchLabels", "name part"),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "namespaceSelector.matchExpressions[0].values",
            "must be specified",
        ),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}},
            "namespaceSelector.matchExpressions[0].operator",
            "Unsupported",
        ),
        (
            {
                "namespaceSelector": {
                    "matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]
                }
            },
            "namespaceSelector.matchExpressions[0].values",
            "may not be specified",
        ),
    ],
)
def test_what_is_refused(more: Object, field: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        ADMISSION.admit(
            KINDS[0], configuration(webhook(), webhook(**{"name": "b.example.com", **more})), None
        )
    found = [(cause.field, cause.message) for cause in caught.value.causes]
    assert [one for one in found if one[0] == f"webhooks[1].{field}" and message in one[1]], found
    assert not [one for one in found if one[0].startswith("webhooks[0]")]


def test_what_lacks_a_part_or_repeats_a_name_is_refused() -> None:
    bare = {"name": "a.example.com"}
    with pytest.raises(Invalid) as caught:
        ADMISSION.admit(KINDS[1], configuration(webhook(), bare), None)
    fields = {cause.field for cause in caught.value.causes}
    assert {
        "webhooks[1].name",
        "webhooks[1].clientConfig",
        "webhooks[1].sideEffects",
        "webhooks[1].admissionReviewVersions",
    } <= fields


def test_reinvocation_is_for_those_that_mutate() -> None:
    with pytest.raises(ApiError, match="reinvocationPolicy"):
        ADMISSION.admit(KINDS[1], configuration(webhook(reinvocationPolicy="Never")), None)


@settings(max_examples=150)
@given(
    changed(configuration(webhook(objectSelector={"matchLabels": {"a": "b"}}, timeoutSeconds=3))) | any_json
)
def test_any_configuration_is_refused_or_can_be_read(obj: Any) -> None:
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        return
    for kind in KINDS:
        try:
            admitted = ADMISSION.admit(kind, obj, None, validation="Ignore").object
        except ApiError:
            continue
        hooks_of(encode(admitted))
