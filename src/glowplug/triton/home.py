"""Where a tritonserver is on this computer: on PATH, as in Triton's own image, or in the folder that `install` made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glowplug.errors import ConfigError

HOME_VARIABLE = "GLOWPLUG_TRITON_HOME"
DEFAULT_HOME = "~/.cache/glowplug/triton"
# Where Triton's images have it, not on PATH in all of them.
IMAGE_BINARY = Path("/opt/tritonserver/bin/tritonserver")
IMAGE_BACKENDS = Path("/opt/tritonserver/backends")
MARKER = "installed.json"


@dataclass(frozen=True)
class Triton:
    """A server that can be started. Empty fields: it needs nothing beside its own image.

    `libraries` are folders for LD_LIBRARY_PATH; `python_bin` is the folder of the interpreter whose packages the
    Python backend uses: it finds them through the first python3 on PATH.
    """

    server: str
    backends: str = ""
    libraries: tuple[str, ...] = ()
    python_bin: str = ""
    perf_analyzer: str = ""
    perf_libraries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Installed:
    """What `install` put into its folder; the marker is written last."""

    triton: Triton
    packages: tuple[str, ...]
    python: str


def backends_of(triton: Triton) -> frozenset[str]:
    """The names of the backends that a Triton has."""
    folder = Path(triton.backends) if triton.backends else IMAGE_BACKENDS
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def home_of(env: Mapping[str, str]) -> Path:
    """The folder for an installed Triton."""
    return Path(env.get(HOME_VARIABLE) or DEFAULT_HOME).expanduser()


def read_marker(home: Path) -> Installed | None:
    """What is installed in `home`, or None. A folder that was moved is not installed: it holds absolute paths."""
    try:
        found = json.loads((home / MARKER).read_text("utf-8"))
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in found["triton"].items()
        }
        installed = Installed(Triton(**fields), tuple(found["packages"]), found["python"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return installed if os.access(installed.triton.server, os.X_OK) else None


def write_marker(home: Path, installed: Installed) -> None:
    """Say that `home` is whole."""
    draft = home / f".{MARKER}"
    draft.write_text(json.dumps(asdict(installed), indent=2) + "\n", "utf-8")
    os.replace(draft, home / MARKER)


def find_triton(env: Mapping[str, str]) -> Triton:
    """The folder that $GLOWPLUG_TRITON_HOME names, else a tritonserver on PATH or of Triton's image, else the default
    folder. Raises ConfigError that says how to get one.
    """
    home = home_of(env)
    installed = read_marker(home)
    if installed is not None and env.get(HOME_VARIABLE):
        return installed.triton
    server = _on_path("tritonserver", env) or (
        str(IMAGE_BINARY) if os.access(IMAGE_BINARY, os.X_OK) else None
    )
    if server is not None:
        return Triton(server, perf_analyzer=_on_path("perf_analyzer", env) or "")
    if installed is not None:
        return installed.triton
    raise ConfigError(
        f"no tritonserver: neither on PATH nor in {home}",
        hint="`glowplug triton install` puts one there (Linux x86_64, CPU, Python backend)",
    )


def find_perf_analyzer(env: Mapping[str, str]) -> Triton:
    """Like `find_triton`, for something that has a perf_analyzer. Raises ConfigError that says how to get one."""
    found = _on_path("perf_analyzer", env)
    if found is not None:
        return Triton("", perf_analyzer=found)
    installed = read_marker(home_of(env))
    if installed is not None and os.access(installed.triton.perf_analyzer, os.X_OK):
        return installed.triton
    raise ConfigError(
        "no perf_analyzer, which measures the settings",
        hint="`glowplug triton install` brings it along; its binary is in the wheel of tritonclient 2.46.0 "
        "(the package perf-analyzer 0.1.0 is empty), and wants Debian's libb64-0d and CUDA's libcudart.so.12",
    )


def _on_path(name: str, env: Mapping[str, str]) -> str | None:
    return shutil.which(name, path=env.get("PATH", os.defpath))
