"""The weights of a model folder: safetensors files only, whole, and a key that changes whenever they do.

A pickle (.bin, .pt) runs whatever code its author put in when it is read, so none is ever opened. Of a safetensors
file (https://github.com/huggingface/safetensors#format: 8 bytes of length, a JSON header, the data) the sizes that the
header claims are compared with the file's before anything is read into memory.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glowplug.errors import StorageError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# The format's own limit.
MAX_HEADER_BYTES = 100 * 10**6
CHUNK_BYTES = 2**22


def find_weights(place: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder, checked. Raises StorageError."""
    if (place / SINGLE).is_file():
        files: tuple[Path, ...] = (place / SINGLE,)
    elif (place / INDEX).is_file():
        files = _shards(place)
    else:
        raise _without(place)
    for path in files:
        _check(path)
    return files


def _without(place: Path) -> StorageError:
    names = sorted(path.name for path in place.iterdir() if path.is_file())
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        return StorageError(
            f"{place} has its weights in a pickle ({pickles[0]}), which is not read: loading one runs code",
            hint="model.save_pretrained(folder, safe_serialization=True) writes model.safetensors",
        )
    there = ", ".join(names[:10]) or "nothing"
    return StorageError(f"{place} holds no {SINGLE}; it holds {there}", hint="copy the whole model folder")


def _shards(place: Path) -> tuple[Path, ...]:
    path = place / INDEX
    document = read_json(path)
    mapping = document.get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
        raise StorageError(f"{path} has no weight_map of file names")
    names = sorted(set(mapping.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise StorageError(
                f"{path} names {name[:80]!r}, expected safetensors files beside it",
                hint="copy the whole model folder",
            )
        if not (place / name).is_file():
            raise StorageError(
                f"{place / name} is missing, which {INDEX} names", hint="copy the whole folder"
            )
    if not names:
        raise StorageError(f"{path} names no files")
    return tuple(place / name for name in names)


def _check(path: Path) -> None:
    """Raises StorageError where the file is none, or not as long as its header says."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise StorageError(
                    f"{path} is no safetensors file, or is cut off ({size} bytes)", hint="copy it again"
                )
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise StorageError(
            f"{path} has a header that is not safetensors' ({error!r})", hint="copy it again"
        ) from error
    if expected != size:
        raise StorageError(
            f"{path} has {size} bytes, its header says {expected}: it is cut off", hint="copy it again"
        )


def read_json(path: Path) -> dict[str, Any]:
    """An object in a file. Raises StorageError."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StorageError(f"{path} is not JSON: {error}", hint="copy it again") from error
    if not isinstance(document, dict):
        raise StorageError(f"{path} is no JSON object")
    return document


def fingerprint(paths: Iterable[Path], *more: str) -> str:
    """SHA-256 of the files' content and of `more`, in hex: 1.5 GB/s where the CPU has instructions for it.

    The content, not the time of change: a fine-tuned model differs from its parent in a few bytes, and a copy may
    have its parent's time.
    """
    digest = hashlib.sha256(repr(more).encode())
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size};".encode())
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(view[:count])
    return digest.hexdigest()
