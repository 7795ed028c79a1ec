"""A model repository on disk: REPO/NAME/config.pbtxt and REPO/NAME/1, 2, …

A server may be reading it meanwhile, so a version appears whole or not at all, by one rename. A new model's draft lies
beside the repository, never in it: Triton takes every folder there for a model, whatever its name, and is not ready
while one of them cannot be loaded. Inside a model's folder it looks at numbers only.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from glowplug.errors import StorageError
from glowplug.triton.pbtxt import Message, parse, without_empty, write

CONFIG = "config.pbtxt"
_TRIES = 20


@dataclass(frozen=True)
class Built:
    """A version that is in place."""

    folder: Path
    version: int

    @property
    def config(self) -> Path:
        return self.folder / CONFIG


def versions(model: Path) -> tuple[int, ...]:
    """The versions of a model, ascending; Triton skips names with leading zeros as well."""
    if not model.is_dir():
        return ()
    names = (path.name for path in model.iterdir() if path.is_dir())
    return tuple(sorted(int(name) for name in names if name.isdecimal() and name[0] != "0"))


def is_model(folder: Path) -> bool:
    """Whether a folder is one model of a repository: it has a configuration, or versions."""
    return (folder / CONFIG).is_file() or bool(versions(folder))


def models(repository: Path) -> tuple[str, ...]:
    """The names of the models in a repository."""
    if not repository.is_dir():
        return ()
    return tuple(sorted(path.name for path in repository.iterdir() if path.is_dir() and is_model(path)))


def read_config(model: Path) -> Message | None:
    """The configuration of a model, or None where it has none. Raises ConfigError for one that is no pbtxt."""
    path = model / CONFIG
    return parse(path.read_text("utf-8"), str(path)) if path.is_file() else None


def write_config(model: Path, message: Message) -> None:
    """Replace the configuration at once. What is written is read back first, so that it says what was meant."""
    text = write(message)
    if parse(text, CONFIG) != without_empty(message):
        raise StorageError(f"{model / CONFIG}: the text does not say what was meant; nothing was written")
    draft = model / f".{CONFIG}.draft"
    draft.write_text(text, "utf-8")
    os.replace(draft, model / CONFIG)


@contextmanager
def draft(repository: Path, name: str) -> Iterator[Path]:
    """A folder for the files of a version, on the repository's file system; gone afterwards."""
    model = repository / name
    parent = model if model.is_dir() else repository.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    try:
        made = tempfile.mkdtemp(dir=parent, prefix=f".{name}-draft-")
    except OSError as error:
        raise StorageError(
            f"{parent} cannot be written: {error.strerror}",
            hint="a new version is made beside its place, then moved there",
        ) from error
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def publish(repository: Path, name: str, files: Path, message: Message, version: int | None) -> Built:
    """Move a draft into its place as the next version (or as `version`), and write the configuration.

    Raises StorageError where the version exists, or the move fails.
    """
    model = repository / name
    files.chmod(0o755)  # a temporary folder is its owner's only; a server may be somebody else
    try:
        if model.is_dir():
            built = _add(model, files, version)
            if read_config(model) != without_empty(message):
                write_config(model, message)
            return built
        whole = files.parent / f"{files.name}-model"
        whole.mkdir(mode=0o755)
        try:
            number = version or 1
            os.rename(files, whole / str(number))
            write_config(whole, message)
            repository.mkdir(parents=True, exist_ok=True)
            os.rename(whole, model)
        finally:
            shutil.rmtree(whole, ignore_errors=True)
        return Built(model, number)
    except OSError as error:
        hint = "choose --out on the file system of its parent folder" if error.errno == errno.EXDEV else ""
        raise StorageError(f"{model}: cannot be written: {error.strerror}", hint=hint) from error


def _add(model: Path, files: Path, version: int | None) -> Built:
    """The next free number; another build may take it in between, then the one after it."""
    for _ in range(_TRIES):
        number = version or max(versions(model), default=0) + 1
        try:
            os.rename(files, model / str(number))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if version is not None:
                raise StorageError(
                    f"{model} has a version {version} already", hint="leave --version out for the next number"
                ) from error
            continue
        return Built(model, number)
    raise StorageError(f"{model}: other builds took each of {_TRIES} numbers first")
