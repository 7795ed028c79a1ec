"""Finds the one model file of a folder; what is wrong is said with what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from glowplug.errors import StorageError

MAX_LISTED = 10


def find_model_file(place: Path, is_model: Callable[[str], bool], *, suffixes: str, hint: str) -> Path:
    """The one file in the folder `place` whose name `is_model`, or `place` itself where it is a file.

    `suffixes` and `hint` are for the message where there is none. Raises StorageError: none, several, unreadable.
    """
    if place.is_file():
        return place
    try:
        entries = sorted(place.iterdir())
        names = [entry.name for entry in entries if entry.is_file()]
        folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except FileNotFoundError as error:
        raise StorageError(
            f"the model folder {place} does not exist",
            hint="--model_dir names the folder with the model file",
        ) from error
    except OSError as error:
        raise StorageError(f"the model folder {place} cannot be read: {error.strerror}") from error
    models = [name for name in names if is_model(name)]
    if len(models) == 1:
        return place / models[0]
    if models:
        raise StorageError(
            f"{place} holds {len(models)} model files: {_listed(models)}; expected exactly one",
            hint="point storageUri at a folder of one model",
        )
    there = _listed(names)
    if folders and not names:
        there, hint = f"the folders {_listed(folders)}", "storageUri names one model's folder"
    raise StorageError(f"{place} holds no model file ({suffixes}); it holds {there}", hint=hint)


def _listed(names: list[str]) -> str:
    if not names:
        return "nothing"
    rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + rest
