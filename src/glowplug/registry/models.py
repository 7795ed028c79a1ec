"""Registers a model directory in MLflow, and brings a registered one back.

No server: the SQLite URI of a local file (or any tracking URI that MLflow knows). Importing MLflow takes seconds, and
so does the first start of an empty database, so both happen inside the calls, never on import of this module.

A version is created by one call after its files are in place, with the hash of its content as a tag: a killed
registration leaves files that nobody points to, never half a version, and the same content is not registered twice.
What such a kill left of a run is marked deleted by the next registration of that content; `mlflow gc` removes it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glowplug.errors import GlowplugError, StorageError
from glowplug.registry.signature import MLMODEL_FILE, Signature, mlmodel

CHAMPION = "champion"
CHALLENGER = "challenger"
CONTENT_TAG = "glowplug.dev/content-hash"
# On the registered model: the version that was last made champion by us, so that one taken away by hand is missed.
CHAMPION_TAG = "glowplug.dev/champion"
_ARTIFACT_PATH = "model"
_STEPS = 5
# MLflow's own are 120 s and 7 retries: a registry that is gone, or that takes connections and never answers, would hold
# a run up for many minutes. With these it is 13 s. Its progress bar would be drawn over ours.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "6",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RegistryConfig:
    """`uri` is MLflow's tracking URI; `artifacts` where a new experiment's files go (a URI, or a path).

    `champion_profile` is where the champion's `profile.json` is put: a folder, or a URI of MLflow's; empty: nowhere.
    """

    uri: str
    artifacts: str
    champion_profile: str = ""

    @classmethod
    def local(cls, directory: Path) -> RegistryConfig:
        """Everything below one directory, in SQLite."""
        directory = directory.resolve()
        return cls(f"sqlite:///{directory / 'mlflow.db'}", (directory / "artifacts").as_uri())


@dataclass(frozen=True)
class Candidate:
    """What is to be registered: a directory with the model's files, and what is known of it.

    With a `signature` an `MLmodel` file that holds it is stored beside the files.
    """

    name: str
    directory: Path
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    signature: Signature | None = None


@dataclass(frozen=True)
class ModelVersion:
    """`storage_uri` is where its files are: what an InferenceService's `storageUri` may be."""

    name: str
    version: str
    storage_uri: str
    run_id: str
    tags: Mapping[str, str]


def register(
    config: RegistryConfig,
    candidate: Candidate,
    *,
    alias: str | None = CHAMPION,
    progress: Progress = lambda what, done, total: None,
) -> ModelVersion:
    """Make the candidate a version of its registered model and point `alias` at it.

    Content that is registered already gets no second version. Raises `StorageError` when the directory is empty or
    MLflow fails.
    """
    content = content_hash(candidate.directory)
    progress("importing MLflow", 0, _STEPS)
    with explained(config.uri, candidate.name):
        _import()
        progress("opening the registry", 1, _STEPS)
        client = connect(config)
        progress("logging the run", 2, _STEPS)
        version = _find(client, candidate.name, content)
        if version is None:
            run_id, source = _log_run(client, config, candidate, content)
            progress("creating the version", 3, _STEPS)
            _ensure_model(client, candidate.name)
            tags = {**candidate.tags, CONTENT_TAG: content}
            version = client.create_model_version(candidate.name, source, run_id, tags=tags).version
        if alias is not None:
            progress(f"alias {alias}", 4, _STEPS)
            point(client, candidate.name, alias, version)
        progress("registered", _STEPS, _STEPS)
        return described(client, client.get_model_version(candidate.name, version))


def resolve(config: RegistryConfig, name: str, which: str) -> ModelVersion:
    """The version with this number or alias. Raises `StorageError` if there is none."""
    with explained(config.uri, name):
        client = connect(config)
        if which.isdecimal():
            return described(client, client.get_model_version(name, which))
        return described(client, client.get_model_version_by_alias(name, which))


