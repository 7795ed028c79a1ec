"""From the folder that KServe mounts to a repository that Triton takes.

It may be a repository already, one model of a repository (`config.pbtxt`, versions), or a plain folder with a model's
file. Nothing is written into it: the latter two get a repository of their own in `work`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from glowplug.errors import StorageError
from glowplug.triton import repository
from glowplug.triton.build import build
from glowplug.triton.options import BuildOptions
from glowplug.triton.refusals import refuse_blanks
from glowplug.triton.settings import first, is_complete
from glowplug.triton.sources import Kind, find_source

_FOLDER = ".triton-repository"


def needs_completion(folder: Path) -> bool:
    """Whether a configuration in a repository leaves something for Triton to ask the model."""
    return not all(is_complete(repository.read_config(folder / name)) for name in repository.models(folder))


def repository_of(
    model_dir: Path, model_name: str, *, backends: frozenset[str], has_gpu: bool
) -> tuple[Path, str]:
    """The repository, and what was made of the folder, for the log. Raises StorageError or ConfigError.

    `backends` are those that this Triton has.
    """
    if not model_dir.is_dir():
        raise StorageError(f"the model folder {model_dir} does not exist", hint="--model_dir names it")
    found = repository.models(model_dir)
    if found:
        return model_dir, f"a repository of {', '.join(found)}"
    work = work_folder(Path.cwd())
    if repository.is_model(model_dir):
        config = repository.read_config(model_dir) or {}
        # Triton wants a model's folder to have the name that its configuration says.
        name = str(first(config, "name") or model_name)
        (work / name).symlink_to(model_dir.resolve(), target_is_directory=True)
        return work, f"the model {name}"
    options = BuildOptions(
        model_name, backend=_backend(model_dir, backends), kind=None if has_gpu else "KIND_CPU"
    )
    report = build(model_dir, work, options)
    return work, f"{report.kind.value} as the model {model_name} on the backend {report.backend}"


def _backend(model_dir: Path, backends: frozenset[str]) -> str:
    """The model's own backend where this Triton has it, else Python's, which runs it on the CPU."""
    native = {Kind.onnx: "onnxruntime", Kind.xgboost: "fil"}.get(find_source(model_dir).kind)
    return "python" if native is not None and native not in backends else "auto"


def work_folder(cwd: Path) -> Path:
    """An empty folder for a repository: a pod's own folder goes with the pod, else a temporary one."""
    if os.access(cwd, os.W_OK):
        work = cwd / _FOLDER
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        return work
    return Path(tempfile.mkdtemp(prefix="glowplug-triton-"))


def without_blanks(repository: Path) -> Path:
    """The repository, or where its path has blanks a link to it until this process ends: Python's backend would hang.

    Raises ConfigError where the folder for temporary files has some as well.
    """
    if not any(character.isspace() for character in str(repository)):
        return repository
    place = Path(tempfile.gettempdir())
    refuse_blanks(place, f"a link to '{repository}' was to be put there; $TMPDIR names another")
    made = tempfile.mkdtemp(prefix="glowplug-triton-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    link = Path(made) / "repository"
    link.symlink_to(repository.resolve(), target_is_directory=True)
    return link
