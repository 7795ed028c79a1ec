"""A controller's answer to a review, and the configuration by which it is asked."""

from __future__ import annotations

import base64
import json
from typing import Any

import kopf
import pytest
from hypothesis import given
from unit.spec.shapes import any_json

from glowplug.apiserver.patch import json_patch
from glowplug.operators.review import answer, difference
from glowplug.operators.webhook_configuration import WebhookConfig, address, agrees, configuration

Object = dict[str, Any]


@given(any_json, any_json)
def test_a_difference_is_the_patch_from_one_to_the_other(old: Any, new: Any) -> None:
    before, after = {"x": old}, {"x": new}
    patched = json_patch(before, list(difference(before, after)))
    assert json.dumps(patched, sort_keys=True) == json.dumps(after, sort_keys=True)
    assert list(difference(after, after)) == []


def review(old: Object | None, new: Object) -> Object:
    operation = "CREATE" if old is None else "UPDATE"
    request = {"uid": "u", "operation": operation, "object": new, "oldObject": old, "dryRun": True}
    return {"request": {**request, "userInfo": {"username": "me"}}}


async def test_what_is_decided_is_answered() -> None:
    told: list[Any] = []

    async def admit(old: Object | None, new: Object, **more: Any) -> Object | None:
        more["warn"]("so that they know")
        told.append((old, dict(new), more))
        new["spec"]["a/b"] = 2
        del new["gone"]
        return new

    asked = review({"spec": {}}, {"spec": {"a/b": 1}, "gone": 1})
    response = (await answer("n", asked, admit))["response"]
    assert response["allowed"] and response["uid"] == "u"
    operations = json.loads(base64.b64decode(response["patch"]))
    assert json_patch({"spec": {"a/b": 1}, "gone": 1}, operations) == {"spec": {"a/b": 2}}
    assert asked["request"]["object"] == {"spec": {"a/b": 1}, "gone": 1}
    ((old, _, more),) = told
    assert old == {"spec": {}}
    assert response["warnings"] == ["so that they know"]
    del more["warn"]
    assert more == {"operation": "UPDATE", "dry_run": True, "userinfo": {"username": "me"}}


async def test_nothing_to_change_a_denial_and_a_mistake() -> None:
    outcome: Any = None

    async def admit(old: Object | None, new: Object, **more: Any) -> Object | None:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome if outcome is None else new

    async def said() -> Object:
        response: Object = (await answer("n", review(None, {"spec": {}}), admit))["response"]
        return response

    assert await said() == {"uid": "u", "allowed": True}
    outcome = True
    assert await said() == {"uid": "u", "allowed": True}
    outcome = kopf.AdmissionError("no", code=403)
    assert await said() == {"uid": "u", "allowed": False, "status": {"message": "no", "code": 403}}
    outcome = RuntimeError("oh")
    response = await said()
    assert response["allowed"]
    assert "RuntimeError" in response["warnings"][0]


async def test_what_is_no_review_is_none() -> None:
    async def admit(old: Object | None, new: Object, **more: Any) -> Object | None:
        raise AssertionError

    with pytest.raises(KeyError):
        await answer("n", {}, admit)


def test_the_configuration_by_url_and_by_service() -> None:
    local = configuration(WebhookConfig("x"), 1234, b"pem", ("a", "b"))
    (hook,) = local["webhooks"]
    assert hook["clientConfig"] == {"caBundle": "cGVt", "url": "https://127.0.0.1:1234/mutate"}
    assert hook["namespaceSelector"]["matchExpressions"][0]["values"] == ["a", "b"]
    assert hook["failurePolicy"] == "Ignore"
    assert address(local) == ("127.0.0.1", 1234)

    config = WebhookConfig("x", service="s", service_namespace="n", port=9443)
    cluster = configuration(config, 9443, b"pem", ())
    (hook,) = cluster["webhooks"]
    assert hook["clientConfig"]["service"] == {"name": "s", "namespace": "n", "path": "/mutate", "port": 443}
    assert config.hosts == ("s.n.svc", "s.n.svc.cluster.local")
    assert address(cluster) is None

    # The API adds defaults; that is no reason to write again.
    found = {"webhooks": [{**hook, "objectSelector": {}, "matchConditions": []}]}
    assert agrees(found, cluster)
    assert not agrees(local, cluster)
    assert not agrees({"webhooks": []}, cluster)
    assert not agrees({"webhooks": [{**hook, "failurePolicy": "Fail"}]}, cluster)
