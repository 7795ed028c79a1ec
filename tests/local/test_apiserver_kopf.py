"""A real kopf operator against the API server: handlers, finalizers, status, events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local.apiserver_fixture import ApiLab, api_server, isvc, wait_until

from glowplug.errors import NotFound
from glowplug.spec.kinds import EVENT, INFERENCE_SERVICE

OPERATOR = """
import kopf

RESOURCE = ("serving.kserve.io", "v1beta1", "inferenceservices")

@kopf.on.create(*RESOURCE)
def created(spec, name, patch, body, **_):
    patch.status["uri"] = spec["predictor"]["model"]["storageUri"]
    kopf.info(body, reason="Seen", message=f"{name} is here")
    return {"done": True}

@kopf.on.update(*RESOURCE, field="spec.predictor.minReplicas")
def updated(old, new, patch, **_):
    patch.status["replicas"] = f"{old} -> {new}"

@kopf.on.delete(*RESOURCE)
def deleted(name, **_):
    with open("deleted", "a") as file:
        file.write(name + "\\n")
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiLab]:
    with api_server(tmp_path_factory.mktemp("kopf")) as lab:
        yield lab


@pytest.fixture(scope="module")
def operator(lab: ApiLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("operator")
    (folder / "operator_under_test.py").write_text(OPERATOR)
    command = [
        sys.executable,
        "-m",
        "kopf",
        "run",
        "operator_under_test.py",
        "-A",
        "--standalone",
        "--verbose",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=lab.environment(), stdout=log, stderr=log)
        yield folder
        process.terminate()
        code = process.wait(15)
    text = (folder / "log").read_text()
    assert code == 0, text[-3000:]
    assert "Traceback" not in text, text[-3000:]


def current(lab: ApiLab, name: str) -> dict[str, Any]:
    try:
        return lab.do(lab.objects.get, INFERENCE_SERVICE, "default", name)
    except NotFound:
        return {}


def test_operator_handles_an_objects_life(lab: ApiLab, operator: Path) -> None:
    lab.do(lab.objects.create, INFERENCE_SERVICE, isvc("flights"))
    wait_until(lambda: (current(lab, "flights").get("status") or {}).get("uri") == "pvc://models/flights", 20)
    meta = current(lab, "flights")["metadata"]
    assert meta["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
    assert meta["generation"] == 1
    wait_until(lambda: any(event["reason"] == "Seen" for event in lab.do(lab.objects.list, EVENT)))

    patch = '{"spec":{"predictor":{"minReplicas":3}}}'
    lab.kubectl("patch", "isvc", "flights", "--type=merge", "-p", patch)
    wait_until(lambda: current(lab, "flights").get("status", {}).get("replicas") == "None -> 3", 20)

    lab.kubectl("delete", "isvc", "flights", "--timeout=20s")
    assert current(lab, "flights") == {}
    assert (operator / "deleted").read_text() == "flights\n"
