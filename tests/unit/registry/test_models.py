"""The registry on a real MLflow with SQLite: versions, aliases, no duplicates, whole downloads."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from unit.registry.lab import with_tables

from glowplug.errors import StorageError
from glowplug.registry.models import Candidate, ModelVersion, RegistryConfig, download, register, resolve

# MLflow's own imports warn of what its dependencies deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RegistryConfig:
    """One registry for the module."""
    return with_tables(tmp_path_factory.mktemp("registry") / "mlflow", tmp_path_factory)


def candidate(folder: Path, name: str, content: bytes = b"model", **more: Any) -> Candidate:
    (folder / "nested").mkdir(parents=True, exist_ok=True)
    (folder / "model.ubj").write_bytes(content)
    (folder / "nested" / "feature_view.yaml").write_text("kind: FeatureView\n")
    return Candidate(name, folder, **more)


def test_a_version_has_its_files_metrics_and_alias(config: RegistryConfig, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    offered = candidate(
        tmp_path / "model",
        "delays",
        metrics={"mae": 23.5},
        params={"to": "2013-04-01"},
        tags={"schema": "da2d"},
    )
    version = register(config, offered, progress=lambda *step: steps.append(step))
    assert (version.name, version.version, version.tags["schema"]) == ("delays", "1", "da2d")
    assert resolve(config, "delays", "champion") == resolve(config, "delays", "1") == version
    assert steps[0] == ("importing MLflow", 0, 5)
    assert steps[-1] == ("registered", 5, 5)
    place = tmp_path / "copy"
    assert download(config, "delays", "champion", place) == version
    assert (place / "model.ubj").read_bytes() == b"model"
    assert (place / "nested" / "feature_view.yaml").read_text() == "kind: FeatureView\n"
    with sqlite3.connect(config.uri.removeprefix("sqlite:///")) as database:
        assert database.execute("SELECT key, value FROM metrics").fetchall() == [("mae", 23.5)]
    database.close()


def test_the_same_content_is_one_version(config: RegistryConfig, tmp_path: Path) -> None:
    first = register(config, candidate(tmp_path / "a", "same"))
    again = register(config, candidate(tmp_path / "b", "same"))
    other = register(config, candidate(tmp_path / "c", "same", b"better"), alias="challenger")
    assert (first.version, again, other.version) == ("1", first, "2")
    assert resolve(config, "same", "champion").version == "1"
    assert resolve(config, "same", "challenger").version == "2"


def test_what_is_not_there(config: RegistryConfig, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"the model registry at sqlite:.*nobody"):
        resolve(config, "nobody", "champion")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="has no files"):
        register(config, Candidate("delays", tmp_path / "empty"))
    version: ModelVersion = register(config, candidate(tmp_path / "m", "present"))
    with pytest.raises(StorageError, match="exists"):
        download(config, "present", version.version, tmp_path / "m")


def test_a_download_whose_files_are_gone_leaves_nothing(config: RegistryConfig, tmp_path: Path) -> None:
    version = register(config, candidate(tmp_path / "m", "gone"))
    stored = Path(version.storage_uri.removeprefix("file://"))
    stored.rename(stored.with_name("elsewhere"))
    with pytest.raises(StorageError, match="the model registry at"):
        download(config, "gone", "1", tmp_path / "into" / "copy")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(StorageError, match="the model registry at sqlite:"):
        resolve(RegistryConfig.local(tmp_path), "delays", "1")
