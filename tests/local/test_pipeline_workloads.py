"""Digits and notices: trained with PyTorch by the pipeline's steps, registered, and served by the units."""

from __future__ import annotations

import base64
import io
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import yaml
from local.machine_lab import MachineLab, Object, wait_for
from typer.testing import CliRunner
from unit.registry.lab import with_tables
from units.huggingface_lab import is_installed, needs_torch, run_unit

from glowplug.cli.pipelines import app
from glowplug.drift.profile import Profile
from glowplug.registry import aliases
from glowplug.registry.audit import half_registered
from glowplug.registry.models import CHAMPION, ModelVersion, RegistryConfig, resolve
from glowplug_pipelines.execution import Finished, execute
from glowplug_pipelines.gate.checks import Result
from glowplug_pipelines.run import Request, run_folder
from glowplug_pipelines.settings import Settings, parse_settings
from glowplug_pipelines.steps.registering import TAGS
from glowplug_pipelines.workload import load_workload, silent

pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")

ROOT = pathlib.Path(__file__).parents[2]
# PyTorch, its exporter, transformers and MLflow warn of what their dependencies deprecate.
pytestmark = [
    needs_torch,
    pytest.mark.skipif(not is_installed("scikit-learn"), reason="scikit-learn is not installed"),
    pytest.mark.filterwarnings("ignore"),
    # Half a minute on a quiet computer; the time is for one that many others use.
    pytest.mark.timeout(600),
]


class Place:
    """A registry and the shipped settings, with less to train."""

    def __init__(self, folder: pathlib.Path, registry: RegistryConfig) -> None:
        self.folder = folder
        self.registry = registry

    def file(self, model: str) -> pathlib.Path:
        return self.folder / f"{model}.yaml"

    def settings(self, model: str, **options: Any) -> Settings:
        """Also written into a file, for commands."""
        shipped = yaml.safe_load((ROOT / f"pipelines/{model}/pipeline.yaml").read_text())
        registry = {"uri": self.registry.uri, "artifacts": self.registry.artifacts}
        changed = {
            **shipped,
            "workDir": str(self.folder / "work"),
            "registry": registry,
            # How fast it is, is no question on a busy computer.
            "gate": {**shipped["gate"], "maxLatencyMs": 0, "maxLatencyRatio": 0},
            "options": {**shipped["options"], **options},
            "triggering": {"inferenceService": SERVICES[model]},
            "deploying": {"readySeconds": 120},
        }
        text = yaml.safe_dump(changed)
        self.file(model).write_text(text)
        return parse_settings(text, model, {})


SERVICES = {"digits": "photos", "notices": "minilm"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("workloads")
    return Place(folder, with_tables(folder / "mlflow", tmp_path_factory))


@pytest.fixture
def served(machine: MachineLab) -> Iterator[MachineLab]:
    yield machine
    for name in SERVICES.values():
        machine.delete(name)


def asked(settings: Settings, run: str, to: datetime) -> Request:
    return Request(run, settings.model, settings.window.before(to.replace(tzinfo=timezone.utc)))


def files_of(version: ModelVersion) -> pathlib.Path:
    return pathlib.Path(unquote(urlsplit(version.storage_uri).path))


def killed_in_training(place: Place, model: str, run: str, to: str) -> None:
    """`kill -9` of the command, as soon as it trains."""
    command = [sys.executable, "-W", "ignore", "-m", "glowplug_pipelines", "run", "--run", run, "--to", to]
    paths = os.pathsep.join(str(ROOT / each) for each in ("src", "pipelines/src"))
    process = subprocess.Popen(
        [*command, "--settings", str(place.file(model))],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    folder = run_folder(place.folder / "work", model, run)
    try:
        wait_for(lambda: (folder / ".train.draft").exists() or process.poll() is not None, "training", 180)
        assert process.poll() is None, "it is through, or failed, before it could be killed"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert (folder / "dataset.json").exists() and not (folder / "train.json").exists()


def checked(finished: Finished, settings: Settings) -> ModelVersion:
    """The version, whole and with what belongs to it."""
    from mlflow.models import Model

    version = finished.version
    assert version is not None
    assert half_registered(settings.registry, settings.model, TAGS) == []
    folder = files_of(version)
    workload = load_workload(settings)
    signature = Model.load(str(folder / "MLmodel")).signature
    assert signature.inputs.input_names() == list(workload.signature.inputs)
    assert signature.outputs.input_names() == list(workload.signature.outputs)
    card = (folder / "card/card.md").read_text()
    assert "| accuracy, held out |" in card and "](calibration.png)" in card
    profile = Profile.from_json((folder / "profile.json").read_bytes())
    assert profile.names == workload.rows(finished_span(finished, settings), silent).names
    return version


def finished_span(finished: Finished, settings: Settings) -> Any:
    from glowplug_pipelines.run import read_request

    return read_request(settings.work_dir, settings.model, finished.run_id).span


def photos(uri: str) -> Object:
    """transformers/image as shipped, told to send a scan as it is."""
    service: Object = yaml.safe_load((ROOT / "transformers/image/isvc.yaml").read_text())
    service["spec"]["predictor"]["model"]["storageUri"] = uri
    service["spec"]["predictor"]["maxReplicas"] = 1
    service["spec"]["predictor"]["containers"][0]["args"] += [
        "--size=8", "--resize=8", "--mean=0,0,0", "--std=1,1,1", "--top_k=1",
    ]  # fmt: skip
    return service


def png(pixels: Any) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels, mode="L").save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def infer(machine: MachineLab, name: str, tensor: str, values: list[str]) -> dict[str, Any]:
    item = {"name": tensor, "datatype": "BYTES", "shape": [len(values)], "data": values}
    url = f"{machine.ingress}/serving/default/{name}/v2/models/{name}/infer"
    answer = machine.http.post(url, json={"inputs": [item]})
    assert answer.status_code == 200, answer.text
    return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in answer.json()["outputs"]}


