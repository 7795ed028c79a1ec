"""Which files the ONNX predictor serves, and what it says of the others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from units.onnx_models import (
    FLOAT,
    ROWS,
    UNIT,
    WEIGHTS,
    OnnxModel,
    TensorProto,
    ask,
    echo,
    linear,
    loaded,
    node,
    onnx,
    save,
    value,
)  # fmt: skip

from glowplug.errors import GlowplugError, StorageError
from glowplug.wire import Tensor


def refused(place: Path) -> GlowplugError:
    with pytest.raises(StorageError) as caught:
        OnnxModel("m", str(place)).load()
    assert "\n" not in caught.value.message
    assert ".cc" not in caught.value.message
    return caught.value


def test_folders_that_are_not_one_model(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere").message
    assert "holds no model file (.onnx); it holds nothing" in refused(tmp_path).message
    for name in ("reg", "clf", ".git"):
        (tmp_path / name).mkdir()
    assert "it holds the folders clf, reg" in refused(tmp_path).message
    assert refused(tmp_path).hint == "storageUri names one model's folder"
    (tmp_path / "model.pt").write_bytes(b"x")
    assert "it holds model.pt" in refused(tmp_path).message
    (tmp_path / "a.onnx").touch()
    assert "is empty" in refused(tmp_path).message
    linear(tmp_path / "b.onnx")
    assert "holds 2 model files: a.onnx, b.onnx; expected exactly one" in refused(tmp_path).message
    (tmp_path / "a.onnx").rename(tmp_path / "._b.onnx")
    loaded(tmp_path)
    loaded(tmp_path / "b.onnx")


def test_files_that_are_no_model_for_this_onnxruntime(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is no ONNX model, or is cut off (43 bytes)" in refused(tmp_path).message
    whole = linear(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is no ONNX model, or is cut off" in refused(tmp_path).message
    linear(path, opset=99)
    found = refused(tmp_path)
    assert re.search(r"needs opset 99 of ai\.onnx; onnxruntime \S+ knows opsets up to \d+$", found.message)
    assert "older opset_version" in found.hint
    linear(path, ir=99)
    assert "needs IR version 99" in refused(tmp_path).message
    save(path, [node("Bogus", ["x"], ["y"])], [value("x", FLOAT, [1])], [value("y", FLOAT, [1])])
    found = refused(tmp_path)
    assert "Bogus" in found.message
    assert "lacks an operator" in found.hint
    echo(path, TensorProto.BFLOAT16, [1])
    assert "the input 'x' is tensor(bfloat16), which is not served" in refused(tmp_path).message


def test_damaged_files_load_or_are_refused_and_no_crash(tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    code = """
import random, sys
from pathlib import Path
from glowplug.errors import StorageError
from glowplug_onnx.model import OnnxModel
path, refused = Path(sys.argv[1]), 0
whole = path.read_bytes()
chance = random.Random(5)
for turn in range(200):
    data = bytearray(whole)
    if turn < 20:
        del data[len(data) * turn // 20:]
    else:
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)
    try:
        OnnxModel("m", str(path)).load()
    except StorageError as error:
        assert len(error.message.splitlines()) == 1, error.message
        refused += 1
print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.onnx")],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    # A file that ends between two fields is a whole one without the rest.
    assert 100 < int(done.stdout) < 200, done.stdout


async def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    made = onnx.load(str(linear(path)))
    onnx.save(made, str(path), save_as_external_data=True, location="model.data", size_threshold=0)
    found = (await loaded(tmp_path).predict(ask(Tensor.from_numpy("x", ROWS)))).output("y")
    np.testing.assert_allclose(found.data, ROWS @ WEIGHTS, rtol=1e-5, atol=1e-6)
    (tmp_path / "model.data").unlink()
    assert "copy them beside it" in refused(tmp_path).hint


def test_weights_from_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    made = onnx.load(str(linear(path)))
    onnx.save(made, str(path), save_as_external_data=True, location="model.data", size_threshold=0)
    (folder / "model.data").rename(tmp_path / "model.data")
    for outside in ("../model.data", str(tmp_path / "model.data")):
        made = onnx.load(str(path), load_external_data=False)
        made.graph.initializer[0].external_data[0].value = outside
        path.write_bytes(made.SerializeToString())
        assert refused(folder).message
