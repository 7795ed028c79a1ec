"""A retraining killed at random moments leaves no half-registered model, and goes on to one version a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from local.pipeline_kills import kill_again_and_again, make_registry

from glowplug.registry.models import RegistryConfig
from glowplug_pipelines.steps import registering

KILLS = 10
# MLflow's own imports warn of what its dependencies deprecate.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Seconds on a quiet computer; the time is for one that many others use.
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> RegistryConfig:
    return make_registry(tmp_path_factory.mktemp("registry"))


def test_no_kill_leaves_half_a_model(registry: RegistryConfig, tmp_path: Path) -> None:
    killed = kill_again_and_again(tmp_path, registry, "whole", KILLS, seed=7)
    assert killed.half == ()
    assert killed.hits == KILLS
    assert killed.registering > 0, "no kill hit what it was meant for"


def test_the_lab_sees_tags_that_are_not_there(
    registry: RegistryConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registration whose tags come after the version is what must not be, and is seen."""
    whole = registering._candidate

    def without_tags(*made: object, **more: object) -> object:
        candidate = whole(*made, **more)  # type: ignore[arg-type]
        tags = {name: value for name, value in candidate.tags.items() if name == registering.RUN_TAG}
        return type(candidate)(**{**vars(candidate), "tags": tags})

    monkeypatch.setattr(registering, "_candidate", without_tags)
    killed = kill_again_and_again(tmp_path, registry, "untagged", 1, seed=7)
    assert any("no tag glowplug.dev/verdict" in each for each in killed.half)
