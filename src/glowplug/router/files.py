"""Files that change whole: a reader sees the old content or the new one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from glowplug.router.layout import MAX_SOCKETS_PATH, Layout


def replace_file(path: Path, content: bytes) -> None:
    """Writes beside `path` and renames, which is also the only change that Envoy notices. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def prepare(directory: Path) -> Layout:
    """Makes the router's folder, empty of what an earlier run told Envoy. Close it with `clear_sockets`."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    is_short = len(os.fsencode(directory)) <= MAX_SOCKETS_PATH
    sockets = directory if is_short else Path(tempfile.mkdtemp(prefix="glowplug-"))
    layout = Layout(directory, sockets)
    shutil.rmtree(layout.xds, ignore_errors=True)
    layout.xds.mkdir()
    shutil.rmtree(layout.uncopied, ignore_errors=True)
    layout.uncopied.mkdir()
    clear_sockets(layout, keep_folder=True)
    return layout


def clear_sockets(layout: Layout, *, keep_folder: bool = False) -> None:
    """Removes the sockets, and their folder where it is one of their own."""
    for path in (
        layout.admin,
        layout.probe,
        layout.endpoints,
        layout.admission,
        layout.copies,
        layout.payloads,
        layout.shadow,
    ):
        path.unlink(missing_ok=True)
    if layout.sockets != layout.directory and not keep_folder:
        shutil.rmtree(layout.sockets, ignore_errors=True)
