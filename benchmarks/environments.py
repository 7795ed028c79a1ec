"""The peers' own virtual environments, made once below ~/.cache/glowplug-peers and kept.

Each peer wants other versions than the next one. What is installed is pinned here, and an environment is made anew when
its line has changed. What cannot be had raises `Absent` with the reason, and the benchmark goes on without it.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

ROOT = pathlib.Path(os.environ.get("GLOWPLUG_PEERS", pathlib.Path.home() / ".cache" / "glowplug-peers"))
MODELS = ROOT / "models"
# The scripts that run in these environments.
PEERS = pathlib.Path(__file__).parent / "peers"
_PYTHON = "3.11"
_STAMP = "glowplug-peer.json"
_LIMIT_S = 1200
_XGBOOST = "xgboost-cpu==3.2.0"
_NUMPY = "numpy==2.4.6"


class Absent(Exception):
    """What could not be run, and why, in a line."""


@dataclass(frozen=True)
class Environment:
    """Packages of one environment; `bare` are installed without what they ask for."""

    name: str
    packages: tuple[str, ...]
    bare: tuple[str, ...] = ()

    @property
    def folder(self) -> pathlib.Path:
        return ROOT / self.name

    @property
    def python(self) -> pathlib.Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> pathlib.Path:
        return self.folder / "lib" / f"python{_PYTHON}" / "site-packages"

    def ensure(self) -> Environment:
        """Make it, if it is not there as written here. Raises `Absent`."""
        wanted = json.dumps([self.packages, self.bare])
        stamp = self.folder / _STAMP
        if stamp.exists() and stamp.read_text() == wanted:
            return self
        uv = shutil.which("uv")
        if uv is None:
            raise Absent("uv is not on PATH, which makes the peers' environments")
        _run([uv, "venv", "--quiet", "--clear", "--python", _PYTHON, str(self.folder)])
        install = [uv, "pip", "install", "--quiet", "--python", str(self.python)]
        _run([*install, *self.packages])
        if self.bare:
            _run([*install, "--no-deps", *self.bare])
        stamp.write_text(wanted)
        return self


KSERVE = Environment("kserve", ("kserve==0.21.0", _XGBOOST, _NUMPY, "redis==8.1.0", "hiredis==3.5.0"))
# Its runtime asks for the package xgboost, which brings 469 MB of GPU libraries; xgboost-cpu is the same code.
# With uvloop 0.22 and newer its workers die at their start.
MLSERVER = Environment(
    "mlserver",
    ("mlserver==1.7.1", "uvloop==0.21.0", _XGBOOST, _NUMPY, "scikit-learn==1.9.1"),
    ("mlserver-xgboost==1.7.1",),
)
BENTOML = Environment("bentoml", ("bentoml==1.4.39", _XGBOOST, _NUMPY))
LITSERVE = Environment("litserve", ("litserve==0.2.19", _XGBOOST, _NUMPY))
FLASK = Environment("flask", ("flask==3.1.3", "gunicorn==27.0.1", _XGBOOST, _NUMPY))
ASGI = Environment(
    "asgi",
    ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "fastapi==0.165.0", "orjson==3.13.0", _XGBOOST, _NUMPY),
)  # fmt: skip
# numpy 2 fails in its Python backend; its own dependencies are those of a client that is not used.
TRITON = Environment(
    "triton", ("numpy==1.26.4", _XGBOOST, "onnxruntime==1.31.1"), ("nvidia-pytriton==0.7.0",)
)
TORCH = Environment(
    "torch",
    (
        "torch==2.15.0", "transformers==5.23.0", "kserve==0.21.0", "flask==3.1.3", "gunicorn==27.0.1",
        "onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.31.1", _NUMPY,
    ),
)  # fmt: skip


def versions(*environments: Environment) -> str:
    """What is compared, for the page: `kserve 0.21.0, …`."""
    # Triton's own package is installed bare; every other environment is named by its first.
    named = [(*each.packages, *each.bare)[-1 if each is TRITON else 0] for each in environments]
    return ", ".join(name.replace("==", " ") for name in named)


def nginx() -> str:
    """The binary: of the PATH, or unpacked (not installed) from Debian's package. Raises `Absent`."""
    if found := shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        return found
    folder = ROOT / "nginx"
    binary = folder / "usr" / "sbin" / "nginx"
    if not binary.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise Absent("nginx is neither installed nor to be had from apt")
        folder.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", "nginx"], folder)
        for package in folder.glob("nginx_*.deb"):
            _run(["dpkg", "-x", str(package), str(folder)])
    return str(binary)


def tool(name: str) -> str:
    """A program on the PATH. Raises `Absent`."""
    found = shutil.which(name)
    if found is None:
        raise Absent(f"{name} is not on PATH (Debian: apt-get install nghttp2-client wrk)")
    return found


def deep_models() -> pathlib.Path:
    """The folder with `resnet50` and `bert-base`, exported once. Raises `Absent`."""
    if not all((MODELS / name / "rows.npz").exists() for name in ("resnet50", "bert-base")):
        _run(
            [str(TORCH.ensure().python), str(PEERS / "export_models.py"), str(MODELS)],
            environment={**os.environ, "PYTHONPATH": str(PEERS)},
        )
    return MODELS


def _run(
    command: list[str], folder: pathlib.Path | None = None, environment: Mapping[str, str] | None = None
) -> None:
    try:
        subprocess.run(
            command, cwd=folder, env=environment, check=True, timeout=_LIMIT_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        last = (error.output or "").strip().splitlines()[-1:]
        raise Absent(f"{' '.join(command[:4])} … failed: {' '.join(last)[:300]}") from error
    except (subprocess.TimeoutExpired, OSError) as error:
        raise Absent(f"{' '.join(command[:4])} … failed: {error}") from error
