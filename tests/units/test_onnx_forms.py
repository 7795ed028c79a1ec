"""Weights that replicas share: the form is made once, mapped by who comes next, and never trusted blindly."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from units.onnx_models import FLOAT, node, save, value
from units.unit_process import DEADLINE_S, UnitProcess

from glowplug.serving.onnx_form import MAPPED, Forms, cache_folder
from glowplug_onnx.session import opened

WIDTH = 1536
LAYERS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 MB of weights."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for layer in range(LAYERS):
        values = random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
        weights.append((f"w{layer}", values))
        nodes.append(node("MatMul", [f"h{layer}", f"w{layer}"], [f"m{layer}"]))
        nodes.append(node("Relu", [f"m{layer}"], [f"h{layer + 1}"]))
    takes, gives = (value(name, FLOAT, ["n", WIDTH]) for name in ("h0", f"h{LAYERS}"))
    return save(tmp_path_factory.mktemp("model"), nodes, [takes], [gives], *weights)


@pytest.fixture
def forms(tmp_path: Path) -> Forms:
    return Forms(tmp_path, 1)


def computed(session: Any) -> Any:
    return session.run(None, {"h0": np.linspace(0, 1, WIDTH, dtype=np.float32)[None]})[0]


def agree(session: Any) -> bool:
    return True


def test_the_form_computes_what_the_model_does(forms: Forms, model: Path, tmp_path: Path) -> None:
    plain, is_form = forms.open(model, opened)
    assert not is_form

    made, said = forms.make(model, opened, lambda other: np.array_equal(computed(plain), computed(other)))
    assert said == MAPPED and made is not None
    again, is_form = forms.open(model, opened)
    assert is_form
    assert np.array_equal(computed(plain), computed(again))
    # Nothing else is left in the folder than the one form and the lock.
    assert len([entry for entry in tmp_path.iterdir() if entry.is_dir()]) == 1


def test_one_that_computes_something_else_is_not_kept(forms: Forms, model: Path) -> None:
    made, said = forms.make(model, opened, lambda other: False)
    assert made is None and "something else" in said
    assert forms.find(model) is None


def test_one_that_is_cut_off_or_garbled_gives_way_to_the_model(
    forms: Forms, model: Path, tmp_path: Path
) -> None:
    plain, _ = forms.open(model, opened)
    forms.make(model, opened, agree)
    weights = next(tmp_path.glob("*/weights.bin"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    found, is_form = forms.open(model, opened)
    assert not is_form and np.array_equal(computed(found), computed(plain))

    weights.write_bytes(whole)
    text = next(tmp_path.glob("*/model.onnx"))
    text.write_bytes(b"\x00" * text.stat().st_size)
    found, is_form = forms.open(model, opened)
    assert not is_form and np.array_equal(computed(found), computed(plain))
    assert forms.find(model) is None, "what cannot be opened is not tried again"


def test_what_a_killed_process_left_is_removed(forms: Forms, model: Path, tmp_path: Path) -> None:
    left = tmp_path / ".new-abc"
    left.mkdir()
    (left / "weights.bin").write_bytes(b"0" * 1000)
    forms.make(model, opened, agree)
    assert not left.exists() and forms.find(model) is not None


def test_a_changed_model_has_another_form(forms: Forms, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m" / "model.onnx"
    copy.parent.mkdir()
    shutil.copy(model, copy)
    forms.make(copy, opened, agree)
    assert forms.find(copy) is not None
    with copy.open("ab") as file:
        file.write(b"\x00")
    assert forms.find(copy) is None


def test_where_nothing_can_be_kept_the_model_is_served(model: Path, tmp_path: Path) -> None:
    forms = Forms(tmp_path / "missing", 1)
    assert forms.make(model, opened, agree)[0] is None
    assert not forms.open(model, opened)[1]
    assert cache_folder({"XDG_CACHE_HOME": "/proc/nowhere"}, "x") is None
    assert cache_folder({}, "x") is None


def test_replicas_share_the_weights(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    alone = UnitProcess(tmp_path / "alone", "glowplug_onnx", f"--model_dir={model.parent}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = UnitProcess(tmp_path / "first", "glowplug_onnx", f"--model_dir={model.parent}")
    for each in (alone, first):
        each.wait_until_ready()
    wait_for_mapped(first)
    second = UnitProcess(tmp_path / "second", "glowplug_onnx", f"--model_dir={model.parent}")
    second.wait_until_ready()
    assert MAPPED in info(second), "from the start"

    answers = [predicted(each) for each in (alone, first, second)]
    assert np.allclose(answers[0], answers[1], rtol=1e-5) and answers[1] == answers[2]
    weights = LAYERS * WIDTH * WIDTH * 4
    assert anonymous(alone) - anonymous(second) > 0.7 * weights
    for each in (alone, first, second):
        each.stop()


def wait_for_mapped(unit: UnitProcess) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while MAPPED not in info(unit):
        assert time.monotonic() < deadline, unit.log.read_text()
        time.sleep(0.05)


def info(unit: UnitProcess) -> str:
    page = httpx2.get(f"{unit.url}/metrics").text
    return "".join(line for line in page.splitlines() if line.startswith("glowplug_model_info"))


def predicted(unit: UnitProcess) -> list[float]:
    row = {"name": "h0", "datatype": "FP32", "shape": [1, WIDTH], "data": [0.5] * WIDTH}
    answer = httpx2.post(f"{unit.url}/v2/models/m/infer", json={"inputs": [row]})
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["outputs"][0]["data"]
    return found


def anonymous(unit: UnitProcess) -> int:
    """Bytes of memory that no other process shares."""
    text = Path(f"/proc/{unit.process.pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024
