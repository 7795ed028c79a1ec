"""A model with its weights in int8 (dynamic quantization), where that is faster on this computer and nearly as exact.

BERT gains, ResNet-50 loses: it is tried once, and the outcome is kept in a folder together with the file. Only where
asked for, since what is answered changes in the third digit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from glowplug.errors import GlowplugError, InferenceError
from glowplug.serving import onnx_form
from glowplug_onnx.rows import SIZES, trial
from glowplug_onnx.session import open_session, run
from glowplug_onnx.signature import Signature, signatures

log = logging.getLogger("glowplug.onnx")

# Root mean square of the difference, as a share of that of the output itself.
MAX_DIFFERENCE = 0.05
# int8 takes less than this share of the time of fp32, or is not worth its difference.
FASTER = 0.8
TRIALS, ROUNDS = 4, 3


@dataclass(frozen=True)
class Outcome:
    """Whether the int8 file is used, and why or why not."""

    is_used: bool
    reason: str


def cache_folder(flag: str | None, env: Mapping[str, str]) -> Path:
    """Where outcomes are kept: the flag, else the user's cache folder; a new temporary one where it can't be made."""
    home = env.get("XDG_CACHE_HOME") or os.path.join(env.get("HOME") or tempfile.gettempdir(), ".cache")
    folder = Path(flag or os.path.join(home, "glowplug", "onnx-int8"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    found = Path(tempfile.mkdtemp(prefix="glowplug-onnx-int8-"))
    log.warning("%s cannot be written: int8 is tried at each start, in %s", folder, found)
    return found


def faster_model(path: Path, folder: Path, threads: int) -> tuple[Path, str]:
    """The file to serve, `path` or its int8 form in `folder`, and why. Raises StorageError where `path` is no model."""
    key = _key(path, threads)
    small, note = folder / f"{key}.onnx", folder / f"{key}.json"
    outcome = _kept(note)
    if outcome is None:
        outcome = _tried(path, small, threads)
        if not outcome.is_used:
            small.unlink(missing_ok=True)
        _keep(note, outcome)
    if outcome.is_used and small.is_file():
        return small, outcome.reason
    return path, outcome.reason


def _key(path: Path, threads: int) -> str:
    """Of the model, with the files beside it (its weights may be there), this onnxruntime and this CPU."""
    import onnxruntime

    told: list[Any] = [str(path.resolve()), onnxruntime.__version__, threads, onnx_form.cpu()]
    for entry in sorted(path.parent.iterdir()):
        if entry.is_file():
            stat = entry.stat()
            told.append((entry.name, stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def _kept(note: Path) -> Outcome | None:
    try:
        found = json.loads(note.read_text())
        return Outcome(bool(found["is_used"]), str(found["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(note: Path, outcome: Outcome) -> None:
    part = note.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(asdict(outcome)))
    part.replace(note)


def _tried(path: Path, small: Path, threads: int) -> Outcome:
    part = small.with_suffix(f".{os.getpid()}.part")
    try:
        _quantize(path, part)
    except ImportError as error:
        return Outcome(False, f"fp32: int8 needs the package onnx ({error})")
    except Exception as error:
        part.unlink(missing_ok=True)
        return Outcome(False, f"fp32: int8 cannot be made of it ({type(error).__name__}: {str(error)[:200]})")
    part.replace(small)
    session = open_session(path, threads)
    try:
        other = open_session(small, threads)
    except GlowplugError as error:
        return Outcome(False, f"fp32: {error.message}")
    takes = signatures(path, "input", session.get_inputs())
    return _compared(takes, [each.name for each in session.get_outputs()], session, other)


def _quantize(path: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(path))
    # Inner shapes are worked out anew: PyTorch leaves some that its optimizer has made wrong.
    del model.graph.value_info[:]
    # It advises a preparation that needs symbolic shapes, on the root logger.
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(model, str(target), weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)


def _compared(takes: Sequence[Signature], names: Sequence[str], session: Any, other: Any) -> Outcome:
    reason = ""
    for size in SIZES:
        rows = [trial(takes, size, seed) for seed in range(TRIALS)]
        try:
            worst = max(difference(run(session, names, row), run(other, names, row)) for row in rows)
        except InferenceError as error:
            reason = error.message
            continue
        least = [float("inf"), float("inf")]
        for _ in range(ROUNDS):
            for index, each in enumerate((session, other)):
                started = perf_counter()
                run(each, names, rows[0])
                least[index] = min(least[index], perf_counter() - started)
        return decide(worst, *least)
    return Outcome(False, f"fp32: rows for a trial are refused: {reason}")


def difference(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """The largest share, of any output, of the difference's root mean square; infinite for what cannot be compared."""
    return max(
        _share(np.asarray(first), np.asarray(second)) for first, second in zip(expected, found, strict=True)
    )


def _share(expected: Any, found: Any) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(expected, found) else float("inf")
    if np.array_equal(expected, found, equal_nan=True):
        return 0.0
    scale = np.sqrt(np.mean(np.square(expected, dtype=np.float64)))
    apart = np.sqrt(np.mean(np.square(expected - found, dtype=np.float64)))
    share = float(apart / scale) if scale else float("inf")
    return share if np.isfinite(share) else float("inf")


def decide(share: float, fp32_s: float, int8_s: float) -> Outcome:
    """From the difference and the seconds of a row. Pure."""
    said = f"int8 takes {int8_s * 1e3:.2f} ms a row, fp32 {fp32_s * 1e3:.2f}, and differs by {share:.2%}"
    if share > MAX_DIFFERENCE:
        return Outcome(False, f"fp32: {said}, more than {MAX_DIFFERENCE:.0%}")
    if int8_s >= FASTER * fp32_s:
        return Outcome(False, f"fp32: {said}")
    return Outcome(True, said)
