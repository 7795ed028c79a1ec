"""Finds the one model file of a folder; what is wrong is said with what is there."""

from __future__ import annotations

from pathlib import Path

from glowplug.errors import StorageError
from glowplug.serving.model_file import find_model_file

SUFFIX = ".onnx"


def find_model(model_dir: str) -> Path:
    """The one .onnx file in a folder, or the file itself. Raises StorageError: none, several, unreadable, empty.

    Other files are let be: a model may keep its weights in them.
    """
    hint = "export the model to ONNX, for example with torch.onnx.export(model, inputs, 'model.onnx')"
    path = find_model_file(Path(model_dir), _is_model, suffixes=SUFFIX, hint=hint)
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if is_empty:
        raise StorageError(f"{path} is empty", hint="copy it again")
    return path


def _is_model(name: str) -> bool:
    # A leading dot: what macOS leaves beside each file that it copies.
    return name.endswith(SUFFIX) and not name.startswith(".")
