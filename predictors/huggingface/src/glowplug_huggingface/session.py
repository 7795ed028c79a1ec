"""onnxruntime on an exported model: what it takes, how many numbers it gives, and its errors in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glowplug.errors import ConfigError, InferenceError, StorageError

# onnxruntime's severities go from 0 (verbose) to 4 (fatal).
FATAL_ONLY = 4
_PREFIX = re.compile(r"^(\[ONNXRuntimeError\] : \d+ : \w+ : )?(Load model from .*? failed:)?\s*", re.S)


class OnnxBackend:
    """`run` may be called from any thread; each call computes with all threads."""

    name = "onnx"

    def __init__(self, path: Path, threads: int) -> None:
        """Raises StorageError for a file that cannot be run, ConfigError without onnxruntime."""
        self._session = _open(path, threads)
        self.inputs: tuple[str, ...] = tuple(item.name for item in self._session.get_inputs())

    def run(self, arrays: Mapping[str, Any]) -> Any:
        """float32 [n, width] of INT64 arrays [n, length]. Raises InferenceError (503) where memory is short."""
        try:
            return self._session.run(None, {name: arrays[name] for name in self.inputs})[0]
        except Exception as error:  # onnxruntime's classes have no common base but Exception
            text = _plain(error)
            if "allocate memory" in text or "bad_alloc" in text:
                raise InferenceError("not enough memory for these inputs", code=503) from error
            raise


def _open(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"onnxruntime cannot be imported: {error}", hint="pip install onnxruntime"
        ) from error
    onnxruntime.set_default_logger_severity(FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin for work take the CPU from the event loop, and use up the container's quota.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # as above
        raise StorageError(f"{path} cannot be loaded: {_plain(error)}") from error


def _plain(error: Exception) -> str:
    lines = _PREFIX.sub("", str(error), count=1).strip().splitlines()
    return lines[0][:400] if lines else type(error).__name__
