"""The way from the Broker to a deployed version on a whole machine: Triggers, a JobSink, its Jobs, one run."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Iterator

import pytest
from local.event_sink import EventSink
from local.machine_lab import MachineLab, Object, inference_service, wait_for
from local.test_machine_eventing import SINK_KIND, address, broker, jobs, ready, trigger
from unit.registry.lab import with_tables

from glowplug.registry.models import CHAMPION, resolve

# MLflow asks SQLAlchemy for what its next release no longer has.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Half a minute on a quiet computer; the time is for one that many others use.
    pytest.mark.timeout(600),
]
ROOT = pathlib.Path(__file__).parents[2]
DRIFT = "dev.glowplug.drift.detected"
# What `glowplug pipelines retrain` does, with steps of a second.
JOB = """
import os, pathlib, sys
from glowplug.operators.api import connection
from glowplug.registry.models import CHALLENGER, Candidate, RegistryConfig, register
from glowplug_pipelines.retraining import read_event, retrain
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.triggering.result import Made, Surroundings
from local.machine_lab import write_model

folder = pathlib.Path(sys.argv[1])
settings = Settings("flights", "none:None", "", RegistryConfig.local(folder / "mlflow"), folder / "runs")

def steps(settings, running, progress):
    with (folder / "runs.txt").open("a") as told:
        told.write(running.run + "\\n")
    progress("training", 0, 0)
    model = settings.work_dir / running.run
    write_model(model, seed=1)
    version = register(settings.registry, Candidate(settings.model, model), alias=CHALLENGER)
    return Made(True, "pass", "better by 4 %", version)

around = Surroundings.of(connection(pathlib.Path(os.environ["KUBECONFIG"]), None), os.environ)
result = retrain(settings, read_event(pathlib.Path(os.environ["K_EVENT_PATH"])), around, steps)
print(result.ending.value, result.run, result.reason)
sys.exit(result.is_failure)
"""


@pytest.fixture
def cleared(machine: MachineLab) -> Iterator[MachineLab]:
    """The shared machine, which is left as it was."""
    yield machine
    machine.kubectl("delete", "triggers,brokers,jobsinks,jobs", "--all")
    machine.kubectl("delete", "configmap", "glowplug-retraining-flights", "--ignore-not-found")
    machine.delete("flights")


@pytest.fixture
def sink() -> Iterator[EventSink]:
    with EventSink() as found:
        yield found


def job_sink(machine: MachineLab, folder: pathlib.Path, sink: EventSink) -> Object:
    paths = (ROOT / "src", ROOT / "pipelines/src", ROOT / "tests")
    environment = {
        "KUBECONFIG": str(machine.directory.kubeconfig),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "K_SINK": sink.url,
    }
    container = {
        "name": "retrain",
        "image": "any",
        "command": [sys.executable, "-c", JOB, str(folder)],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
    }
    template = {"spec": {"restartPolicy": "OnFailure", "containers": [container]}}
    job = {"spec": {"backoffLimit": 2, "template": template}}
    return {**SINK_KIND, "metadata": {"name": "retrain-flights"}, "spec": {"job": job}}


def send(machine: MachineLab, url: str, type: str, id: str, subject: str, data: Object) -> None:
    headers = {
        "ce-specversion": "1.0", "ce-type": type, "ce-id": id, "ce-subject": subject,
        "ce-source": "/glowplug/drift/default/flights", "content-type": "application/json",
    }  # fmt: skip
    assert machine.http.post(url, headers=headers, content=json.dumps(data)).status_code == 202


def test_ten_drift_events_make_ten_jobs_and_one_run_whose_version_serves(
    cleared: MachineLab,
    small_model: pathlib.Path,
    tmp_path: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
    sink: EventSink,
) -> None:
    machine, registry = cleared, with_tables(tmp_path / "mlflow", tmp_path_factory)
    machine.apply(
        inference_service("flights", small_model),
        broker("default", delivery={"retry": 3, "backoffDelay": "PT0.5S"}),
        job_sink(machine, tmp_path, sink),
        trigger(
            "retrain-flights-on-drift",
            "default",
            {"ref": {**SINK_KIND, "name": "retrain-flights"}},
            filters=[{"exact": {"type": DRIFT, "subject": "flights"}}],
        ),
    )
    machine.wait_ready("flights")
    ready(machine, "broker/default", "trigger/retrain-flights-on-drift", "jobsink/retrain-flights")
    url = address(machine, "broker", "default")
    for each in range(10):
        data = {"model": "flights", "inferenceservice": "flights", "episode": f"e{each % 4}"}
        send(machine, url, DRIFT, f"drift-{each}", "flights", data)
    send(machine, url, DRIFT, "of-another", "other", {"model": "other", "episode": "x"})
    wait_for(lambda: len(jobs(machine, "retrain-flights")) == 10, "a Job for each event")

    def all_over() -> bool:
        statuses = [each.get("status", {}) for each in jobs(machine, "retrain-flights")]
        return all(status.get("succeeded") or status.get("failed") for status in statuses)

    wait_for(all_over, "the Jobs", 150)
    logs = [
        machine.kubectl("logs", f"job/{each['metadata']['name']}").stdout
        for each in jobs(machine, "retrain-flights")
    ]
    endings = sorted(log.split()[0] for log in logs)
    (run,) = (tmp_path / "runs.txt").read_text().split()
    assert endings.count("deployed") == 1 and set(endings) <= {"deployed", "skipped", "waiting"}, logs
    assert not any(each["status"].get("failed") for each in jobs(machine, "retrain-flights"))

    version = resolve(registry, "flights", CHAMPION)
    isvc = machine.wait_ready("flights")
    assert isvc["spec"]["predictor"]["model"]["storageUri"] == version.storage_uri
    assert machine.infer("flights", [[0.1, 0.2, 0.3]]).status_code == 200
    revision = machine.get("revision", isvc["status"]["components"]["predictor"]["latestReadyRevision"])
    # One id from the event to the revision.
    assert revision["metadata"]["annotations"]["glowplug.dev/retraining-run"] == run
    assert revision["metadata"]["annotations"]["glowplug.dev/model-version"] == version.version
    ((headers, body),) = sink.of_type("dev.glowplug.retraining.finished")
    assert headers["ce-subject"] == run and json.loads(body)["version"] == version.version
    described = machine.kubectl("describe", "isvc", "flights").stdout
    assert "RetrainingFinished" in described and "ChampionMoved" in described
