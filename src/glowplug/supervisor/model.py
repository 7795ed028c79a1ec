"""The storage-initializer of a pod: brings its model here, and shows itself as KServe's init container does.

KServe reads a failed download from this container's status, so the words and states are those of its init container.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from glowplug.errors import GlowplugError, StorageError
from glowplug.spec import names
from glowplug.supervisor.backoff import ALWAYS, History, Restart, Run, decide
from glowplug.supervisor.containers import PodContext
from glowplug.supervisor.failures import CRASH_LOOP
from glowplug.supervisor.status import Running, Snapshot, Terminated, Waiting
from glowplug.supervisor.storage import Storage


class ModelInitializer:
    """`run` until the model is here. `snapshot` is its container status."""

    def __init__(
        self,
        pod: Mapping[str, Any],
        uri: str,
        storage: Storage,
        context: PodContext,
        credentials: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.snapshot = Snapshot(names.STORAGE_INITIALIZER, "kserve/storage-initializer")
        self._pod = pod
        self._uri = uri
        self._storage = storage
        self._context = context
        # Read for each try: who has forgotten a Secret adds it, and the next try has it.
        self._credentials = credentials

    async def run(self) -> Path:
        """The model's directory; failures are shown, and tried again after a back-off."""
        history = History()
        while True:
            started_at = time.time()
            self._show(state=Running(started_at), is_started=True)
            message, folder = await self._try()
            code = 0 if folder else 1
            end = Terminated(code, "Error" if code else "Completed", message, started_at, time.time())
            self._show(state=end, is_ready=code == 0, is_started=False)
            if folder is not None:
                return folder
            run = Run(code, end.finished_at - started_at, was_ready=False)
            history, decision = decide(self._context.backoff, ALWAYS, history, run)
            assert isinstance(decision, Restart)
            self._show(state=Waiting(CRASH_LOOP, f"back-off {decision.after_s:g}s: {message}"), last=end)
            self._context.event("Warning", "BackOff", f"Model could not be loaded: {message}")
            await anyio.sleep(decision.after_s)
            self._show(restart_count=self.snapshot.restart_count + 1)

    async def _try(self) -> tuple[str, Path | None]:
        metadata = self._pod["metadata"]
        log = self._context.logs.open(self.snapshot.name, self.snapshot.restart_count)
        try:
            folder = await self._storage.fetch(
                self._uri,
                metadata["namespace"],
                revision_of(metadata),
                self._context.launcher,
                log.write,
                self._credentials(),
            )
        except GlowplugError as error:
            message = f"{error.message} (hint: {error.hint})" if error.hint else error.message
            log.write(message.encode() + b"\n")
            return message, None
        except OSError as error:
            return f"{StorageError.__name__}: {error}", None
        finally:
            log.close()
        return "", folder

    def _show(self, **changes: object) -> None:
        self.snapshot = replace(self.snapshot, **changes)  # type: ignore[arg-type]
        self._context.changed()


def revision_of(metadata: Mapping[str, Any]) -> str:
    """What all pods of one revision share: its uid, as a deleted revision's name may be used again."""
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner["uid"])
    return str(metadata["uid"])
