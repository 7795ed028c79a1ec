"""int8 where it is asked for: tried once, kept, and used only where it is faster and nearly as exact."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from units.onnx_models import FLOAT, ROWS, WEIGHTS, ask, linear, loaded, node, onnx, save, value

from glowplug.wire import Tensor

from glowplug_onnx import int8  # isort: skip
from glowplug_onnx.int8 import Outcome, cache_folder, decide, difference, faster_model  # isort: skip

WIDTH = 64


def layers(path: Path) -> Path:
    """Two dense layers with a ReLU between, [n, 64] to [n, 64]."""
    random = np.random.default_rng(4)
    first, second = (random.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 8 for _ in range(2))
    return save(
        path,
        [
            node("MatMul", ["x", "first"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("MatMul", ["b", "second"], ["y"]),
        ],
        [value("x", FLOAT, ["n", WIDTH])],
        [value("y", FLOAT, ["n", WIDTH])],
        ("first", first),
        ("second", second),
    )


def test_the_decision() -> None:
    assert decide(0.01, 0.1, 0.025) == Outcome(
        True, "int8 takes 25.00 ms a row, fp32 100.00, and differs by 1.00%"
    )
    assert decide(0.01, 0.1, 0.3).is_used is False
    assert decide(0.01, 0.1, 0.09).is_used is False
    assert "more than 5%" in decide(0.06, 0.1, 0.025).reason
    assert not decide(float("inf"), 0.1, 0.025).is_used


def test_the_difference() -> None:
    ones = np.ones((2, 3), np.float32)
    assert difference([ones], [ones]) == 0
    assert difference([ones, ones * 100], [ones * 1.02, ones * 100]) == pytest.approx(0.02, rel=1e-3)
    for other in (ones[:1], ones * np.nan):
        assert difference([ones], [other]) == float("inf")
    assert difference([ones * 0], [ones]) == float("inf")
    assert difference([np.array([1])], [np.array([2])]) == float("inf")
    assert difference([np.array(["a"], object)], [np.array(["a"], object)]) == 0


def test_the_outcome_is_kept_and_a_changed_model_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = tmp_path / "cache", layers(tmp_path)
    folder.mkdir()
    shares: list[float] = []

    def forced(share: float, *_: float) -> Outcome:
        shares.append(share)
        return Outcome(True, "tried")

    monkeypatch.setattr(int8, "decide", forced)
    small, reason = faster_model(path, folder, 1)
    assert (small.parent, reason) == (folder, "tried")
    assert small.stat().st_size < path.stat().st_size / 2
    assert "MatMulInteger" in {each.op_type for each in onnx.load(str(small)).graph.node}
    assert faster_model(path, folder, 1)[0] == small
    # 8 bits a weight: some hundredths of the output, and not nothing.
    assert len(shares) == 1
    assert 1e-4 < shares[0] < 0.05
    assert not list(folder.glob("*.part"))
    linear(path)
    other, _ = faster_model(path, folder, 1)
    assert other != small
    assert len(shares) == 2
    other.with_suffix(".json").write_text("{")
    faster_model(path, folder, 1)
    assert len(shares) == 3


def test_what_loses_is_served_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = layers(tmp_path)
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(int8, "decide", lambda *_: Outcome(False, "fp32: slower"))
    assert faster_model(path, folder, 1) == (path, "fp32: slower")
    assert [entry.suffix for entry in folder.iterdir()] == [".json"]


def test_models_and_machines_that_cannot_be_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    folder = tmp_path / "cache"
    folder.mkdir()
    path.write_bytes(b"nothing")
    assert "int8 cannot be made of it" in faster_model(path, folder, 1)[1]
    layers(path)
    # None there makes `import` fail.
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert faster_model(path, folder, 2) == (path, faster_model(path, folder, 2)[1])
    assert "int8 needs the package onnx" in faster_model(path, folder, 2)[1]


def test_the_folder(tmp_path: Path) -> None:
    found = cache_folder(None, {"XDG_CACHE_HOME": str(tmp_path)})
    assert found == tmp_path / "glowplug" / "onnx-int8"
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert cache_folder(str(tmp_path / "x"), {}) == tmp_path / "x"
    (tmp_path / "file").touch()
    assert cache_folder(str(tmp_path / "file" / "x"), {}).name.startswith("glowplug-onnx-int8-")


async def test_the_model_serves_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = linear(tmp_path)
    expected = ROWS @ WEIGHTS
    monkeypatch.setattr(int8, "decide", lambda *_: Outcome(True, "tried"))
    model = loaded(path, int8_folder=cache_folder(str(tmp_path / "cache"), {}))
    found: Any = (await model.predict(ask(Tensor.from_numpy("x", ROWS)))).output("y").data
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
