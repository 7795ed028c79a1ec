"""How a model folder is served, and how much of a request is let in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glowplug.errors import ConfigError

AUTO = "auto"
CLASSIFICATION, EMBEDDING = "sequence-classification", "embedding"
TASKS = (AUTO, CLASSIFICATION, EMBEDDING)
ONNX, TORCH = "onnx", "torch"
BACKENDS = (AUTO, ONNX, TORCH)
FLOAT32, INT8 = "float32", "int8"
DTYPES = (FLOAT32, INT8)


@dataclass(frozen=True)
class TextConfig:
    """Limits are refused with 400 past them, except `max_length`: longer texts are cut off. Raises ConfigError."""

    task: str = AUTO
    backend: str = AUTO
    dtype: str = FLOAT32
    # In tokens, those that the tokenizer adds included.
    max_length: int = 128
    # Rows that are computed at once: 32 rows of 128 tokens of BERT-base take 0.2 GB of activations.
    max_batch_size: int = 32
    max_rows: int = 256
    # A text is tokenised as a whole before it is cut off: 64 KiB take 10 ms.
    max_text_bytes: int = 2**16
    threads: int = 1
    cache_dir: Path = Path(".cache")
    # torch's import, the export and its check: 15 s for MiniLM, a minute or two for a large BERT on a slow disk.
    export_timeout_s: float = 900.0

    def __post_init__(self) -> None:
        for flag in ("max_length", "max_batch_size", "max_rows", "max_text_bytes"):
            if getattr(self, flag) < 1:
                raise ConfigError(f"--{flag}={getattr(self, flag)}, expected 1 or more")
        if self.backend == TORCH and self.dtype == INT8:
            raise ConfigError("--dtype=int8 is a form of the ONNX export", hint="leave out --backend=torch")


def default_cache_dir(env: Mapping[str, str]) -> Path:
    """`glowplug/huggingface` in $XDG_CACHE_HOME, else in ~/.cache, as the XDG base directory specification says."""
    root = env.get("XDG_CACHE_HOME", "")
    home = Path(env.get("HOME") or "/tmp")
    return (Path(root) if root.startswith("/") else home / ".cache") / "glowplug" / "huggingface"
