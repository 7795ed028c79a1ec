"""Sources are found, versions appear whole, servers are found, and their command lines are right."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from glowplug.errors import ConfigError, StorageError
from glowplug.triton import repository
from glowplug.triton.build import build
from glowplug.triton.control import Address
from glowplug.triton.home import Installed, Triton, find_perf_analyzer, find_triton, read_marker, write_marker
from glowplug.triton.install import find_python
from glowplug.triton.options import BuildOptions
from glowplug.triton.server import ServerConfig, command, environment, perf_environment
from glowplug.triton.signature import TensorShape
from glowplug.triton.sources import Kind, find_source

SHAPES = {"inputs": (TensorShape("a", "FP32", (1,)),), "outputs": (TensorShape("b", "FP32", (1,)),)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.py").write_text("class TritonPythonModel: pass\n")
    (folder / "sub" / "more.py").write_text("")
    (folder / "__pycache__").mkdir()
    return folder


def test_versions_follow_each_other_and_are_whole(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "repository"
    for number in (1, 2):
        report = build(model, out, BuildOptions("m", **SHAPES))
        assert (report.built.version, report.kind, report.backend) == (number, Kind.python, "python")
    assert build(model, out, BuildOptions("m", **SHAPES), version=7).built.version == 7
    assert build(model, out, BuildOptions("m", **SHAPES)).built.version == 8
    assert repository.versions(out / "m") == (1, 2, 7, 8)
    assert repository.models(out) == ("m",)
    assert sorted(os.listdir(out)) == ["m"], "a server would take anything else for a model"
    assert not [name for name in os.listdir(out / "m") if name.startswith(".")]
    assert (out / "m" / "2" / "sub" / "more.py").exists()
    # Python cannot make its folder of bytecode here, which would be a change to a server that polls.
    assert (out / "m" / "1" / "__pycache__").is_file() and (out / "m" / "1" / "sub" / "__pycache__").is_file()
    assert oct((out / "m" / "1").stat().st_mode & 0o777) == "0o755"
    with pytest.raises(StorageError, match="has a version 7 already"):
        build(model, out, BuildOptions("m", **SHAPES), version=7)


def test_builds_at_the_same_time_get_numbers_of_their_own(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    build(model, out, BuildOptions("m", **SHAPES))
    threads = [
        threading.Thread(target=build, args=(model, out, BuildOptions("m", **SHAPES))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert repository.versions(out / "m") == tuple(range(1, 8))


def test_nothing_is_left_where_something_is_wrong(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    with pytest.raises(ConfigError) as caught:
        build(model, out, BuildOptions("a/b", "fil", instances=-1), version=0, said=("--x: wrong",))
    for said in ("--x: wrong", "--backend fil", "'a/b'", "instances -1", "--input is needed", "--output is needed",
                 "--version 0"):  # fmt: skip
        assert said in caught.value.message
    torch = tmp_path / "net.pt"
    torch.write_bytes(b"x")
    with pytest.raises(ConfigError, match="INPUT__0:FP32"):
        build(torch, out, BuildOptions("m"))
    (tmp_path / "broken.ubj").write_bytes(b"\x7bcut")
    with pytest.raises(StorageError, match="no whole JSON or UBJSON model"):
        build(tmp_path / "broken.ubj", out, BuildOptions("m"))
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_torchscript_and_a_model_that_completes_itself(model: Path, tmp_path: Path) -> None:
    torch, out = tmp_path / "net.pt", tmp_path / "repository"
    torch.write_bytes(b"x")
    report = build(torch, out, BuildOptions("net", **SHAPES))
    assert report.backend == "pytorch" and (out / "net" / "1" / "model.pt").exists()
    (model / "model.py").write_text(
        "class TritonPythonModel:\n    @staticmethod\n    def auto_complete_config(c): ..."
    )
    build(model, out, BuildOptions("auto"))
    assert "input" not in (repository.read_config(out / "auto") or {})


def test_sources(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        find_source(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"holds no model, expected model\.py"):
        find_source(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.pth").touch()
    with pytest.raises(StorageError) as caught:
        find_source(tmp_path)
    assert "torch.jit.script" in caught.value.hint
    # What MLflow writes for a registered XGBoost model.
    for name in ("MLmodel", "conda.yaml", "input_example.json", "model.ubj"):
        (tmp_path / name).touch()
    assert find_source(tmp_path).file.name == "model.ubj"
    (tmp_path / "a.onnx").touch()
    with pytest.raises(StorageError, match=r"holds 2 models: a\.onnx, model\.ubj"):
        find_source(tmp_path)
    assert find_source(tmp_path / "a.onnx").kind is Kind.onnx
    with pytest.raises(StorageError, match="is no model that Triton takes here"):
        find_source(tmp_path / "MLmodel")


def test_which_triton_is_found(tmp_path: Path) -> None:
    home, bin_dir = tmp_path / "home", tmp_path / "bin"
    for folder in (home, bin_dir):
        folder.mkdir()
    env = {"GLOWPLUG_TRITON_HOME": str(home), "PATH": str(bin_dir)}
    for find in (find_triton, find_perf_analyzer):
        with pytest.raises(ConfigError) as caught:
            find(env)
        assert "glowplug triton install" in caught.value.hint
    for name in ("tritonserver", "perf_analyzer", "own"):
        (bin_dir / name).touch(mode=0o755)
    assert find_triton(env) == Triton(
        str(bin_dir / "tritonserver"), perf_analyzer=str(bin_dir / "perf_analyzer")
    )
    own = Triton(str(bin_dir / "own"), "/backends", ("/lib",), "/venv/bin")
    write_marker(home, Installed(own, ("numpy<2",), "3.11"))
    assert find_triton(env) == own, "a folder that is named comes first"
    (bin_dir / "own").unlink()
    assert read_marker(home) is None, "what is gone is not installed"


def test_the_servers_command_and_environment() -> None:
    triton = Triton("/t", "/backends", ("/lib", "/python/lib"), "/venv/bin", perf_libraries=("/links",))
    words = command(triton, ServerConfig("/r", "127.0.0.1", 1, 2, 3, extra=("--log-verbose=1",)))
    assert words[0] == "/t" and words[-1] == "--log-verbose=1"
    for word in ("--model-repository=/r", "--http-port=1", "--grpc-port=2", "--metrics-port=3",
                 "--model-control-mode=poll", "--repository-poll-secs=5", "--backend-directory=/backends",
                 "--strict-readiness=false"):  # fmt: skip
        assert word in words
    explicit = command(Triton("/t"), ServerConfig("/r", mode="explicit", models=("m",), is_completed=False))
    assert "--load-model=m" in explicit and "--disable-auto-complete-config" in explicit
    assert not [word for word in explicit if "poll" in word or "backend-directory" in word]
    env = {
        "PATH": "/bin",
        "PYTHONPATH": "/x",
        "VIRTUAL_ENV": "/y",
        "LD_LIBRARY_PATH": "/z",
        "http_proxy": "p",
    }
    assert environment(triton, env) == {
        "PATH": "/venv/bin:/bin", "LD_LIBRARY_PATH": "/lib:/python/lib:/z", "http_proxy": "p",
    }  # fmt: skip
    assert environment(Triton("/t"), env) == env
    assert "http_proxy" not in perf_environment(triton, env)
    assert perf_environment(triton, env)["LD_LIBRARY_PATH"] == "/links:/z"


def test_addresses() -> None:
    assert Address.parse("127.0.0.1:8001") == Address("127.0.0.1:8001")
    assert Address.parse("http://h:80/serving/default/m/") == Address("h:80", "/serving/default/m")


def test_a_python_is_found() -> None:
    python = find_python()
    assert (Path(python.library) / f"libpython{python.version}.so.1.0").exists()
