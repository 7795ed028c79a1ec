"""Finds the one model file of a folder; what is wrong is said with what is there."""

from __future__ import annotations

from pathlib import Path

from glowplug.errors import StorageError

SUFFIX = ".onnx"
MAX_LISTED = 10


def find_model(model_dir: str) -> Path:
    """The one .onnx file in a folder, or the file itself. Raises StorageError: none, several, unreadable, empty.

    Other files are let be: a model may keep its weights in them.
    """
    place = Path(model_dir)
    path = place if place.is_file() else place / _only_model(place)
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if is_empty:
        raise StorageError(f"{path} is empty", hint="copy it again")
    return path


def _only_model(place: Path) -> str:
    try:
        names = sorted(entry.name for entry in place.iterdir() if entry.is_file())
    except FileNotFoundError as error:
        raise StorageError(
            f"the model folder {place} does not exist",
            hint="--model_dir names the folder with the model file",
        ) from error
    except OSError as error:
        raise StorageError(f"the model folder {place} cannot be read: {error.strerror}") from error
    # A leading dot: what macOS leaves beside each file that it copies.
    models = [name for name in names if name.endswith(SUFFIX) and not name.startswith(".")]
    if len(models) == 1:
        return models[0]
    if models:
        raise StorageError(
            f"{place} holds {len(models)} model files: {_listed(models)}; expected exactly one",
            hint="point storageUri at a folder of one model",
        )
    raise StorageError(
        f"{place} holds no model file ({SUFFIX}); it holds {_listed(names)}",
        hint="export the model to ONNX, for example with torch.onnx.export(model, inputs, 'model.onnx')",
    )


def _listed(names: list[str]) -> str:
    if not names:
        return "nothing"
    rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + rest
