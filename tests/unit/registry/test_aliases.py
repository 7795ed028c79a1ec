"""Champion and challenger on a real MLflow: moved by one function each, missed when taken away by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from unit.registry.lab import with_tables

from glowplug.errors import StorageError
from glowplug.registry.aliases import REJECTED_TAG, Presence, champion, promote, reject
from glowplug.registry.audit import half_registered
from glowplug.registry.models import (
    CHALLENGER,
    CHAMPION,
    CONTENT_TAG,
    Candidate,
    ModelVersion,
    RegistryConfig,
    connect,
    register,
    resolve,
)
from glowplug.registry.signature import Signature

# MLflow's own imports warn of what its dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RegistryConfig:
    return with_tables(tmp_path_factory.mktemp("registry") / "mlflow", tmp_path_factory)


def version(
    config: RegistryConfig, folder: Path, name: str, content: str, alias: str = CHALLENGER
) -> ModelVersion:
    directory = folder / content
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.ubj").write_text(content)
    signature = Signature({"x": "float"}, {"prediction": "float"})
    return register(config, Candidate(name, directory, signature=signature), alias=alias)


def test_a_challenger_becomes_champion(config: RegistryConfig, tmp_path: Path) -> None:
    assert champion(config, "moves").presence is Presence.NONE_YET
    first = version(config, tmp_path, "moves", "one")
    assert champion(config, "moves").presence is Presence.NONE_YET
    for _ in range(2):
        assert promote(config, "moves", first.version) == first
        assert champion(config, "moves").version == first
    with pytest.raises(StorageError, match="challenger"):
        resolve(config, "moves", CHALLENGER)
    second = version(config, tmp_path, "moves", "two")
    promote(config, "moves", first.version)
    assert resolve(config, "moves", CHALLENGER) == second
    with pytest.raises(StorageError):
        promote(config, "moves", "9")
    assert champion(config, "moves").version == first


def test_a_rejected_challenger_is_none_any_more(config: RegistryConfig, tmp_path: Path) -> None:
    first = version(config, tmp_path, "rejects", "one")
    for _ in range(2):
        assert (
            reject(config, "rejects", first.version, "errors: 9 of 100").tags[REJECTED_TAG]
            == "errors: 9 of 100"
        )
    with pytest.raises(StorageError):
        resolve(config, "rejects", CHALLENGER)
    assert champion(config, "rejects").presence is Presence.NONE_YET
    # A person knows better, or the revision was ready after all.
    assert REJECTED_TAG not in promote(config, "rejects", first.version).tags


@pytest.mark.parametrize("how", ["alias", "version"])
def test_a_champion_taken_away_is_missed(config: RegistryConfig, tmp_path: Path, how: str) -> None:
    first = version(config, tmp_path, f"missed-{how}", "one", alias="champion")
    client = connect(config)
    if how == "alias":
        client.delete_registered_model_alias(f"missed-{how}", "champion")
    else:
        client.delete_model_version(f"missed-{how}", first.version)
    found = champion(config, f"missed-{how}")
    assert (found.presence, found.last, found.version) == (Presence.TAKEN_AWAY, first.version, None)


def test_the_audit_sees_what_is_not_whole(config: RegistryConfig, tmp_path: Path) -> None:
    assert half_registered(config, "audited") == []
    first = version(config, tmp_path, "audited", "one")
    assert half_registered(config, "audited", [CONTENT_TAG]) == []
    assert half_registered(config, "audited", ["more"]) == ["version 1: no tag more"]
    stored = Path(first.storage_uri.removeprefix("file://")) / "model.ubj"
    stored.write_text("other")
    assert half_registered(config, "audited") == ["version 1: its files are not those that were registered"]
    stored.unlink()
    (problem,) = half_registered(config, "audited")
    assert problem.startswith("version 1: ")
    connect(config).update_run(first.run_id, status="RUNNING")
    assert len(half_registered(config, "audited")) == 2


def test_what_a_kill_left_is_marked_deleted(config: RegistryConfig, tmp_path: Path) -> None:
    first = version(config, tmp_path, "killed", "one")
    client = connect(config)
    run = client.get_run(first.run_id)
    left = client.create_run(run.info.experiment_id, tags={CONTENT_TAG: first.tags[CONTENT_TAG]})
    client.delete_model_version("killed", first.version)
    again = register(config, Candidate("killed", tmp_path / "one"))
    assert client.get_run(left.info.run_id).info.lifecycle_stage == "deleted"
    assert client.get_run(again.run_id).info.status == "FINISHED"


def test_a_champion_s_profile_is_where_the_detector_looks(config: RegistryConfig, tmp_path: Path) -> None:
    place = tmp_path / "watched"
    watched = replace(config, champion_profile=str(place))
    promote(watched, "profiled", version(config, tmp_path, "profiled", "without").version)
    assert not place.exists()
    for content in ("first", "second"):
        (tmp_path / content).mkdir()
        (tmp_path / content / "profile.json").write_text(f'{{"of": "{content}"}}')
        made = version(config, tmp_path, "profiled", content)
        assert promote(watched, "profiled", made.version).version == made.version
        assert (place / "profile.json").read_text() == f'{{"of": "{content}"}}'
        assert [each.name for each in place.iterdir()] == ["profile.json"]


def test_where_the_profile_cannot_be_put_the_champion_stays(config: RegistryConfig, tmp_path: Path) -> None:
    kept = version(config, tmp_path, "kept", "old", CHAMPION)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "profile.json").write_text("{}")
    made = version(config, tmp_path, "kept", "new")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        promote(replace(config, champion_profile=str(tmp_path / "file" / "place")), "kept", made.version)
    found = champion(config, "kept").version
    assert found is not None
    assert found.version == kept.version
