"""Which backend serves a folder: a cached export, a new one, or eager torch with the reason in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from glowplug.errors import GlowplugError, StorageError
from glowplug.serving import onnx_form
from glowplug.serving.onnx_form import Forms
from glowplug_huggingface.cache import MODEL, Export, export_key, find_export, places
from glowplug_huggingface.eager import OFFLINE, TorchBackend
from glowplug_huggingface.export import Job
from glowplug_huggingface.folder import ModelFolder
from glowplug_huggingface.parity import Backend
from glowplug_huggingface.session import OnnxBackend
from glowplug_huggingface.settings import AUTO, TORCH, TextConfig

log = logging.getLogger("glowplug.huggingface")


async def open_backend(folder: ModelFolder, config: TextConfig) -> Backend:
    """Raises GlowplugError where no backend that the configuration allows can serve the folder."""
    if config.backend == TORCH:
        return TorchBackend(folder, config.threads)
    try:
        return await _open_onnx(folder, config)
    except GlowplugError as error:
        # int8 was asked for, and torch is not that.
        if config.backend != AUTO or config.dtype != TextConfig.dtype:
            raise
        hint = f" (hint: {error.hint})" if error.hint else ""
        log.warning("served by eager torch, not by onnxruntime: %s%s", error.message, hint)
        try:
            return TorchBackend(folder, config.threads)
        except GlowplugError as second:
            raise second from error


async def _open_onnx(folder: ModelFolder, config: TextConfig) -> Backend:
    try:
        return _opened(*await asyncio.to_thread(exported, folder, config), config)
    except UnusableExport as error:
        log.warning("%s; it is made again", error.message)
    return _opened(*await asyncio.to_thread(exported, folder, config, is_anew=True), config)


class UnusableExport(StorageError):
    """It was whole when it was made, and another one may be."""


def exported(folder: ModelFolder, config: TextConfig, *, is_anew: bool = False) -> tuple[Path, Export]:
    """The folder of the export, which is made if it is not there yet. Raises StorageError or ConfigError."""
    key = export_key(folder, config.dtype)
    found = None if is_anew else find_export(places(folder, config.cache_dir), key)
    if found is None:
        export_apart(folder, config)
        found = find_export((config.cache_dir,), key)
    if found is None:
        raise StorageError(f"the export is not in {config.cache_dir} any more")
    return found


def _opened(place: Path, export: Export, config: TextConfig) -> Backend:
    try:
        forms = onnx_form.cache_folder(os.environ, "onnx-forms")
        made = OnnxBackend(place / MODEL, config.threads, Forms(forms, config.threads) if forms else None)
    except StorageError as error:
        raise UnusableExport(error.message) from error
    log.info(
        "%s: %s, %d threads; differs from torch by %.1g (at most %g)",
        place / MODEL, config.dtype, config.threads, export.difference, export.tolerance,
    )  # fmt: skip
    return made


def export_apart(folder: ModelFolder, config: TextConfig) -> None:
    """Runs `export.py` in a process of its own. Raises StorageError with its reason."""
    job = Job(
        model_dir=str(folder.path),
        task=folder.task,
        dtype=config.dtype,
        max_length=bounded(folder, config).max_length,
        threads=config.threads,
        cache_dir=str(config.cache_dir),
    )
    log.info("exporting %s to ONNX, once; this imports torch", folder.path)
    started = time.monotonic()
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "glowplug_huggingface.export", json.dumps(asdict(job))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, **OFFLINE, "PYTHONSAFEPATH": "1"},
            timeout=config.export_timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StorageError(f"the export took more than {config.export_timeout_s:g} s") from error
    try:
        answer = json.loads(ran.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise StorageError(
            f"the export ended with code {ran.returncode} and no result", hint="its last words are above"
        ) from error
    if "error" in answer:
        raise StorageError(answer["error"], hint=answer["hint"])
    log.info("exported in %.1f s", time.monotonic() - started)


def bounded(folder: ModelFolder, config: TextConfig) -> TextConfig:
    """The configuration with a `max_length` that the model has positions for."""
    longest = folder.max_positions
    if longest is None or config.max_length <= longest:
        return config
    log.warning("--max_length=%d, but the model takes %d tokens at most", config.max_length, longest)
    return replace(config, max_length=longest)
