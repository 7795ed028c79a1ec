"""From a model's file to a version in a repository: find it, copy it, read it, plan, publish."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from glowplug.errors import ConfigError, StorageError
from glowplug.triton import repository
from glowplug.triton.options import BuildOptions
from glowplug.triton.plan import AUTO_COMPLETE, Layout, layout, plan
from glowplug.triton.signature import Signature, read_onnx, read_xgboost
from glowplug.triton.sources import Kind, Source, find_source

_IGNORED = shutil.ignore_patterns("__pycache__", ".*", "MLmodel", "conda.yaml", "python_env.yaml")


# A file in the place of Python's folder of bytecode: written at a model's first import, that folder is a change of the
# model to a server that polls, which then loads it a second time. (The Python backend ignores the variables for this.)
_NO_BYTECODE = "__pycache__"
_WHY = "Keeps Python from writing bytecode here, which a polling Triton takes for a new model.\n"


@dataclass(frozen=True)
class Report:
    """What was built."""

    built: repository.Built
    kind: Kind
    backend: str
    notes: tuple[str, ...]


def build(
    place: Path,
    out: Path,
    options: BuildOptions,
    *,
    version: int | None = None,
    said: tuple[str, ...] = (),
) -> Report:
    """Add the model at `place` to the repository `out` as the next version of `options.name`.

    `said` are problems that were found before; all problems are raised together, as one ConfigError, and nothing is
    written then. Raises StorageError where files are missing or no models.
    """
    if any(character.isspace() for character in options.name):
        said = (*said, f"--name {options.name!r}: a model's name has no blanks")
    problems = list(said)
    source = find_source(place)
    chosen = layout(source.kind, source.file, options.backend)
    if isinstance(chosen, str):
        problems.append(chosen)
    # What can be said before the file is copied and read, whatever the backend.
    checked = Layout("python", "") if isinstance(chosen, str) else chosen
    problems += plan(checked, None, options, None).problems
    problems += _shape_problems(source, options)
    if version is not None and version < 1:
        problems.append(f"--version {version}: expected 1 or more")
    if isinstance(chosen, str) or problems:
        raise _refused(problems)
    existing = repository.read_config(out / options.name)
    with repository.draft(out, options.name) as files:
        _copy(source, chosen, files)
        planned = plan(chosen, _signature(source, files / chosen.file), options, existing)
        if planned.problems:
            raise _refused(list(planned.problems))
        built = repository.publish(out, options.name, files, planned.message, version)
    return Report(built, source.kind, chosen.backend, planned.notes)


def _refused(problems: list[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(problems[0])
    return ConfigError(f"{len(problems)} problems:\n" + "\n".join(f"    {problem}" for problem in problems))


def _shape_problems(source: Source, options: BuildOptions) -> list[str]:
    if source.kind is Kind.python and AUTO_COMPLETE in source.file.read_text("utf-8", "replace"):
        return []
    if source.kind not in (Kind.torchscript, Kind.python):
        return []
    missing = [
        flag for flag, given in (("--input", options.inputs), ("--output", options.outputs)) if not given
    ]
    example = "INPUT__0:FP32:3,224,224" if source.kind is Kind.torchscript else "x:FP32:4"
    return [
        f"{flag} is needed: a {source.kind.value} file does not say its shapes; for example {flag} {example}"
        for flag in missing
    ]


def _copy(source: Source, place: Layout, files: Path) -> None:
    try:
        if source.folder is not None:
            shutil.copytree(source.folder, files, dirs_exist_ok=True, ignore=_IGNORED)
            if source.file.name != place.file:
                (files / source.file.name).rename(files / place.file)
        else:
            shutil.copyfile(source.file, files / place.file)
    except (OSError, shutil.Error) as error:
        raise StorageError(f"{source.file}: cannot be copied: {error}") from error
    if place.template:
        (files / "model.py").write_text(template(place.template), "utf-8")
    for folder in {path.parent for path in files.rglob("*.py")}:
        (folder / _NO_BYTECODE).write_text(_WHY, "utf-8")


def template(name: str) -> str:
    """The text of a model.py that is shipped with this package."""
    return resources.files("glowplug.triton").joinpath("templates").joinpath(name).read_text("utf-8")


def _signature(source: Source, file: Path) -> Signature | None:
    """Read from the copy, so that files which it needs and which were not copied are found missing now."""
    if source.kind is Kind.onnx:
        return read_onnx(file)
    if source.kind is Kind.xgboost:
        return read_xgboost(file)
    return None
