"""An ONNX model as onnxruntime computes with it: optimized, its weights packed for this CPU, in files that are mapped.

To open a model is to parse it, optimize it, and copy its weights into the form that the CPU likes, each time, into
memory of each replica's own. The form is that result, written once. It opens ten times as fast, and its weights are
pages of a file that all replicas share: three replicas of BERT-base take 476 MB instead of 1,549.

It is good for one onnxruntime on one kind of CPU, so it is a cache entry and never an artifact: where it is missing,
or cannot be written, the model itself is opened. Who makes it checks that it computes the same.

https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html#offline-optimizations
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("glowplug.serving")

MAPPED = "mapped, shared by all replicas"
Open = Callable[[Path, Any], Any]
_MODEL, _WEIGHTS, _NOTE, _LOCK = "model.onnx", "weights.bin", "form.json", ".lock"
_NEW = ".new-"
# What is smaller is parsed in a few milliseconds.
_LEAST_BYTES = 8 * 2**20
# Weights may be there twice, packed and as they were.
_ROOM = 3
# Forms of models that are served no more; opening one renews it.
_MAX_AGE_S = 30 * 86400
# onnxruntime's severities go from 0 (verbose) to 4 (fatal).
_FATAL_ONLY = 4


def options(threads: int) -> Any:
    """onnxruntime's options for a server: quiet, and no thread that spins. Raises ImportError without onnxruntime."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    found = onnxruntime.SessionOptions()
    found.log_severity_level = _FATAL_ONLY
    found.intra_op_num_threads = threads
    found.inter_op_num_threads = 1
    # Threads that spin for work take the CPU from the event loop, and use up the container's quota.
    found.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return found


class Forms:
    """The forms in one folder of the user's cache, by model; `threads` are those that a session computes with."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads = folder, threads

    def find(self, model: Path) -> Path | None:
        """The form of that model file, or None."""
        place = self._folder / self._key(model)
        try:
            note = json.loads((place / _NOTE).read_bytes())
            sizes = {name: (place / name).stat().st_size for name in (_MODEL, _WEIGHTS)}
            if sizes != note["sizes"]:
                log.warning("the form in %s is cut off", place)
                return None
            os.utime(place / _NOTE)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return place / _MODEL

    def open(self, model: Path, open_: Open) -> tuple[Any, bool]:
        """A session of the model, and whether it is one of its form. `open_` takes a path and options."""
        form = self.find(model)
        if form is not None:
            try:
                return open_(form, _as_made(options(self._threads))), True
            except Exception as error:  # whatever is wrong with it, the model is there
                log.warning("the form %s cannot be opened: %s", form, error)
                shutil.rmtree(form.parent, ignore_errors=True)
        return open_(model, options(self._threads)), False

    def make(self, model: Path, open_: Open, is_same: Callable[[Any], bool]) -> tuple[Any | None, str]:
        """Writes the form, unless that is of no use; a session of it, and what happened, in words.

        `is_same` is asked whether a session computes what the model does. One process at a time makes one.
        """
        size = _size(model)
        if size < _LEAST_BYTES:
            return None, "small enough to be opened as it is"
        if _free_memory() < _ROOM * size:
            return None, f"no memory to map it: {_ROOM} times {size >> 20} MB are needed for a moment"
        place = self._folder / self._key(model)
        try:
            if shutil.disk_usage(self._folder).free < _ROOM * size:
                return None, f"no room in {self._folder}: {_ROOM} times {size >> 20} MB are needed"
            with (self._folder / _LOCK).open("a") as lock:
                # Closing the file lets go.
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Of a process that was killed while it wrote: nobody else writes now.
                for left in self._folder.glob(f"{_NEW}*"):
                    shutil.rmtree(left, ignore_errors=True)
                if self.find(model) is None:
                    made = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._folder))
                    try:
                        self._write(model, made, open_, is_same)
                        shutil.rmtree(place, ignore_errors=True)
                        made.rename(place)
                    finally:
                        shutil.rmtree(made, ignore_errors=True)
                self._forget_old()
            session, is_form = self.open(model, open_)
        except Exception as error:  # a cache that fails must not be more than a cache that is not there
            return None, f"not mapped: {str(error) or type(error).__name__}"[:300]
        return (session, MAPPED) if is_form else (None, "not mapped")

    def _write(self, model: Path, made: Path, open_: Open, is_same: Callable[[Any], bool]) -> None:
        saving = options(self._threads)
        saving.optimized_model_filepath = str(made / _MODEL)
        for key, value in (
            ("optimized_model_external_initializers_file_name", _WEIGHTS),
            ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
            ("save_external_prepacked_constant_initializers", "1"),
        ):
            saving.add_session_config_entry(f"session.{key}", value)
        open_(model, saving)
        if not is_same(open_(made / _MODEL, _as_made(options(self._threads)))):
            raise ValueError("its form computes something else")
        sizes = {name: (made / name).stat().st_size for name in (_MODEL, _WEIGHTS)}
        (made / _NOTE).write_text(json.dumps({"model": str(model), "sizes": sizes}))

    def _key(self, model: Path) -> str:
        """Of the model, with the files beside it (its weights may be there), this onnxruntime and this CPU."""
        import onnxruntime

        told: list[Any] = [str(model.resolve()), onnxruntime.__version__, self._threads, cpu()]
        for entry in sorted(model.parent.iterdir()):
            if entry.is_file():
                stat = entry.stat()
                told.append((entry.name, stat.st_size, stat.st_mtime_ns))
        return hashlib.sha256(repr(told).encode()).hexdigest()[:32]

    def _forget_old(self) -> None:
        for note in self._folder.glob(f"*/{_NOTE}"):
            if time.time() - note.stat().st_mtime > _MAX_AGE_S:
                log.info("forgetting the form in %s", note.parent)
                shutil.rmtree(note.parent, ignore_errors=True)


def cache_folder(env: Mapping[str, str], name: str) -> Path | None:
    """`<the user's cache>/glowplug/<name>`; None where it cannot be written, as in an image that is read-only."""
    home = env.get("XDG_CACHE_HOME") or (os.path.join(env["HOME"], ".cache") if env.get("HOME") else "")
    if not home:
        return None
    folder = Path(home) / "glowplug" / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def cpu() -> str:
    """What kind of CPU this is, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("model name")), "")


def _as_made(found: Any) -> Any:
    import onnxruntime

    # It is optimized; to look for more would be to read it all.
    found.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return found


def _free_memory() -> float:
    """Bytes that the container may still take; infinite where it has no limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        return float(limit) - float((group / "memory.current").read_text())
    except (OSError, ValueError):
        return float("inf")


def _size(model: Path) -> int:
    """With the files beside it: its weights may be there."""
    return sum(entry.stat().st_size for entry in model.parent.iterdir() if entry.is_file())
