"""What goes away in the middle of a run: the MLflow server, room on the disk, the manifest that was to be edited."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx2
import pytest
from local.apiserver_fixture import ApiLab, api_server
from local.event_sink import EventSink
from local.retraining_lab import DRIFT, REQUESTED, event, steps, wait_until
from local.retraining_lab import settings as lab_settings
from local.test_retraining_gitops import MANIFEST, OLD, Repository
from unit.features.lab import free_ports
from unit.pipelines import toy
from unit.registry.lab import with_tables

from glowplug.errors import StorageError
from glowplug.operators.api import connection
from glowplug.registry.audit import half_registered
from glowplug.registry.models import CHALLENGER, RegistryConfig, resolve
from glowplug_pipelines import making
from glowplug_pipelines.retraining import retrain
from glowplug_pipelines.run import open_run, read_status, run_folder
from glowplug_pipelines.steps import CHAMPION, DATASET, REGISTER, dataset
from glowplug_pipelines.steps.registering import TAGS
from glowplug_pipelines.triggering.result import Ending, Surroundings
from glowplug_pipelines.triggering.state import Running
from glowplug_pipelines.workload import Progress, silent

# MLflow asks SQLAlchemy for what its next release no longer has.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiLab]:
    """Of an API server with the champion's InferenceService, which asks for a rollout."""
    with api_server(tmp_path_factory.mktemp("faults")) as lab:
        isvc = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "flights", "annotations": {"glowplug.dev/rollout-steps": "10,50,100"}},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "xgboost"}, "storageUri": OLD}}},
        }
        lab.kubectl("apply", "-f", "-", stdin=json.dumps(isvc))
        status = {"components": {"predictor": {"latestReadyRevision": "flights-predictor-00001"}}}
        patch = json.dumps({"status": status})
        lab.kubectl("patch", "isvc", "flights", "--subresource=status", "--type=merge", "-p", patch)
        yield lab


@pytest.fixture
def sink() -> Iterator[EventSink]:
    with EventSink() as found:
        yield found


@pytest.fixture
def around(lab: ApiLab, sink: EventSink) -> Iterator[Surroundings]:
    yield Surroundings(connection(lab.config.kubeconfig, None), sink.url, holder="test")
    lab.kubectl("delete", "configmaps,events", "--all")


def failure(sink: EventSink) -> dict[str, str]:
    """The data of the one event that tells of a failed run."""
    ((_, body),) = sink.of_type("dev.glowplug.retraining.failed")
    return dict(json.loads(body))


class Server:
    """MLflow's own server in a process group of its own, which ends as a whole."""

    def __init__(self, folder: pathlib.Path, registry: RegistryConfig) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--no-serve-artifacts"]
        words += ["--backend-store-uri", registry.uri, "--default-artifact-root", registry.artifacts]
        self._log = (folder / "server.log").open("w")
        self._process = subprocess.Popen(
            [str(pathlib.Path(sys.executable).parent / "mlflow"), "server", *words],
            env={
                **os.environ,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_until(self._answers, "MLflow's server", 120)

    def _answers(self) -> bool:
        assert self._process.poll() is None, pathlib.Path(self._log.name).read_text()
        try:
            return httpx2.get(f"{self.url}/health", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._log.close()


def test_an_mlflow_server_that_is_killed_while_a_model_is_registered(
    around: Surroundings,
    sink: EventSink,
    tmp_path: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    files = with_tables(tmp_path / "mlflow", tmp_path_factory)
    server = Server(tmp_path, files)
    settings = toy.settings(tmp_path / "work", replace(files, uri=server.url), "flights")
    asked = event(REQUESTED, "1", {"to": "2026-03-02T00:00:00Z", "pastGate": True})

    def killing(what: str, done: int, total: int) -> None:
        # The model's files are there, and the version is the next thing that is asked for.
        if what == "creating the version":
            server.kill()

    try:
        failed = retrain(settings, asked, around, making.make, killing)
    finally:
        server.kill()
    assert failed.is_failure and server.url in failed.reason
    assert server.url in failure(sink)["reason"] and failure(sink)["run"] == failed.run
    status = read_status(run_folder(settings.work_dir, "flights", failed.run))
    assert status is not None
    assert (status.state, status.step) == ("failed", REGISTER)
    assert half_registered(files, "flights", TAGS) == []

    # The registry is back, without the server in between.
    again = retrain(replace(settings, registry=files), asked, around, making.make)
    assert (again.ending, again.run) == (Ending.DEPLOYED, failed.run), again
    assert resolve(files, "flights", CHALLENGER).version == "1"
    assert half_registered(files, "flights", TAGS) == []


def test_an_mlflow_server_that_never_answers_is_not_waited_for(
    around: Surroundings, sink: EventSink, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections, as one does whose database hangs."""
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        files = RegistryConfig.local(tmp_path / "mlflow")
        settings = toy.settings(tmp_path / "work", replace(files, uri=url), "flights")
        asked = event(REQUESTED, "1", {"to": "2026-03-02T00:00:00Z"})
        started = time.monotonic()
        failed = retrain(settings, asked, around, making.make)
        took_s = time.monotonic() - started
    assert failed.is_failure and url in failed.reason and "timed out" in failed.reason, failed
    assert failure(sink)["reason"] == failed.reason
    status = read_status(run_folder(settings.work_dir, "flights", failed.run))
    assert status is not None
    assert (status.state, status.step) == ("failed", CHAMPION)
    # Twice 6 s and a pause; the rest is for a busy computer, and less than one of MLflow's own timeouts.
    assert took_s < 100


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_ends_a_step_and_the_same_run_goes_on(tmp_path: pathlib.Path) -> None:
    settings = toy.settings(tmp_path, RegistryConfig.local(tmp_path / "mlflow"))
    workload, request = toy.Toy(settings), toy.request("full")
    with open_run(settings.work_dir, request) as run:
        for size in (20_000, 0):
            with room_for(size), pytest.raises(StorageError, match=r"requested and|too large") as caught:
                dataset.build(run, workload, settings.window, silent)
            assert "is there room" in caught.value.hint and str(run.folder) in caught.value.message
            assert run.outcome(DATASET) is None
        # Written when there was room for a line still.
        assert (run.status.state, run.status.step) == ("failed", DATASET)
        assert not list(run.folder.glob(".status*")), "a draft of the status is left"
    with open_run(settings.work_dir, request) as run:
        assert dataset.build(run, workload, settings.window, silent).values["training"] > 0


def test_a_manifest_that_was_edited_meanwhile_is_left_and_told(
    around: Surroundings, sink: EventSink, tmp_path: pathlib.Path
) -> None:
    repository = Repository(tmp_path)
    git = {"repository": str(repository.bare), "path": "flights/isvc.yaml", "base": "main"}
    settings = lab_settings(tmp_path, deploying={"mode": "gitops", "git": git})

    def during(running: Running, progress: Progress) -> None:
        repository.push("flights/isvc.yaml", MANIFEST.replace(OLD, "s3://by/hand"))

    failed = retrain(settings, event(DRIFT, "1"), around, steps(during))
    assert failed.is_failure and "s3://by/hand" in failed.reason
    told = failure(sink)
    assert told["reason"] == failed.reason and told["version"], "it is registered all the same"
    assert "s3://by/hand" in repository.shown("main:flights/isvc.yaml")
