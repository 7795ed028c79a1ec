"""Every unit is whole: it can be found, run, built, and applied on a cluster as it lies there."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys
from typing import Any

import pytest
import yaml

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

ROOT = pathlib.Path(__file__).parents[2]


def _units(*folders: str) -> list[pathlib.Path]:
    found = [path.parent for folder in folders for path in (ROOT / folder).glob("*/pyproject.toml")]
    return sorted(found)


UNITS = _units("predictors", "transformers")
# What takes or sends events: no InferenceService, and no model's command line.
EVENT_UNITS = _units("eventing")
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"


@pytest.fixture(params=UNITS, ids=lambda path: path.name)
def unit(request: pytest.FixtureRequest) -> pathlib.Path:
    return request.param


def declared(unit: pathlib.Path) -> dict[str, Any]:
    return tomllib.loads((unit / "pyproject.toml").read_text())


def images() -> set[str]:
    found = (declared(unit)["tool"]["glowplug"]["unit"]["image"] for unit in (*UNITS, *EVENT_UNITS))
    return {image.partition(":")[0] for image in found}


def objects(path: pathlib.Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def containers(target: Any) -> list[dict[str, Any]]:
    """Every container anywhere in an object."""
    if isinstance(target, list):
        return [found for item in target for found in containers(item)]
    if not isinstance(target, dict):
        return []
    here = [item for item in target.get("containers", ()) if isinstance(item, dict)]
    return here + [found for value in target.values() for found in containers(value)]


def test_there_are_units() -> None:
    assert {unit.name for unit in UNITS} >= {"xgboost", "feature-lookup"}


@pytest.mark.parametrize("unit", [*UNITS, *EVENT_UNITS], ids=lambda path: path.name)
def test_has_what_a_unit_needs(unit: pathlib.Path) -> None:
    manifest = "isvc.yaml" if unit in UNITS else "kustomization.yaml"
    for name in ("Dockerfile", manifest, "kustomization.yaml", "README.md", "src"):
        assert (unit / name).exists(), name
    run = shlex.split(declared(unit)["tool"]["glowplug"]["unit"]["run"])
    assert run[:2] == ["python", "-m"]
    assert (unit / "src" / run[2] / "__main__.py").exists()


def test_its_folder_hides_no_library(unit: pathlib.Path) -> None:
    for folder in (unit, unit.parent):
        found = [path.name for path in folder.glob("*.py")]
        assert not found, f"{folder} must hold no Python: {found}"


def test_its_command_answers_help(unit: pathlib.Path) -> None:
    run = shlex.split(declared(unit)["tool"]["glowplug"]["unit"]["run"])
    shown = subprocess.run(
        [sys.executable, *run[1:], "--help"],
        capture_output=True, text=True, check=True, cwd=unit, env={"PYTHONPATH": f"{unit / 'src'}:{ROOT / 'src'}"},
    )  # fmt: skip
    assert "--model_name" in shown.stdout


@pytest.mark.parametrize("unit", EVENT_UNITS, ids=lambda path: path.name)
def test_an_event_unit_starts(unit: pathlib.Path) -> None:
    """As far as to say how it is used, or what it has not been told."""
    run = shlex.split(declared(unit)["tool"]["glowplug"]["unit"]["run"])
    shown = subprocess.run(
        [sys.executable, *run[1:], "--help"],
        capture_output=True, text=True, check=False, cwd=unit, env={"PYTHONPATH": f"{unit / 'src'}:{ROOT / 'src'}"},
    )  # fmt: skip
    assert shown.returncode in (0, 2), shown.stderr
    assert "usage:" in shown.stdout.lower() or "hint:" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_its_kustomization_builds(unit: pathlib.Path) -> None:
    built = subprocess.run([str(KUBECTL), "kustomize", str(unit)], capture_output=True, text=True, check=True)
    kinds = {document["kind"] for document in yaml.safe_load_all(built.stdout)}
    assert "InferenceService" in kinds


def test_its_images_are_known_units(unit: pathlib.Path) -> None:
    used = {
        container["image"].rpartition(":")[0] or container["image"]
        for path in unit.glob("*.yaml")
        for document in objects(path)
        for container in containers(document)
        if "image" in container
    }
    assert used <= images()


def test_its_inference_service_names_the_deployment_mode(unit: pathlib.Path) -> None:
    services = [
        document for document in objects(unit / "isvc.yaml") if document["kind"] == "InferenceService"
    ]
    assert services
    for service in services:
        assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
