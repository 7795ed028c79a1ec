"""XGBoost's own shared library, called through its C interface.

`import xgboost` brings scipy, and pandas and scikit-learn where they are installed: 0.5 to 4 s of a cold start, for
functions that a predictor never calls. The library itself loads in 2 ms, and a row costs half of what the package's
`inplace_predict` takes. The functions used here are the documented, stable ones.
Source: https://xgboost.readthedocs.io/en/stable/c.html
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import ConfigError

MIN_VERSION = (2, 0)

# type 0: the prediction proper (not margins, leaves or contributions); NaN marks what is missing; all trees.
_CONFIG = (
    b'{"type":0,"training":false,"iteration_begin":0,"iteration_end":0,"missing":NaN,"strict_shape":false,'
    b'"cache_id":0}'
)
_FLOAT_BYTES = 4


class XgboostError(Exception):
    """What the library says went wrong, its first line only (the rest is a C++ stack)."""


def library_path() -> Path:
    """Where the installed package keeps its library, found without importing it. Raises ConfigError."""
    spec = importlib.util.find_spec("xgboost")
    name = "libxgboost.dylib" if sys.platform == "darwin" else "libxgboost.so"
    folders = [Path(place) / "lib" for place in (spec.submodule_search_locations or ())] if spec else []
    for path in (folder / name for folder in [*folders, Path(sys.prefix) / "lib"]):
        if path.is_file():
            return path
    raise ConfigError("the xgboost library is not installed", hint="pip install xgboost-cpu")


def open_library() -> Any:
    """The loaded library. Raises ConfigError where it is missing, broken or too old."""
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be loaded: {error}") from error
    library.XGBGetLastError.restype = ctypes.c_char_p
    major, minor, patch = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    library.XGBoostVersion(ctypes.byref(major), ctypes.byref(minor), ctypes.byref(patch))
    if (major.value, minor.value) < MIN_VERSION:
        raise ConfigError(f"xgboost {major.value}.{minor.value} is too old, expected 2.0 or newer")
    return library


class _Proxy:
    """A proxy DMatrix, let go of with its thread."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.handle = ctypes.c_void_p()

    def __del__(self) -> None:
        if self.handle:
            self._library.XGDMatrixFree(self.handle)


class Booster:
    """A loaded model. Predictions of several threads do not disturb each other."""

    def __init__(self, model: bytes, *, nthread: int) -> None:
        """`model` is the content of a JSON or UBJSON file. Raises XgboostError where it is neither."""
        self.nthread = nthread
        self._proxies = threading.local()
        self._library = open_library()
        self._handle = ctypes.c_void_p()
        self._check(self._library.XGBoosterCreate(None, ctypes.c_uint64(0), ctypes.byref(self._handle)))
        self._set("nthread", str(nthread))
        self._check(
            self._library.XGBoosterLoadModelFromBuffer(self._handle, model, ctypes.c_uint64(len(model)))
        )
        # A model file may carry the thread count that it was trained with.
        self._set("nthread", str(nthread))

    def _set(self, name: str, value: str) -> None:
        self._check(self._library.XGBoosterSetParam(self._handle, name.encode(), value.encode()))

    def _check(self, code: int) -> None:
        if code != 0:
            text = (self._library.XGBGetLastError() or b"").decode("utf-8", "replace").strip()
            lines = [line for line in text.splitlines() if line and not line.startswith("Stack trace")]
            raise XgboostError(lines[0].partition("] ")[2] or lines[0] if lines else "unknown error")

    def feature_count(self) -> int:
        """How many columns a row has."""
        count = ctypes.c_uint64()
        self._check(self._library.XGBoosterGetNumFeature(self._handle, ctypes.byref(count)))
        return int(count.value)

    def feature_names(self) -> tuple[str, ...]:
        """The columns' names, in order; empty where the model was trained without."""
        length = ctypes.c_uint64()
        names = ctypes.POINTER(ctypes.c_char_p)()
        self._check(
            self._library.XGBoosterGetStrFeatureInfo(
                self._handle, b"feature_name", ctypes.byref(length), ctypes.byref(names)
            )
        )
        return tuple((names[index] or b"").decode() for index in range(length.value))

    def attribute(self, name: str) -> str | None:
        """A string that the trainer left with `set_attr`, or None."""
        value, is_found = ctypes.c_char_p(), ctypes.c_int()
        self._check(
            self._library.XGBoosterGetAttr(
                self._handle, name.encode(), ctypes.byref(value), ctypes.byref(is_found)
            )
        )
        return (value.value or b"").decode() if is_found.value else None

    def description(self) -> tuple[str, str]:
        """The kind of booster (`gbtree`, `dart`, `gblinear`) and the objective (`reg:squarederror`)."""
        length, text = ctypes.c_uint64(), ctypes.c_char_p()
        self._check(
            self._library.XGBoosterSaveJsonConfig(self._handle, ctypes.byref(length), ctypes.byref(text))
        )
        learner = json.loads(text.value or b"{}")["learner"]
        return learner["gradient_booster"]["name"], learner["objective"]["name"]

    def saved(self) -> bytes:
        """The model as UBJSON in the library's own newest layout, whatever the file was."""
        length, content = ctypes.c_uint64(), ctypes.POINTER(ctypes.c_char)()
        self._check(
            self._library.XGBoosterSaveModelToBuffer(
                self._handle, b'{"format":"ubj"}', ctypes.byref(length), ctypes.byref(content)
            )
        )
        return ctypes.string_at(content, length.value)

    def _proxy(self) -> ctypes.c_void_p:
        """This thread's holder of rows; without one the library makes it for each call, and reads four files for it."""
        proxy = getattr(self._proxies, "proxy", None)
        if proxy is None:
            proxy = self._proxies.proxy = _Proxy(self._library)
            self._check(self._library.XGProxyDMatrixCreate(ctypes.byref(proxy.handle)))
        handle: ctypes.c_void_p = proxy.handle
        return handle

    def predict(self, rows: Any) -> Any:
        """FP32 [n] or [n, k] for C-contiguous float32 rows [n, features]; NaN is missing. Raises XgboostError."""
        count, width = rows.shape
        address = rows.__array_interface__["data"][0]
        interface = f'{{"data":[{address},true],"shape":[{count},{width}],"typestr":"<f4","version":3}}'
        shape = ctypes.POINTER(ctypes.c_uint64)()
        rank = ctypes.c_uint64()
        result = ctypes.POINTER(ctypes.c_float)()
        self._check(
            self._library.XGBoosterPredictFromDense(
                self._handle,
                interface.encode(),
                _CONFIG,
                self._proxy(),
                ctypes.byref(shape),
                ctypes.byref(rank),
                ctypes.byref(result),
            )
        )
        sizes = shape[: rank.value]
        total = 1
        for size in sizes:
            total *= size
        # The library reuses its buffer at the next call of this thread, hence the copy.
        return np.frombuffer(ctypes.string_at(result, total * _FLOAT_BYTES), dtype="<f4").reshape(sizes)

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle:
            self._library.XGBoosterFree(handle)
