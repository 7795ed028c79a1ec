"""Finds and reads the one model file of a folder; what is wrong is said with what is there."""

from __future__ import annotations

from pathlib import Path

from glowplug.errors import StorageError
from glowplug.serving.model_file import find_model_file

SUFFIXES = (".json", ".ubj", ".bst", ".xgb", ".model")
# Beside the model in what MLflow and our pipelines write, and no models.
NOT_MODELS = frozenset({"input_example.json", "profile.json", "serving_input_example.json"})
# XGBoost writes `version` last. A UBJSON file without it is not handed to XGBoost 3.2, which reads past the end of the
# memory of some cut-off files and takes the process with it.
TAIL_BYTES = 64


def read_model(model_dir: str) -> tuple[Path, bytes]:
    """The model file's path and content. Raises StorageError: none, several, unreadable, or the legacy format."""
    hint = "save the booster with booster.save_model('model.ubj')"
    path = find_model_file(Path(model_dir), _is_model, suffixes=", ".join(SUFFIXES), hint=hint)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if not content:
        raise StorageError(f"{path} is empty")
    # JSON and UBJSON both begin with an object; the legacy binary format begins with its parameters.
    if content[:1] != b"{":
        raise StorageError(
            f"{path} is neither a JSON nor a UBJSON model; XGBoost 3.1 dropped its older binary format",
            hint="load it with xgboost<3.1 and save it again: booster.save_model('model.ubj')",
        )
    if not is_json(content) and (b"version" not in content[-TAIL_BYTES:] or content[-1:] != b"}"):
        raise StorageError(f"{path} is cut off: {len(content)} bytes without the end", hint="copy it again")
    return path, content


def is_json(content: bytes) -> bool:
    """Whether a model is JSON rather than UBJSON, whose second byte is the type of a key's length."""
    return content[1:2] in b'"}\r\n\t '


def _is_model(name: str) -> bool:
    return name.endswith(SUFFIXES) and name not in NOT_MODELS
