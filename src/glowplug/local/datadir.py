"""The machine's one directory: what lies where, who holds it, and what a holder says of itself.

The holder is whoever has the lock on `lock`; the operating system releases it when the process ends in whatever
way, so a directory left by a crash is simply free.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glowplug.errors import ConfigError, DataDirHeld

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class DataDir:
    """The paths below `root`, an absolute path."""

    root: pathlib.Path

    @classmethod
    def at(cls, path: pathlib.Path) -> DataDir:
        """The data directory at `path`, which need not exist."""
        return cls(path.expanduser().absolute())

    @property
    def kubeconfig(self) -> pathlib.Path:
        """For kubectl; mode 0600, it holds the token."""
        return self.root / "kubeconfig"

    @property
    def log(self) -> pathlib.Path:
        """What a detached machine prints."""
        return self.root / "machine.log"

    @property
    def description(self) -> pathlib.Path:
        """What the running machine says of itself."""
        return self.root / "machine.json"

    @property
    def envoy(self) -> pathlib.Path:
        """The router's files."""
        return self.root / "envoy"

    def create(self) -> None:
        """Make the directory, for its owner only."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise self.unusable(error) from error

    def unusable(self, error: OSError) -> ConfigError:
        """What to tell of `error`, met on a path below `root` while the machine starts."""
        path = error.filename2 or error.filename or self.root
        if error.errno in _NO_ROOM:
            hint = "free some space on that disk"
        elif error.errno in _NOT_ALLOWED:
            hint = "name a folder that you may write with --data-dir"
        else:
            hint = f"move {path} away, or name another --data-dir"
        return ConfigError(
            f"the data directory {self.root} cannot be used: {path}: {error.strerror or error}", hint=hint
        )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory for the block; DataDirHeld names the process that has it already."""
        self.create()
        try:
            # Close-on-exec is Python's default, so no child keeps the lock of a machine that died.
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self.unusable(error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                raise self._held_error(os.pread(descriptor, 32, 0)) from error
            self._sign(descriptor)
            yield
            self.description.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _sign(self, descriptor: int) -> None:
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError as error:
            raise self.unusable(error) from error

    def holder(self) -> int | None:
        """The process id of the machine that holds the directory, or None."""
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _pid(os.pread(descriptor, 32, 0))
        finally:
            os.close(descriptor)
        return None

    def describe(self, description: dict[str, Any]) -> None:
        """Write what the machine says of itself, whole or not at all."""
        beside = self.description.with_suffix(".tmp")
        beside.write_text(json.dumps(description, indent=2) + "\n")
        beside.replace(self.description)

    def described(self) -> dict[str, Any] | None:
        """What the machine that holds the directory says of itself; None while it does not run or is not up yet."""
        if self.holder() is None:
            return None
        try:
            description: dict[str, Any] = json.loads(self.description.read_text())
        except (OSError, ValueError):
            return None
        return description

    def _held_error(self, content: bytes) -> DataDirHeld:
        pid = _pid(content)
        return DataDirHeld(
            f"the data directory {self.root} is held by the machine with process id {pid or 'unknown'}",
            hint=f"use it as it is, stop it with `glowplug down --data-dir {self.root}`, or name another --data-dir",
        )


def _pid(content: bytes) -> int | None:
    text = content.decode(errors="replace").strip("\0 \n")
    return int(text) if text.isdigit() else None
