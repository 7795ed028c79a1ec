"""Exports that were made and checked before: a folder each, under a key of the model's content.

A folder appears whole or not at all (it is renamed into place), so that replicas may share the cache. It is looked
for in the cache and beside the model, in `.glowplug`, where `--export` may have put it for good.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from glowplug.errors import StorageError
from glowplug_huggingface.folder import ModelFolder
from glowplug_huggingface.weights import fingerprint

log = logging.getLogger("glowplug.huggingface")

# Changes whenever the exporter does something else with the same folder.
FORMAT = "1"
MODEL, MANIFEST = "model.onnx", "export.json"
BESIDE_MODEL = ".glowplug"
LOCK = ".lock"
# Exports of models that are served no more; starting with one renews it.
MAX_AGE_S = 30 * 86400


@dataclass(frozen=True)
class Export:
    """What was made, and how far it differs from torch. `size` of the file in bytes, to tell one that is cut off."""

    width: int
    size: int
    difference: float
    tolerance: float
    torch: str
    transformers: str


def export_key(folder: ModelFolder, dtype: str) -> str:
    """Of everything that the export is made of; the tokenizer is not."""
    pooling = folder.pooling
    more = (FORMAT, folder.task, pooling.mode, str(pooling.is_normalized), dtype)
    return fingerprint((folder.path / "config.json", *folder.weights), *more)


def places(folder: ModelFolder, cache_dir: Path) -> tuple[Path, ...]:
    """Where to look, in order."""
    return (folder.path / BESIDE_MODEL, cache_dir)


def find_export(roots: Sequence[Path], key: str) -> tuple[Path, Export] | None:
    """The folder and what is known of it; None where there is none, or none that is whole."""
    for root in roots:
        place = root / key
        try:
            export = Export(**json.loads((place / MANIFEST).read_bytes()))
            is_whole = (place / MODEL).stat().st_size == export.size
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError) as error:
            log.warning("the export in %s cannot be used: %s", place, error)
            continue
        if is_whole:
            _renew(place)
            return place, export
        log.warning("the export in %s is cut off", place)
    return None


def _renew(place: Path) -> None:
    try:
        os.utime(place / MANIFEST)
    except OSError:
        log.debug("%s is read-only", place)


@contextmanager
def new_export(root: Path, key: str) -> Iterator[Path]:
    """A folder to fill, which takes its place in the cache at the end, or vanishes after an error.

    Raises StorageError where `root` cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    except OSError as error:
        raise StorageError(
            f"the cache {root} cannot be written: {error.strerror}", hint="--cache_dir names another"
        ) from error
    try:
        yield made
        _put(made, root / key)
        _forget_old(root)
    except OSError as error:
        raise StorageError(f"the export cannot be written to {root}: {error.strerror}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_manifest(place: Path, export: Export) -> None:
    (place / MANIFEST).write_text(json.dumps(asdict(export), indent=1))


def _put(made: Path, place: Path) -> None:
    made.chmod(0o755)
    with (place.parent / LOCK).open("a") as lock:
        # Held for two renames; closing the file lets go.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            made.replace(place)
            return
        # Another replica's, as good as this one; or one that was found broken.
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=place.parent))
        place.replace(old / "export")
        made.replace(place)
    shutil.rmtree(old, ignore_errors=True)


def _forget_old(root: Path) -> None:
    for manifest in root.glob(f"*/{MANIFEST}"):
        try:
            age_s = time.time() - manifest.stat().st_mtime
        except OSError:
            # Another replica was faster.
            continue
        if age_s > MAX_AGE_S:
            log.info("forgetting the export in %s", manifest.parent)
            shutil.rmtree(manifest.parent, ignore_errors=True)
