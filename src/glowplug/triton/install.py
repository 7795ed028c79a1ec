"""Puts a real Triton into a folder: the server of nvidia-pytriton's wheel, its Python backend, and perf_analyzer.

What the wheel needs, and where it is done here: a virtual environment with numpy below 2, or every inference fails
(`_PACKAGES`); the stub of that Python beside libtriton_python.so, in a copy of the backends (`_lay_out_backends`); its
own libraries on LD_LIBRARY_PATH, and a shared libpython (`_Python.library`). perf_analyzer looks for two libraries by
their plain names, which the wheel has under mangled ones (`_link_perf_libraries`).
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from glowplug.errors import ConfigError, GlowplugError
from glowplug.triton.home import Installed, Triton, read_marker, write_marker
from glowplug.triton.refusals import refuse_blanks

_WHEELS = ("nvidia-pytriton==0.7.0", "tritonclient==2.46.0")  # without their dependencies
_PACKAGES = ("numpy<2", "onnxruntime", "xgboost-cpu")
# The wheel has stubs for 3.8 to 3.13; numpy below 2 has none for 3.13.
_PYTHONS = ((3, 12), (3, 11), (3, 10))
_PERF_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12.*"}
_TIMEOUT_S = 900.0
_LAST_LINES = 15

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Python:
    """An interpreter with a shared libpython in the folder `library`."""

    program: str
    version: str
    library: str


def unsupported() -> str:
    """Why it cannot be installed on this computer, or nothing."""
    if platform.system() == "Linux" and platform.machine() in ("x86_64", "AMD64"):
        return ""
    return f"Triton's wheels are for Linux on x86_64, this is {platform.system()} on {platform.machine()}"


def install(home: Path, packages: Sequence[str] = (), say: Say = lambda text: None) -> Installed:
    """Install into `home`, or add `packages` to what is there; does nothing where all is there.

    Safe to call from several processes at once. Raises ConfigError where this computer lacks something, GlowplugError
    with the last lines of a command that failed.
    """
    if why := unsupported():
        raise ConfigError(why, hint="on a cluster the unit's image has a Triton")
    refuse_blanks(Path(os.path.abspath(home)), "$GLOWPLUG_TRITON_HOME names another")
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        found = read_marker(home)
        wanted = tuple(dict.fromkeys([*(found.packages if found else _PACKAGES), *packages]))
        if found is not None and found.packages == wanted:
            return found
        made = _install(home.resolve(), wanted, found, say)
        write_marker(home, made)
        return made


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(home: Path, packages: tuple[str, ...], found: Installed | None, say: Say) -> Installed:
    venv = home / "venv"
    if found is not None:
        say(f"adding {', '.join(each for each in packages if each not in found.packages)}")
        _pip(venv, *packages)
        return Installed(found.triton, packages, found.python)
    python = find_python()
    say(f"a virtual environment of Python {python.version}")
    shutil.rmtree(venv, ignore_errors=True)
    uv = _uv()
    _run(
        [uv, "venv", "-q", "--python", python.program, str(venv)]
        if uv
        else [python.program, "-m", "venv", str(venv)]
    )
    say(", ".join(_WHEELS))
    _pip(venv, "--no-deps", *_WHEELS)
    say(", ".join(packages))
    _pip(venv, *packages)
    site = next(venv.glob("lib/python3.*/site-packages"))
    libraries = site / "nvidia_pytriton.libs"
    server = site / "pytriton" / "tritonserver"
    triton = Triton(
        server=str(server / "bin" / "tritonserver"),
        backends=str(_lay_out_backends(home, server, python.version)),
        libraries=(str(libraries), python.library),
        python_bin=str(venv / "bin"),
        perf_analyzer=str(venv / "bin" / "perf_analyzer"),
        perf_libraries=(str(_link_perf_libraries(home, libraries)),),
    )
    for program in (triton.server, triton.perf_analyzer):
        Path(program).chmod(0o755)
    return Installed(triton, packages, python.version)


def _lay_out_backends(home: Path, server: Path, version: str) -> Path:
    backends = home / "backends"
    shutil.rmtree(backends, ignore_errors=True)
    shutil.copytree(server / "backends", backends)
    stub = backends / "python" / "triton_python_backend_stub"
    shutil.copyfile(server / "python_backend_stubs" / version / stub.name, stub)
    stub.chmod(0o755)
    return backends


def _link_perf_libraries(home: Path, libraries: Path) -> Path:
    folder = home / "lib"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, pattern in _PERF_LIBRARIES.items():
        for path in libraries.glob(pattern):
            (folder / name).symlink_to(path)
    return folder


def find_python() -> _Python:
    """An interpreter that the Python backend can embed: our own if it can be. Raises ConfigError."""
    own = sys.version_info[:2]
    versions = sorted(_PYTHONS, key=lambda version: version != own)
    for version in versions:
        name = f"python{version[0]}.{version[1]}"
        program = sys.executable if version == own else shutil.which(name)
        if program and (python := _inspect(program, version)):
            return python
    names = ", ".join(f"{major}.{minor}" for major, minor in _PYTHONS)
    raise ConfigError(
        f"no Python {names} with a shared libpython on this computer; Triton's Python backend embeds one",
        hint="`apt-get install python3 libpython3-dev python3-venv`, or `uv python install 3.11`",
    )


_ASK = (
    "import json,sys,sysconfig as s;"
    "print(json.dumps([sys.version_info[:2],s.get_config_var('LDLIBRARY'),s.get_config_var('LIBDIR'),"
    "sys.base_prefix+'/lib',s.get_config_var('MULTIARCH')]))"
)


def _inspect(program: str, version: tuple[int, int]) -> _Python | None:
    try:
        ran = subprocess.run([program, "-c", _ASK], capture_output=True, text=True, timeout=30, check=True)
        answered, library, lib_dir, prefix, multiarch = json.loads(ran.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if tuple(answered) != version or not library or ".so" not in library:
        return None
    text = f"{version[0]}.{version[1]}"
    for folder in (lib_dir, prefix, f"{lib_dir}/{multiarch}", f"/usr/lib/{multiarch}"):
        if folder and (Path(folder) / f"libpython{text}.so.1.0").exists():
            return _Python(program, text, str(folder))
    return None


def _uv() -> str | None:
    own = Path(sys.executable).parent / "uv"
    return str(own) if own.exists() else shutil.which("uv")


def _pip(venv: Path, *arguments: str) -> None:
    python, uv = str(venv / "bin" / "python"), _uv()
    _run([uv, "pip", "install", "-q", "--python", python, *arguments] if uv else
         [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments])  # fmt: skip


def _run(words: Sequence[str]) -> None:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    try:
        ran = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, env=env, check=False)
    except subprocess.TimeoutExpired as error:
        raise GlowplugError(f"{' '.join(words)}: no end after {_TIMEOUT_S:.0f} s") from error
    if ran.returncode:
        lines = "\n".join((ran.stdout + ran.stderr).splitlines()[-_LAST_LINES:])
        raise GlowplugError(f"{' '.join(words)}: exit code {ran.returncode}\n{lines}")
