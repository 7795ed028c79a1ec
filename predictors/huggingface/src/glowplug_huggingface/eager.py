"""The model as torch computes it: the reference for the export, and the fallback where that fails.

torch and transformers are imported in here only, and only where they are needed: it takes seconds, and 0.4 GB.
Nothing of the folder is run as code, and nothing is downloaded.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from glowplug.errors import ConfigError, StorageError
from glowplug_huggingface.folder import ModelFolder
from glowplug_huggingface.payload import IDS, MASK, TYPES
from glowplug_huggingface.pooling import CLS, MAX, MEAN, Pooling
from glowplug_huggingface.settings import CLASSIFICATION

# For the environment, before they are imported: they read it then.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# Heads that neither pooling nor classification uses, and buffers that are computed.
UNUSED = ("pooler.", "embeddings.position_ids")


class TorchBackend:
    """`module` takes the tensors of `inputs` in order, and gives FP32 [n, width]."""

    name = "torch"

    def __init__(self, folder: ModelFolder, threads: int) -> None:
        """Raises StorageError for weights that are not this architecture's, ConfigError without torch."""
        torch = _torch()
        torch.set_num_threads(threads)
        model = _load(folder)
        known = inspect.signature(model.forward).parameters
        self.inputs: tuple[str, ...] = tuple(name for name in (IDS, MASK, TYPES) if name in known)
        self.module = _wrapped(torch, model, folder, self.inputs)
        # On the wrapper: it is what is exported, and torch looks at its flag alone when it traces.
        self.module.eval()

    def tensors(self, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
        """The module's arguments."""
        import torch

        # Copies: arrays of a request's bytes are read-only, which torch has no notion of.
        return tuple(torch.from_numpy(np.array(arrays[name])) for name in self.inputs)

    def run(self, arrays: Mapping[str, Any]) -> Any:
        """float32 [n, width] of INT64 arrays [n, length]."""
        import torch

        with torch.inference_mode():
            return self.module(*self.tensors(arrays)).numpy()


def _torch() -> Any:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"torch and transformers are needed for the export of a model, and to run one without: {error}",
            hint="pip install torch transformers, or bring the export along: --export (README)",
        ) from error
    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    return torch


def _load(folder: ModelFolder) -> Any:
    import transformers

    is_classification = folder.task == CLASSIFICATION
    kind = transformers.AutoModelForSequenceClassification if is_classification else transformers.AutoModel
    try:
        with warnings.catch_warnings():
            # About the folder's own age; whoever serves it cannot change it.
            warnings.simplefilter("ignore")
            model, info = kind.from_pretrained(
                str(folder.path),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                # The plain formula, whose export onnxruntime fuses best.
                attn_implementation="eager",
                output_loading_info=True,
            )
    except Exception as error:  # transformers documents none
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise StorageError(f"{folder.path} cannot be loaded by transformers: {text}") from error
    _check_loaded(folder, info)
    return model.float()


def _check_loaded(folder: ModelFolder, info: Mapping[str, Any]) -> None:
    """transformers fills in weights that are missing at random, and only warns."""
    missing = [name for name in _names(info, "missing_keys") if not _is_unused(folder, name)]
    other = _names(info, "mismatched_keys")
    if missing or other:
        found = ", ".join((missing + other)[:3])
        raise StorageError(
            f"{folder.path} lacks {len(missing) + len(other)} weights of a {folder.task} model, or has them in "
            f"another shape: {found}",
            hint="--task names the one that it was trained for",
        )


def _names(info: Mapping[str, Any], key: str) -> list[str]:
    found: Iterable[Any] = info.get(key) or ()
    return sorted(str(item[0] if isinstance(item, tuple) else item) for item in found)


def _is_unused(folder: ModelFolder, name: str) -> bool:
    return folder.task != CLASSIFICATION and any(part in name for part in UNUSED)


def _wrapped(torch: Any, model: Any, folder: ModelFolder, names: tuple[str, ...]) -> Any:
    class Wrapper(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            named = dict(zip(names, tensors, strict=True))
            found = self.model(**named, return_dict=True)
            if folder.task == CLASSIFICATION:
                return found.logits
            return pooled(torch, found.last_hidden_state, named.get(MASK), folder.pooling)

    return Wrapper()


def pooled(torch: Any, states: Any, mask: Any, pooling: Pooling) -> Any:
    """[n, length, width] to [n, width], as sentence-transformers does it; `mask` is [n, length] of 0 and 1."""
    mask = torch.ones_like(states[..., 0]) if mask is None else mask.to(states.dtype)
    if pooling.mode == CLS:
        found = states[:, 0]
    elif pooling.mode == MAX:
        found = states.masked_fill(mask.unsqueeze(-1) == 0, -1e9).max(dim=1).values
    else:
        count = mask.sum(dim=1, keepdim=True).clamp(min=1e-9)
        total = (states * mask.unsqueeze(-1)).sum(dim=1)
        found = total / (count if pooling.mode == MEAN else count.sqrt())
    return torch.nn.functional.normalize(found, p=2, dim=1) if pooling.is_normalized else found
