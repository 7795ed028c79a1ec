"""The token, and the reviews of what it may do."""

from __future__ import annotations

import pytest

from glowplug.apiserver.auth import authenticate, review
from glowplug.errors import BadRequest, Unauthorized


@pytest.mark.parametrize("header", ["Bearer secret", "bearer secret"])
def test_right_token(header: str) -> None:
    authenticate(header, "secret")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic secret", "secret", "Bearer sécret"])
def test_wrong_token(header: str) -> None:
    with pytest.raises(Unauthorized):
        authenticate(header, "secret")


def ask(**attributes: str) -> bool:
    answer = review("selfsubjectaccessreviews", {"spec": {"resourceAttributes": attributes}})
    allowed: bool = answer["status"]["allowed"]
    return allowed


def test_access() -> None:
    assert ask(verb="create", group="serving.kserve.io", resource="inferenceservices")
    assert ask(verb="*", resource="*")
    assert ask(verb="list", group="apiextensions.k8s.io", resource="customresourcedefinitions")
    assert not ask(verb="create", group="apiextensions.k8s.io", resource="customresourcedefinitions")
    for spec in (["x"], {"resourceAttributes": "pods"}):
        with pytest.raises(BadRequest):
            review("selfsubjectaccessreviews", {"spec": spec})


def test_rules_and_identity() -> None:
    rules = review("selfsubjectrulesreviews", {"spec": {"namespace": "default"}})["status"]
    assert rules["incomplete"] is False
    assert any(rule["resources"] == ["pods"] and "watch" in rule["verbs"] for rule in rules["resourceRules"])
    who = review("selfsubjectreviews", {})["status"]["userInfo"]
    assert "system:masters" in who["groups"]
