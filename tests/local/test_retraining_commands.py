"""`glowplug pipelines retrain` and `deploy` on a whole machine, as a Job and as a person run them."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import pytest
import yaml
from local.machine_lab import MachineLab, inference_service, write_model
from local.retraining_lab import REQUESTED
from typer.testing import CliRunner, Result
from unit.pipelines.toy import Toy
from unit.registry.lab import with_tables

from glowplug.cli.pipelines import app
from glowplug.errors import GlowplugError
from glowplug.registry import aliases
from glowplug.registry.models import CHALLENGER, CHAMPION, RegistryConfig, resolve
from glowplug_pipelines.rows import Rows
from glowplug_pipelines.workload import Progress

# MLflow asks SQLAlchemy for what its next release no longer has.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Served(Toy):
    """The toy, with a model beside it that a predictor can load."""

    def train(
        self, fit: Rows, validation: Rows, directory: pathlib.Path, progress: Progress
    ) -> Mapping[str, float]:
        write_model(directory)
        return super().train(fit, validation, directory, progress)


class Place:
    """A machine that serves a first model, and a pipeline's settings."""

    def __init__(self, machine: MachineLab, folder: pathlib.Path, registry: RegistryConfig) -> None:
        self.machine, self.folder = machine, folder
        self.registry = registry
        window = {"days": 30, "holdoutDays": 10, "validationDays": 3, "gapHours": 6, "minTrainingRows": 500}
        settings = {
            "model": "flights",
            "workload": "local.test_retraining_commands:Served",
            "workDir": str(folder / "work"),
            "registry": {"uri": self.registry.uri, "artifacts": self.registry.artifacts},
            "window": window,
            "gate": {"resamples": 500, "maxLatencyRatio": 0},
            "deploying": {"readySeconds": 60},
        }
        self.write(settings)

    def write(self, settings: Mapping[str, object]) -> None:
        self.settings = dict(settings)
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump(self.settings))

    def command(self, *words: str) -> Result:
        settings = ("--settings", str(self.folder / "pipeline.yaml"))
        # A run's own steps ask no cluster.
        at = () if words[0] == "run" else ("--kubeconfig", str(self.machine.directory.kubeconfig))
        return CliRunner().invoke(app, [*words, *settings, *at])

    @property
    def served(self) -> str:
        return str(self.machine.get("isvc", "flights")["spec"]["predictor"]["model"]["storageUri"])


@pytest.fixture(scope="module")
def place(machine: MachineLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The shared machine, which is left as it was."""
    folder, lab = tmp_path_factory.mktemp("commands"), machine
    try:
        write_model(folder / "first")
        lab.apply(inference_service("flights", folder / "first"))
        lab.wait_ready("flights")
        yield Place(lab, folder, with_tables(folder / "mlflow", tmp_path_factory))
    finally:
        lab.kubectl("delete", "configmap", "glowplug-retraining-flights", "--ignore-not-found")
        lab.delete("flights")


def test_an_event_is_answered_and_its_version_serves(place: Place) -> None:
    event = {
        "specversion": "1.0", "type": REQUESTED, "source": "/test", "id": "1", "datacontenttype": "application/json",
        "data": {"model": "flights", "to": "2026-03-02T00:00:00Z"},
    }  # fmt: skip
    (place.folder / "event").write_text(json.dumps(event))
    done = place.command("retrain", "--event", str(place.folder / "event"))
    assert done.exit_code == 0, (done.output, done.exception)
    assert "deployed: version 1 is in InferenceService default/flights, and ready" in done.output
    champion = resolve(place.registry, "flights", CHAMPION)
    assert place.served == champion.storage_uri
    assert place.machine.infer("flights", [[0.1, 0.2, 0.3]]).status_code == 200
    shown = place.command("triggers")
    assert "version 1 promoted" in shown.output, shown.output
    again = place.command("retrain", "--event", str(place.folder / "event"))
    assert again.exit_code == 0 and "skipped: answered by" in again.output


def test_a_person_deploys_a_run(place: Place) -> None:
    made = place.command("run", "--run", "by-hand", "--to", "2026-03-03", "--force")
    assert made.exit_code == 0, (made.output, made.exception)
    assert "glowplug pipelines deploy --run by-hand" in made.output
    version = resolve(place.registry, "flights", CHALLENGER)
    done = place.command("deploy", "--run", "by-hand")
    assert done.exit_code == 0, (done.output, done.exception)
    assert place.served == version.storage_uri
    assert resolve(place.registry, "flights", CHAMPION).version == version.version
    again = place.command("deploy", "--run", "by-hand")
    assert "(as before)" in again.output
    assert "promoted" in place.command("triggers").output


def test_a_version_that_never_serves_is_rejected_and_what_served_is_put_back(place: Place) -> None:
    made = place.command("run", "--run", "broken", "--to", "2026-03-04", "--force")
    assert made.exit_code == 0, (made.output, made.exception)
    before, champion = place.served, resolve(place.registry, "flights", CHAMPION)
    version = resolve(place.registry, "flights", CHALLENGER)
    shutil.rmtree(urlsplit(version.storage_uri).path)
    place.write({**place.settings, "deploying": {"readySeconds": 5}})
    done = place.command("deploy", "--run", "broken")
    assert isinstance(done.exception, GlowplugError), done.output
    assert "not ready after 5 s" in done.exception.message and "was put back" in done.exception.message
    assert place.served == before
    rejected = resolve(place.registry, "flights", version.version)
    assert "not ready after 5 s" in rejected.tags[aliases.REJECTED_TAG]
    assert resolve(place.registry, "flights", CHAMPION).version == champion.version
    place.machine.wait_ready("flights")
    assert place.machine.infer("flights", [[0.1, 0.2, 0.3]]).status_code == 200
