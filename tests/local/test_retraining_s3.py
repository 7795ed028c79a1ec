"""Versions whose files are in S3: registered there, served from there with a Secret's keys, and S3 gone in mid-run."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from local.event_sink import EventSink
from local.machine_lab import MachineLab, inference_service, write_model
from local.retraining_lab import DRIFT, event
from local.s3_lab import ACCESS_KEY, REGION, S3, SECRET_KEY
from unit.registry.lab import with_tables

from glowplug.operators.api import connection
from glowplug.registry.models import CHALLENGER, CHAMPION, Candidate, register, resolve
from glowplug_pipelines.retraining import retrain
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.triggering.result import Ending, Made, Steps, Surroundings
from glowplug_pipelines.triggering.state import Running
from glowplug_pipelines.workload import Progress

# MLflow asks SQLAlchemy for what its next release no longer has; boto3 of its day for a naive time.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    found = S3(tmp_path_factory.mktemp("s3"))
    found.start()
    found.bucket("models")
    yield found
    found.kill()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineLab]:
    """Started before S3 is in this process' environment: the machine has no credentials of its own."""
    lab = MachineLab(tmp_path_factory.mktemp("machine") / "data")
    lab.up("--no-warm-pool")
    yield lab
    lab.close()


@pytest.fixture
def sink() -> Iterator[EventSink]:
    with EventSink() as found:
        yield found


def steps(s3: S3, cuts: list[str]) -> Steps:
    """Steps that register a model in S3, which is gone by then for as long as there are `cuts`."""

    def make(settings: Settings, running: Running, progress: Progress) -> Made:
        model = settings.work_dir / running.run
        if not model.exists():
            write_model(model, seed=1)
        if cuts:
            cuts.pop()
            s3.kill()
        version = register(settings.registry, Candidate(settings.model, model), alias=CHALLENGER)
        return Made(True, "pass", "better", version)

    return make


def test_a_version_in_s3_is_served_with_a_secret_and_s3_gone_is_told(
    machine: MachineLab,
    s3: S3,
    sink: EventSink,
    tmp_path: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    registry = replace(with_tables(tmp_path, tmp_path_factory), artifacts="s3://models/mlflow")
    write_model(tmp_path / "first")
    first = register(registry, Candidate("flights", tmp_path / "first"), alias=CHAMPION)
    assert first.storage_uri.startswith("s3://models/mlflow/")

    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "model-storage",
            "annotations": {
                "serving.kserve.io/s3-endpoint": s3.address,
                "serving.kserve.io/s3-usehttps": "0",
                "serving.kserve.io/s3-region": REGION,
            },
        },
        "stringData": {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
    }
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "models"},
        "secrets": [{"name": "model-storage"}],
    }
    service = inference_service("flights", first.storage_uri, serviceAccountName="models")
    machine.apply(secret, account, service)
    machine.wait_ready("flights")
    assert machine.infer("flights", [[0.1, 0.2, 0.3]]).status_code == 200
    assert SECRET_KEY not in machine.account()

    settings = Settings("flights", "none:None", "", registry, tmp_path / "runs")
    around = Surroundings(connection(machine.directory.kubeconfig, None), sink.url)
    asked, made = event(DRIFT, "1", {"episode": "e"}), steps(s3, ["once"])
    failed = retrain(settings, asked, around, made)
    assert failed.is_failure and s3.address in failed.reason, failed
    ((headers, body),) = sink.of_type("dev.glowplug.retraining.failed")
    assert headers["ce-subject"] == failed.run and s3.address in json.loads(body)["reason"]
    assert machine.infer("flights", [[0.1, 0.2, 0.3]]).status_code == 200, "the champion serves on"
    assert resolve(registry, "flights", CHAMPION).version == first.version

    s3.start()
    again = retrain(settings, asked, around, made)
    assert (again.ending, again.run) == (Ending.DEPLOYED, failed.run), again
    champion = resolve(registry, "flights", CHAMPION)
    assert champion.version != first.version and champion.storage_uri.startswith("s3://models/mlflow/")
    isvc = machine.get("isvc", "flights")
    assert isvc["spec"]["predictor"]["model"]["storageUri"] == champion.storage_uri
    assert machine.infer("flights", [[0.1, 0.2, 0.3]]).status_code == 200
    shown = [failed.reason, json.dumps([body.decode() for _, body in sink.events]), machine.account()]
    assert all(SECRET_KEY not in text for text in shown)
