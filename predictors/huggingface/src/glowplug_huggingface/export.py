"""Makes the ONNX export of a model folder, in a process of its own: torch's memory goes back with it.

    python -m glowplug_huggingface.export '{"model_dir": ..., "task": ..., ...}'

The export is kept only if onnxruntime computes from it what eager torch does (`parity.py`).
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glowplug.errors import GlowplugError, StorageError
from glowplug_huggingface.cache import MODEL, Export, export_key, new_export, write_manifest
from glowplug_huggingface.eager import TorchBackend
from glowplug_huggingface.folder import ModelFolder, read_folder
from glowplug_huggingface.parity import compare, probes, tolerance
from glowplug_huggingface.payload import IDS, MASK, TYPES
from glowplug_huggingface.session import OnnxBackend
from glowplug_huggingface.settings import INT8
from glowplug_huggingface.tokens import Tokenizer

log = logging.getLogger("glowplug.huggingface")

OPSET = 17
OUTPUT = "output"
# The largest protobuf message, less room for the graph: past it weights would have to be in files of their own.
MAX_BYTES = 2**31 - 2**24


@dataclass(frozen=True)
class Job:
    """What to export and where to; JSON on the process's command line."""

    model_dir: str
    task: str
    dtype: str
    max_length: int
    threads: int
    cache_dir: str


def make(job: Job) -> tuple[Path, Export]:
    """Exports, compares, keeps. Raises GlowplugError where the export fails or disagrees."""
    folder = read_folder(job.model_dir, job.task)
    size = sum(path.stat().st_size for path in folder.weights)
    if size > MAX_BYTES:
        raise StorageError(f"the weights have {size} bytes, an export in one file at most {MAX_BYTES}")
    key, root = export_key(folder, job.dtype), Path(job.cache_dir)
    with new_export(root, key) as place:
        eager = TorchBackend(folder, job.threads)
        tokenizer = Tokenizer(folder, job.max_length) if folder.tokenizer else None
        batches = probes(folder, tokenizer, job.max_length)
        write(eager, place / MODEL, job.max_length)
        if job.dtype == INT8:
            quantize(place / MODEL)
        export = _check(folder, batches, eager, place / MODEL, job)
        write_manifest(place, export)
    return root / key, export


def write(eager: TorchBackend, path: Path, max_length: int) -> None:
    """Traces the module; rows and tokens stay dynamic. Raises StorageError."""
    import torch

    # Two rows, the second padded: a size of 1 is what tracers take for a constant.
    length = min(8, max_length)
    arrays = example(length)
    axes: dict[str, dict[int, str]] = {name: {0: "rows", 1: "tokens"} for name in eager.inputs}
    options: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        # The tracing exporter: the other one needs a package more, and took ten times as long.
        options["dynamo"] = False
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Of the tracer, about constants: what they would break is what the check is for.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                eager.module,
                eager.tensors(arrays),
                str(path),
                input_names=list(eager.inputs),
                output_names=[OUTPUT],
                dynamic_axes={**axes, OUTPUT: {0: "rows"}},
                opset_version=OPSET,
                **options,
            )
    except Exception as error:  # torch's exporter documents none
        text = (str(error).strip().splitlines() or [""])[0][:300]
        hint = "pip install onnx" if importlib.util.find_spec("onnx") is None else ""
        raise StorageError(f"torch cannot export it: {type(error).__name__}: {text}", hint=hint) from error


def example(length: int) -> dict[str, Any]:
    """INT64 [2, length] for the tracer."""
    import numpy as np

    ids: Any = np.ones((2, length), dtype=np.int64)
    mask: Any = np.ones((2, length), dtype=np.int64)
    mask[1, (length + 1) // 2 :] = 0
    return {IDS: ids, MASK: mask, TYPES: np.zeros((2, length), dtype=np.int64)}


def quantize(path: Path) -> None:
    """Weights of matrix products to int8, activations as they come. Raises StorageError."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        plain = path.with_suffix(".fp32.onnx")
        path.replace(plain)
        # A scale for each column: see parity.py for what one for a whole matrix costs.
        quantize_dynamic(plain, path, weight_type=QuantType.QInt8, per_channel=True)
        plain.unlink()
    except Exception as error:  # onnxruntime's tools document none
        raise StorageError(f"int8: {type(error).__name__}: {error}", hint="pip install onnx") from error


def _check(
    folder: ModelFolder, batches: list[dict[str, Any]], eager: TorchBackend, path: Path, job: Job
) -> Export:
    import torch
    import transformers

    made = OnnxBackend(path, job.threads)
    verdict = compare(folder, batches, eager, made, job.dtype)
    if verdict.reason:
        raise StorageError(verdict.reason)
    width = made.run(batches[0]).shape[1]
    return Export(
        width=width,
        size=path.stat().st_size,
        difference=verdict.difference,
        tolerance=tolerance(folder, job.dtype),
        torch=str(torch.__version__),
        transformers=str(transformers.__version__),
    )


def main(argv: list[str]) -> int:
    """On stdout, JSON: `{"place": ...}` or `{"error": ..., "hint": ...}`."""
    # Only errors of the libraries: onnxruntime's quantizer writes a line for each matrix that it lets be.
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("glowplug").setLevel(logging.INFO)
    try:
        place, export = make(Job(**json.loads(argv[0])))
    except GlowplugError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
        return 1
    print(json.dumps({"place": str(place), **asdict(export)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
