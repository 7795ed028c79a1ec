"""What a model is that somebody hands over: a file, or a folder such as MLflow keeps for a version."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from glowplug.errors import StorageError

MAX_LISTED = 10
# Where MLflow's flavours put the files that its MLmodel speaks of.
_BELOW = ("", "data", "model")
# Beside a model in what MLflow writes, and no models.
_NOT_MODELS = frozenset(
    {
        "input_example.json",
        "serving_input_example.json",
        "serving_input_payload.json",
        "registered_model_meta.json",
    }
)


class Kind(str, Enum):
    """What the model is; the value is what messages call it."""

    onnx = "ONNX"
    torchscript = "TorchScript"
    python = "Python backend"
    xgboost = "XGBoost"


_SUFFIXES = {
    ".onnx": Kind.onnx,
    ".pt": Kind.torchscript,
    ".ts": Kind.torchscript,
    ".json": Kind.xgboost,
    ".ubj": Kind.xgboost,
    ".xgb": Kind.xgboost,
}
EXPECTED = "model.py, *.onnx, *.pt (TorchScript), *.ubj or *.json (XGBoost)"


@dataclass(frozen=True)
class Source:
    """The model's main file. `folder` is set where everything in it belongs to the model and is copied along."""

    kind: Kind
    file: Path
    folder: Path | None = None


def find_source(place: Path) -> Source:
    """The model at `place`. Raises StorageError: nothing there, no model, several."""
    if place.is_file():
        kind = kind_of(place)
        if kind is None:
            raise StorageError(f"{place} is no model that Triton takes here, expected {EXPECTED}")
        return Source(kind, place)
    if not place.is_dir():
        raise StorageError(f"{place} does not exist", hint="name a file, a folder, or models:/NAME@ALIAS")
    for below in _BELOW:
        folder = place / below
        found = _models(folder) if folder.is_dir() else []
        if len(found) > 1:
            names = ", ".join(source.file.name for source in found[:MAX_LISTED])
            raise StorageError(f"{folder} holds {len(found)} models: {names}", hint="name the file itself")
        if found:
            return found[0]
    names = ", ".join(sorted(path.name for path in place.iterdir())[:MAX_LISTED]) or "nothing"
    hint = ""
    if (place / "data" / "model.pth").exists():
        hint = "a pickled PyTorch module; torch.jit.script(module).save('model.pt') makes TorchScript of it"
    raise StorageError(f"{place} holds no model, expected {EXPECTED}; it holds {names}", hint=hint)


def _models(folder: Path) -> list[Source]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if (folder / "model.py").is_file():
        return [Source(Kind.python, folder / "model.py", folder)]
    kinds = [(kind_of(path), path) for path in files if path.name not in _NOT_MODELS]
    found = [Source(kind, path) for kind, path in kinds if kind is not None and kind is not Kind.python]
    if len(found) == 1 and found[0].kind is Kind.onnx:
        # Weights may lie in files of their own beside the graph.
        return [Source(Kind.onnx, found[0].file, folder)]
    return found


def kind_of(path: Path) -> Kind | None:
    """By the file's name; a Python file is a model only as `model.py`."""
    if path.suffix == ".py":
        return Kind.python
    return _SUFFIXES.get(path.suffix)
