"""The section `deploying`: read, and all that is wrong with it told at once."""

from __future__ import annotations

from typing import Any

import pytest

from glowplug.errors import ConfigError
from glowplug.registry.models import RegistryConfig
from glowplug_pipelines.deploying.settings import deploy_settings_of
from glowplug_pipelines.settings import Settings

GIT = {"repository": "https://git.example/acme/manifests.git", "path": "flights/isvc.yaml"}


def settings(deploying: dict[str, Any]) -> Settings:
    return Settings("flights", "a:B", "", RegistryConfig("", ""), deploying=deploying)


def test_the_least_is_direct() -> None:
    found = deploy_settings_of(settings({}), "flights")
    assert (found.mode, found.component, found.git) == ("direct", "predictor", None)


def test_a_branch_is_named_after_model_and_version() -> None:
    found = deploy_settings_of(
        settings({"mode": "gitops", "git": {**GIT, "branch": "glowplug/{model}-{version}"}}), "flights"
    )
    assert found.git is not None and found.git.branch_of("flights", "7") == "glowplug/flights-7"
    straight = deploy_settings_of(settings({"mode": "gitops", "git": GIT}), "flights")
    assert straight.git is not None and straight.git.branch_of("flights", "7") == "main"


@pytest.mark.parametrize(
    "deploying, said",
    [
        ({"mode": "ftp"}, "deploying.mode = 'ftp', must be one of direct, gitops"),
        ({"mode": "gitops"}, "deploying.git is absent"),
        (
            {"git": {**GIT, "repository": "https://me:secret@git.example/a"}},
            "repository has a password in it",
        ),
        ({"git": {**GIT, "path": "../isvc.yaml"}}, "must be relative to the repository's root"),
        ({"git": {**GIT, "branch": "a..b"}}, "must be a branch's name"),
        ({"git": {**GIT, "branch": "{user}"}}, "must be a branch's name"),
        ({"git": {**GIT, "branch": "main"}}, "not git.base"),
        ({"git": {**GIT, "author": "me"}}, "must be as: Name <address>"),
        ({"pullRequest": {"repository": "acme"}}, "must be owner/name"),
        ({"pullRequest": {"repository": "acme/a"}}, "needs git.branch"),
        ({"pullRequest": {"repository": "a/b", "api": "ftp://x"}}, "must be an http or https address"),
        ({"speed": 1}, "deploying.speed is unknown"),
    ],
)
def test_what_is_wrong_is_told(deploying: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        deploy_settings_of(settings(deploying), "flights")
    assert said in caught.value.message
    assert "secret" not in caught.value.message