def download(config: RegistryConfig, name: str, which: str, directory: Path) -> ModelVersion:
    """Copy the files of a version (number or alias) into `directory`, which appears whole or not at all.

    Raises `StorageError` if there is no such version, its files are gone, or `directory` exists.
    """
    if directory.exists():
        raise StorageError(f"{directory} exists", hint="name a directory that does not exist yet")
    version = resolve(config, name, which)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=directory.parent, prefix=".download-") as draft,
        explained(config.uri, name),
    ):
        from mlflow.artifacts import download_artifacts

        local = download_artifacts(artifact_uri=version.storage_uri, dst_path=draft, tracking_uri=config.uri)
        shutil.move(local, directory)
    return version


def _import() -> Any:
    # MLflow reports usage over the network unless told not to before it is imported.
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient


def warm(config: RegistryConfig) -> None:
    """Import MLflow and open the registry, which takes seconds: for a thread that has time while others work.

    Raises `StorageError` where the registry cannot be opened.
    """
    with explained(config.uri, "any"):
        client = connect(config)
        # A server has its database open; to ask one that hangs would only hold up who asks next.
        if not config.uri.startswith(("http://", "https://")):
            client.search_registered_models(max_results=1)


def connect(config: RegistryConfig) -> Any:
    """MLflow's client. For this package; use it within `explained`."""
    if config.uri.startswith("sqlite:///"):
        Path(config.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return _import()(tracking_uri=config.uri, registry_uri=config.uri)


def point(client: Any, name: str, alias: str, version: str) -> None:
    """Let `alias` mean `version`; a champion is noted on the model as well, before it is one."""
    if alias == CHAMPION:
        client.set_registered_model_tag(name, CHAMPION_TAG, version)
    client.set_registered_model_alias(name, alias, version)


def _log_run(client: Any, config: RegistryConfig, candidate: Candidate, content: str) -> tuple[str, str]:
    """(run id, URI of the model's files)."""
    experiment = client.get_experiment_by_name(candidate.name)
    experiment_id = (
        experiment.experiment_id
        if experiment is not None
        else client.create_experiment(candidate.name, artifact_location=config.artifacts)
    )
    _drop_unfinished(client, experiment_id, content)
    run = client.create_run(experiment_id, tags={**candidate.tags, CONTENT_TAG: content})
    for name, value in candidate.params.items():
        client.log_param(run.info.run_id, name, value)
    for name, number in candidate.metrics.items():
        client.log_metric(run.info.run_id, name, number)
    client.log_artifacts(run.info.run_id, str(candidate.directory), _ARTIFACT_PATH)
    if candidate.signature is not None:
        text = mlmodel(candidate.signature, run.info.run_id)
        client.log_text(run.info.run_id, text, f"{_ARTIFACT_PATH}/{MLMODEL_FILE}")
    client.set_terminated(run.info.run_id)
    return run.info.run_id, f"{run.info.artifact_uri}/{_ARTIFACT_PATH}"


def _drop_unfinished(client: Any, experiment_id: str, content: str) -> None:
    """Mark what a killed registration of this content left as deleted."""
    left = client.search_runs(
        [experiment_id], f"tags.`{CONTENT_TAG}` = '{content}' AND attributes.status = 'RUNNING'"
    )
    for run in left:
        client.delete_run(run.info.run_id)


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find(client: Any, name: str, content: str) -> str | None:
    """The version that has this very content, if any."""
    escaped = name.replace("'", "''")
    for version in client.search_model_versions(f"name = '{escaped}'"):
        if version.tags.get(CONTENT_TAG) == content:
            return str(version.version)
    return None


def described(client: Any, found: Any) -> ModelVersion:
    """MLflow's model version as ours."""
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        # A version's `source` may be models:/m-…, which only MLflow understands; this is where the files are.
        storage_uri=client.get_model_version_download_uri(found.name, found.version),
        run_id=found.run_id,
        tags=dict(found.tags),
    )


def content_hash(directory: Path) -> str:
    """Of every file's path and content, but for `MLmodel`, which has the time and the run in it.

    Raises `StorageError` where there is no file.
    """
    own = directory / MLMODEL_FILE
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path != own)
    if not files:
        raise StorageError(f"{directory} has no files to register")
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(directory)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


class explained:
    """MLflow's own errors, database and file errors among them, as one `StorageError` that names registry and model."""

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, GlowplugError):
            # SQLAlchemy adds the whole statement and its parameters.
            told = str(error).partition("\n[SQL:")[0]
            raise StorageError(f"the model registry at {self._uri}: model {self._name}: {told}") from error