def test_digits_from_a_kill_in_training_to_a_canary_that_reads_better(
    served: MachineLab, place: Place
) -> None:
    """The second model has seen seven writers, the first had seen two."""
    from glowplug_digits.scans import read_scans

    settings = place.settings("digits", epochs=1000)
    killed_in_training(place, "digits", "first", "1998-07-09")
    settings = place.settings("digits", epochs=8)
    first = execute(settings, asked(settings, "first", datetime(1998, 7, 9)))
    assert first.verdict.result is Result.PASS, first.verdict.reason
    one = checked(first, settings)
    aliases.promote(place.registry, "digits", one.version)
    service = photos(one.storage_uri)
    served.apply(service)
    served.wait_ready("photos")

    scans, workload = read_scans(), load_workload(settings)
    span = settings.window.before(datetime(1998, 7, 14, tzinfo=timezone.utc))
    rows = workload.rows(span, silent).where(slice(-8, None))
    images = [png(pixels) for pixels in scans.pixels[-8:]]
    expected = {"1": workload.load(files_of(one)).predict(rows)}
    answer = infer(served, "photos", "images", images)
    np.testing.assert_allclose(answer["probabilities"], expected["1"], atol=1e-5)
    assert answer["class"].reshape(-1).tolist() == expected["1"].argmax(axis=1).tolist()

    second = execute(settings, asked(settings, "second", datetime(1998, 7, 14)))
    assert second.verdict.result is Result.PASS, second.verdict.reason
    assert "less than champion 1" in second.verdict.reason
    two = checked(second, settings)
    expected["2"] = workload.load(files_of(two)).predict(rows)
    assert np.abs(expected["1"] - expected["2"]).max() > 0.01
    service["spec"]["predictor"]["canaryTrafficPercent"] = 50
    served.apply(service)
    command = ["deploy", "--run", "second", "--settings", str(place.file("digits"))]
    done = CliRunner().invoke(app, [*command, "--kubeconfig", str(served.directory.kubeconfig)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert resolve(place.registry, "digits", CHAMPION).version == two.version
    answered = set()

    def both_have_answered() -> bool:
        given = infer(served, "photos", "images", images)["probabilities"]
        answered.update(who for who, what in expected.items() if np.allclose(given, what, atol=1e-5))
        return len(answered) == 2

    wait_for(both_have_answered, "answers of both")


def test_notices_are_read_by_the_model_that_the_gate_saw(
    served: MachineLab, place: Place, tmp_path: pathlib.Path
) -> None:
    settings = place.settings("notices", share=0.06, epochs=3)
    window = replace(settings.window, days=40, holdout_days=8, min_training_rows=500, min_holdout_rows=300)
    settings = replace(settings, window=window)
    finished = execute(settings, asked(settings, "spring", datetime(2013, 6, 1)))
    assert finished.verdict.result is Result.PASS, finished.verdict.reason
    version = checked(finished, settings)
    # Ahead of the start, which else would take as long as an export does on a busy computer.
    ran = run_unit("--export", f"--model_dir={files_of(version)}", f"--cache_dir={tmp_path}")
    assert ran.returncode == 0, ran.stderr
    service = yaml.safe_load((ROOT / "predictors/huggingface/isvc.yaml").read_text())
    service["spec"]["predictor"]["model"] |= {
        "storageUri": version.storage_uri,
        "args": [f"--cache_dir={tmp_path}"],
    }
    served.apply(service)
    served.wait_ready("minilm")
    workload = load_workload(settings)
    rows = workload.rows(asked(settings, "x", datetime(2013, 6, 1)).span, silent).where(slice(-30, None))
    expected = workload.load(files_of(version)).predict(rows)
    answer = infer(served, "minilm", "text", rows.slices["text"].tolist())
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-3)
    assert answer["label"].reshape(-1).tolist() == [
        ("on time", "late")[place] for place in expected.argmax(axis=1)
    ]


@pytest.mark.parametrize(
    ("model", "to", "options", "files"),
    [
        ("digits", datetime(1998, 7, 14), {"epochs": 1}, ("model.onnx",)),
        (
            "notices", datetime(2013, 6, 1), {"epochs": 1, "share": 0.005},
            ("model.safetensors", "tokenizer.json", "config.json"),
        ),
    ],
)  # fmt: skip
def test_the_same_rows_give_the_same_files(
    place: Place,
    tmp_path: pathlib.Path,
    model: str,
    to: datetime,
    options: dict[str, Any],
    files: tuple[str, ...],
) -> None:
    settings = place.settings(model, **options)
    workload = load_workload(settings)
    rows = workload.rows(asked(settings, "x", to).span, silent)
    rows = rows.where(rows.is_labelled).where(slice(-300, None))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        workload.train(rows, rows, tmp_path / name, silent)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("model", "option", "value"),
    [("digits", "epochs", 0), ("digits", "rounds", 1), ("notices", "share", 2), ("notices", "epochs", "3")],
)
def test_options_that_are_wrong(place: Place, model: str, option: str, value: object) -> None:
    from glowplug.errors import ConfigError

    with pytest.raises(ConfigError, match=option):
        load_workload(place.settings(model, **{option: value}))
