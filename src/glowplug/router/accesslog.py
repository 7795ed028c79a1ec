"""Bounds the access log: past a size it is renamed, and Envoy goes on in a new file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import anyio

_log = logging.getLogger(__name__)


async def keep_bounded(path: Path, *, max_bytes: int, interval_s: float, reopen: Callable[[], None]) -> None:
    """Keeps `path` and `path`.1, each of about `max_bytes` at most, until cancelled."""
    while True:
        await anyio.sleep(interval_s)
        try:
            rotate(path, max_bytes=max_bytes, reopen=reopen)
        except OSError as error:
            _log.warning("the access log %s could not be rotated: %s", path, error)


def rotate(path: Path, *, max_bytes: int, reopen: Callable[[], None]) -> bool:
    """Renames the log if it is larger than `max_bytes`; whether it did. Raises OSError."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    if size <= max_bytes:
        return False
    os.replace(path, path.with_name(path.name + ".1"))
    reopen()
    return True
