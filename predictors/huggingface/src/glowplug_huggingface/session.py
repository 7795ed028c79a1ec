"""onnxruntime on an exported model: what it takes, how many numbers it gives, and its errors in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import ConfigError, InferenceError, StorageError
from glowplug.serving import onnx_form
from glowplug.serving.onnx_form import Forms

# As many as any model has positions for.
_TRIAL_TOKENS = 8
_PREFIX = re.compile(r"^(\[ONNXRuntimeError\] : \d+ : \w+ : )?(Load model from .*? failed:)?\s*", re.S)


class OnnxBackend:
    """`run` may be called from any thread; each call computes with all threads. `forms` None: none are kept."""

    name = "onnx"

    def __init__(self, path: Path, threads: int, forms: Forms | None = None) -> None:
        """Raises StorageError for a file that cannot be run, ConfigError without onnxruntime."""
        self._path, self._forms = path, forms
        try:
            if forms is None:
                self._session, self._is_form = _open(path, onnx_form.options(threads)), False
            else:
                self._session, self._is_form = forms.open(path, _open)
        except ImportError as error:
            raise ConfigError(
                f"onnxruntime cannot be imported: {error}", hint="pip install onnxruntime"
            ) from error
        self.inputs: tuple[str, ...] = tuple(item.name for item in self._session.get_inputs())

    def run(self, arrays: Mapping[str, Any]) -> Any:
        """float32 [n, width] of INT64 arrays [n, length]. Raises InferenceError (503) where memory is short."""
        return self._run(self._session, arrays)

    def map_weights(self) -> str:
        """Lets all replicas share the weights, where there is a place for them; what came of it, in words."""
        if self._is_form:
            return onnx_form.MAPPED
        if self._forms is None:
            return "not mapped: there is no cache folder"
        session, said = self._forms.make(self._path, _open, self._computes_the_same)
        if session is not None:
            # What is being computed keeps the other one.
            self._session, self._is_form = session, True
        return said

    def _computes_the_same(self, other: Any) -> bool:
        arrays = {name: np.ones((1, _TRIAL_TOKENS), dtype=np.int64) for name in self.inputs}
        return bool(np.allclose(self.run(arrays), self._run(other, arrays), rtol=1e-4, atol=1e-5))

    def _run(self, session: Any, arrays: Mapping[str, Any]) -> Any:
        try:
            return session.run(None, {name: arrays[name] for name in self.inputs})[0]
        except Exception as error:  # onnxruntime's classes have no common base but Exception
            text = _plain(error)
            if "allocate memory" in text or "bad_alloc" in text:
                raise InferenceError("not enough memory for these inputs", code=503) from error
            raise


def _open(path: Path, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # as above
        raise StorageError(f"{path} cannot be loaded: {_plain(error)}") from error


def _plain(error: Exception) -> str:
    lines = _PREFIX.sub("", str(error), count=1).strip().splitlines()
    return lines[0][:400] if lines else type(error).__name__
