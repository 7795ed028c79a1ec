"""Whole runs of a small workload on a real MLflow: what gets registered, what does not, and what goes wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.models import Model
from unit.pipelines import toy
from unit.registry.lab import with_tables

from glowplug.drift.profile import Profile
from glowplug.errors import ConfigError, FeatureError, StorageError
from glowplug.registry import aliases
from glowplug.registry.audit import half_registered
from glowplug.registry.models import RegistryConfig, connect, download, resolve
from glowplug_pipelines.execution import Finished, execute
from glowplug_pipelines.gate.checks import Result
from glowplug_pipelines.run import read_status
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.steps.registering import TAGS

# MLflow's own imports warn of what its dependencies deprecate.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> RegistryConfig:
    """One registry for the module."""
    return with_tables(tmp_path_factory.mktemp("registry") / "mlflow", tmp_path_factory)


def prepared(tmp_path: Path, registry: RegistryConfig, **options: Any) -> Settings:
    return toy.settings(
        tmp_path / "work", registry, model=tmp_path.name.replace("_", "-")[:40].rstrip("-"), **options
    )


def run(settings: Settings, run_id: str, day: int = 60, **more: Any) -> Finished:
    return execute(settings, toy.request(run_id, settings.model, day), **more)


def versions(settings: Settings) -> list[str]:
    found = connect(settings.registry).search_model_versions(f"name = '{settings.model}'")
    return sorted(str(each.version) for each in found)


def test_a_first_model_beats_the_baseline_and_is_registered_whole(
    tmp_path: Path, registry: RegistryConfig
) -> None:
    settings = prepared(tmp_path, registry)
    finished = run(settings, "first")
    assert finished.verdict.result is Result.PASS
    assert "the naive baseline" in finished.verdict.reason
    version = finished.version
    assert version is not None
    assert resolve(registry, settings.model, "challenger") == version
    assert aliases.champion(registry, settings.model).presence is aliases.Presence.NONE_YET
    assert half_registered(registry, settings.model, TAGS) == []
    assert version.tags["glowplug.dev/run"] == "first"
    assert version.tags["glowplug.dev/verdict"] == "pass"
    download(registry, settings.model, "challenger", tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "MLmodel", "card", "line.npz", "profile.json",
    ]  # fmt: skip
    signature = Model.load(str(tmp_path / "model" / "MLmodel")).signature
    assert signature.inputs.input_names() == ["x0", "x1", "x2"]
    metadata = yaml.safe_load((tmp_path / "model" / "MLmodel").read_text())["metadata"]
    assert metadata["glowplug.dev/data-hash"] == version.tags["glowplug.dev/data-hash"]
    profile = Profile.from_json((tmp_path / "model" / "profile.json").read_bytes())
    assert profile.names == ("x0", "x1", "x2")
    card = (tmp_path / "model" / "card" / "card.md").read_text()
    assert card.startswith(f"# {settings.model}: pass\n\nbetter: loses less than the naive baseline")
    for picture in ("days.png", "slices.png", "calibration.png"):
        assert f"]({picture})" in card
        assert (tmp_path / "model" / "card" / picture).read_bytes().startswith(b"\x89PNG")
    status = read_status(finished.folder)
    assert status is not None
    assert (status.state, status.details["version"]) == ("finished", version.version)


def test_a_finished_run_is_not_done_again(tmp_path: Path, registry: RegistryConfig) -> None:
    settings = prepared(tmp_path, registry)
    first = run(settings, "same")
    # Were any step done again, it would find nothing.
    gone = replace(
        settings, registry=RegistryConfig("http://127.0.0.1:1", "/nowhere"), options={"broken": "yes"}
    )
    again = run(gone, "same")
    assert (again.version, again.verdict.result, again.card) == (
        first.version,
        first.verdict.result,
        first.card,
    )
    assert versions(settings) == ["1"]


def test_only_a_better_challenger_follows_a_champion(tmp_path: Path, registry: RegistryConfig) -> None:
    settings = prepared(tmp_path, registry)
    first = run(settings, "first").version
    assert first is not None
    aliases.promote(registry, settings.model, first.version)
    # The same data: the challenger is the champion over again.
    alike = run(settings, "alike")
    assert (alike.verdict.result, alike.version) == (Result.FAIL, None)
    worse = run(replace(settings, options={"worse": 2.0}), "worse")
    assert (worse.verdict.result, worse.version) == (Result.FAIL, None)
    assert f"no less than champion {first.version}" in worse.verdict.reason
    assert versions(settings) == ["1"]
    forced = run(replace(settings, options={"worse": 2.0}), "worse", is_forced=True)
    assert forced.version is not None
    assert forced.version.tags["glowplug.dev/forced"] == "true"
    assert forced.version.tags["glowplug.dev/verdict"] == "fail"
    assert aliases.champion(registry, settings.model).version == resolve(
        registry, settings.model, first.version
    )
    # The world has changed, and the champion does not know yet.
    changed = run(replace(settings, options={"slope": 5.0, "shift": "2026-03-05"}), "changed", day=100)
    assert changed.verdict.result is Result.PASS
    assert changed.version is not None
    assert versions(settings) == ["1", "2", "3"]


def test_a_champion_taken_away_by_hand(tmp_path: Path, registry: RegistryConfig) -> None:
    settings = prepared(tmp_path, registry)
    first = run(settings, "first").version
    assert first is not None
    aliases.promote(registry, settings.model, first.version)
    connect(registry).delete_model_version(settings.model, first.version)
    finished = run(settings, "after")
    assert (finished.verdict.result, finished.version) == (Result.INCONCLUSIVE, None)
    assert f"champion {first.version} was taken away by hand" in finished.verdict.reason
    assert "inconclusive" in finished.card.read_text()


def test_a_champion_that_knows_fewer_features_is_asked_and_one_that_knows_others_is_not(
    tmp_path: Path, registry: RegistryConfig
) -> None:
    settings = prepared(tmp_path, registry, features=2)
    first = run(settings, "first").version
    assert first is not None
    aliases.promote(registry, settings.model, first.version)
    more = run(
        replace(settings, options={"features": 3, "slope": 5.0, "shift": "2026-02-01"}), "more", day=100
    )
    assert more.verdict.result is Result.PASS
    fewer = run(replace(settings, options={"features": 1}), "fewer")
    assert fewer.verdict.result is Result.INCONCLUSIVE
    assert "cannot be asked about the held-out rows: the rows lack its feature x1" in fewer.verdict.reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stop": "2026-01-01"}, "has no rows"),
        ({"stop": "2026-02-02"}, "training rows with a label, must be 500 or more"),
        ({"stop": "2026-02-20"}, "held-out rows with a label, must be 500 or more"),
        ({"labelled_to": "2026-01-01"}, "none of the 5760 rows of the window"),
        ({"labelled_to": "2026-02-08"}, "have a label, must be 50 % or more"),
        ({"broken": "table t has no column x"}, "table t has no column x"),
    ],
)
def test_data_that_no_model_can_be_made_of(
    tmp_path: Path, registry: RegistryConfig, options: dict[str, Any], reason: str
) -> None:
    settings = prepared(tmp_path, registry, **options)
    with pytest.raises(FeatureError) as caught:
        run(settings, "bad")
    assert reason in caught.value.message
    status = read_status(settings.work_dir / settings.model / "bad")
    assert status is not None
    assert (status.state, status.step, status.reason) == ("failed", "dataset", caught.value.message)


def test_a_run_goes_on_once_the_data_have_come(tmp_path: Path, registry: RegistryConfig) -> None:
    settings = prepared(tmp_path, registry, stop="2026-02-20")
    with pytest.raises(FeatureError):
        run(settings, "late")
    assert run(replace(settings, options={}), "late").verdict.result is Result.PASS


def test_a_registry_that_goes_away_in_mid_run(tmp_path: Path, registry: RegistryConfig) -> None:
    settings = prepared(tmp_path, registry)
    nobody = replace(settings, registry=RegistryConfig("http://127.0.0.1:1", "/nowhere"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(StorageError, match=r"the model registry at http://127\.0\.0\.1:1"):
            run(nobody, "r")
    folder = settings.work_dir / settings.model / "r"
    status = read_status(folder)
    assert status is not None
    assert (status.state, status.step) == ("failed", "champion")
    before = json.loads((folder / "train.json").read_text())
    finished = run(settings, "r")
    assert finished.version is not None
    assert json.loads((folder / "train.json").read_text()) == before
    assert half_registered(registry, settings.model, TAGS) == []


def test_a_workload_that_is_not_there(tmp_path: Path, registry: RegistryConfig) -> None:
    for workload in ("nowhere.at.all:Toy", "unit.pipelines.toy:Nobody"):
        with pytest.raises(ConfigError, match=f"workload {workload}"):
            run(replace(prepared(tmp_path, registry), workload=workload), "r")
