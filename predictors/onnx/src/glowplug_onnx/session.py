"""onnxruntime, opened and run, and what it says translated for the people who read it.

Its errors carry C++ signatures and source lines, and are logged to stderr besides; here its log is off, and an error
becomes one message with a hint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glowplug.errors import ConfigError, GlowplugError, InferenceError, StorageError
from glowplug.serving import onnx_form

MAX_QUOTED = 400

_OPSET = re.compile(r"Opset (\d+) is under development.* for domain (\S+) is till opset (\d+)", re.S)
_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_PREFIX = re.compile(r"^(\[ONNXRuntimeError\] : \d+ : \w+ : )?(Load model from .*? failed:)?\s*", re.S)
_SOURCE = re.compile(r"\S+\.(?:cc|h|cpp):\d+ (?:\S[^\n]*?\) (?=[A-Z])|\w+ )?")
_NODE = re.compile(r"^Non-zero status code returned while running (\S+ node)\. Name:'[^']*' Status Message: ")


def open_session(path: Path, threads: int) -> Any:
    """An InferenceSession on the CPU. Raises StorageError for a file it cannot run, ConfigError without onnxruntime."""
    return opened(path, session_options(threads))


def session_options(threads: int) -> Any:
    """Raises ConfigError without onnxruntime."""
    try:
        # 0.15 s, and not needed for --help or to say that a port is taken.
        return onnx_form.options(threads)
    except ImportError as error:
        raise ConfigError(
            f"onnxruntime cannot be imported: {error}", hint="pip install onnxruntime"
        ) from error


def opened(path: Path, options: Any) -> Any:
    """The same with options that are there."""
    import onnxruntime

    try:
        # Its fallback would try the same once more, and print that it does.
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's classes have no common base but Exception
        raise unloadable(path, error, str(onnxruntime.__version__)) from error


def unloadable(path: Path, error: Exception, version: str) -> GlowplugError:
    """Why a model file is not served."""
    text = str(error)
    export = "export it again with an older opset_version, or install a newer onnxruntime"
    if found := _OPSET.search(text):
        needs = f"opset {found[1]} of {found[2]}; onnxruntime {version} knows opsets up to {found[3]}"
        return StorageError(f"{path} needs {needs}", hint=export)
    if found := _IR.search(text):
        needs = f"IR version {found[1]}; onnxruntime {version} knows versions up to {found[2]}"
        return StorageError(f"{path} needs {needs}", hint=export)
    if type(error).__name__ == "InvalidProtobuf" or "No graph was found" in text:
        size = path.stat().st_size
        return StorageError(f"{path} is no ONNX model, or is cut off ({size} bytes)", hint="copy it again")
    hint = "onnx.checker.check_model(path) says whether the model is whole"
    if "xternal" in text:
        hint = "its weights are in files of their own: copy them beside it"
    elif type(error).__name__ in ("InvalidGraph", "NotImplemented") or "is not a registered" in text:
        hint = f"onnxruntime {version} lacks an operator of this model: {export}"
    return StorageError(f"{path} cannot be loaded: {plain(error)}", hint=hint)


def run(session: Any, outputs: Sequence[str], feeds: dict[str, Any]) -> list[Any]:
    """The arrays of the named outputs. Raises InferenceError: 400 for inputs that the model cannot compute.

    The model did compute its warm-up, and datatypes and shapes were looked at; what is left are values out of range
    and dynamic dimensions that do not fit each other. Only onnxruntime knows those.
    """
    compute: Callable[..., list[Any]] = session.run
    try:
        return compute(outputs, feeds)
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "onnxruntime":
            raise
        text = plain(error)
        if "allocate memory" in text or "bad_alloc" in text:
            raise InferenceError("not enough memory for these inputs", code=503) from error
        raise InferenceError(f"the model cannot compute these inputs: {text}") from error


def plain(error: Exception) -> str:
    """The first line of what onnxruntime says, without where in its source it says so."""
    text = _PREFIX.sub("", str(error), count=1)
    lines = _SOURCE.sub("", text).strip().splitlines()
    line = _NODE.sub(r"\1: ", lines[0].strip()) if lines else type(error).__name__
    return line[:MAX_QUOTED]
