"""`storageUri` → a directory of this computer that stands for /mnt/models.

Decisions:

- `file://`, an absolute path, and `pvc://<claim>/<path>` (`<data-dir>/volumes/<namespace>/<claim>/<path>`) are live:
  the directory itself is used, nothing is copied, and a changed file is seen by the next process that reads it. A
  single file is linked into a directory of its own. A local `.tar`, `.tar.gz`, `.tgz` or `.zip` is unpacked as KServe
  does, and again when the file's size or time changes.
- Everything else goes through `kserve-storage`, once for each (URI, revision): all pods of a revision serve the same
  bytes, also after a restart of the machine, which a cluster does not promise. A new revision looks again. What it
  gets is kept by content (`models/content/<sha256>`), so an unchanged model is stored once. For Hugging Face the last
  content is laid under the download by hard links, so that only changed files come over the network.
- A download goes to `models/tmp/` and is renamed when it is complete; a machine that is killed leaves nothing that
  looks like a model. One download at a time for a URI; who waits finds it done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import mimetypes
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anyio

from glowplug.errors import StorageError
from glowplug.supervisor.download import DIGEST, NOT_MODEL
from glowplug.supervisor.log_lines import LineSplitter
from glowplug.supervisor.process import Launcher

Report = Callable[[bytes], None]

_FILE, _PVC, _HF = "file://", "pvc://", "hf://"
SCHEMES = ("file", "pvc", "s3", "gs", "http", "https", "hf", "hdfs", "webhdfs", "modelscope", "oci")
_ARCHIVES = ("application/x-tar", "application/zip")
_LAST_LINES = 5


class Storage:
    """Brings models here. `env` is what downloads run with: the machine's own, credentials and endpoints included."""

    def __init__(
        self,
        data_dir: Path,
        python: str,
        env: Mapping[str, str],
        machine_path: Path,
        timeout_s: float = 3600.0,
    ) -> None:
        self._models = data_dir.resolve() / "models"
        self._volumes = data_dir.resolve() / "volumes"
        self._python = python
        self._env = {**env, "PYTHONPATH": str(machine_path), "PYTHONUNBUFFERED": "1"}
        self._timeout_s = timeout_s
        self._locks: dict[str, asyncio.Lock] = {}

    def clear_partial(self) -> None:
        """Remove what a killed machine was downloading."""
        shutil.rmtree(self._models / "tmp", ignore_errors=True)

    async def fetch(
        self,
        uri: str,
        namespace: str,
        revision: str,
        launcher: Launcher,
        report: Report,
        credentials: Mapping[str, str] | None = None,
    ) -> Path:
        """The directory with the model. `revision` is any stable name of the revision's life; `report` gets output.

        `credentials` are variables that a download has besides the machine's own.

        Raises StorageError that names the URI, what is wrong, and what to do.
        """
        path = self.local_path(uri, namespace)
        if path is None:
            _check_scheme(uri)
            return await self._fetch_once(uri, uri, revision, launcher, report, credentials)
        _check_exists(uri, path)
        if path.is_dir():
            return path
        if mimetypes.guess_type(path.name)[0] in _ARCHIVES:
            stat = path.stat()
            version = f"{stat.st_size}-{stat.st_mtime_ns}"
            return await self._fetch_once(uri, _FILE + str(path), version, launcher, report)
        return self._linked(path)

    def local_path(self, uri: str, namespace: str) -> Path | None:
        """Where a local URI leads, or None for a remote one."""
        if uri.startswith(_FILE):
            return Path(uri[len(_FILE) :])
        if uri.startswith("/"):
            return Path(uri)
        if uri.startswith(_PVC):
            claim, _, below = uri[len(_PVC) :].partition("/")
            if not claim or claim in (".", "..") or ".." in below.split("/"):
                raise StorageError(f"{uri}: must be pvc://<claim>/<path>")
            return self._volumes / namespace / claim / below
        return None

    def _linked(self, path: Path) -> Path:
        folder = self._models / "links" / _key(str(path))
        link = folder / path.name
        if not link.is_symlink():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            link.symlink_to(path)
        return folder

    async def _fetch_once(
        self,
        uri: str,
        source: str,
        version: str,
        launcher: Launcher,
        report: Report,
        credentials: Mapping[str, str] | None = None,
    ) -> Path:
        async with self._locks.setdefault(uri, asyncio.Lock()):
            reference = self._models / "refs" / _key(uri) / _key(version)
            found = self._content(reference)
            if found is not None:
                report(f"{shown(uri)}: already here, {found}\n".encode())
                return found
            env = {**self._env, **(credentials or {})}
            folder, digest = await self._download(uri, source, env, launcher, report)
            content = self._models / "content" / digest
            await anyio.to_thread.run_sync(_move_in, folder, content)
            _write_reference(reference, uri, digest)
            return content

    def _content(self, reference: Path) -> Path | None:
        try:
            digest = json.loads(reference.read_bytes())["digest"]
        except (OSError, ValueError, KeyError):
            return None
        content = self._models / "content" / digest
        return content if content.is_dir() else None

    async def _download(
        self, uri: str, source: str, env: Mapping[str, str], launcher: Launcher, report: Report
    ) -> tuple[Path, str]:
        partial = self._models / "tmp"
        partial.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(dir=partial))
        try:
            if uri.startswith(_HF):
                await anyio.to_thread.run_sync(self._seed, uri, folder)
            return folder, await self._run(uri, source, folder, env, launcher, report)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def _run(
        self, uri: str, source: str, folder: Path, env: Mapping[str, str], launcher: Launcher, report: Report
    ) -> str:
        splitter = LineSplitter()
        # Only the end is looked at; progress bars are long.
        lines: deque[str] = deque(maxlen=_LAST_LINES + 1)

        def on_output(data: bytes, is_end: bool = False) -> None:
            for raw, _ in splitter.flush() if is_end else splitter.feed(data):
                text = redacted(raw.decode("utf-8", "replace"), uri)
                lines.extend([text.strip()] if text.strip() else [])
                report(text.encode() + b"\n")

        argv = [self._python, "-m", "glowplug.supervisor.download", source, str(folder)]
        process = launcher.start(argv, env, str(self._models), on_output)
        try:
            with anyio.move_on_after(self._timeout_s) as scope:
                code = await process.wait()
        finally:
            if process.is_running:
                process.kill()
                with anyio.CancelScope(shield=True):
                    await process.wait()
        on_output(b"", is_end=True)
        if scope.cancelled_caught:
            raise StorageError(f"{shown(uri)}: not here after {self._timeout_s:g} s", hint=_hint(uri))
        if code != 0 or not lines or not lines[-1].startswith(DIGEST):
            last = "\n".join(list(lines)[-_LAST_LINES:]) or "no output"
            raise StorageError(f"{shown(uri)}: download failed (exit code {code}): {last}", hint=_hint(uri))
        return lines[-1][len(DIGEST) :]

    def _seed(self, uri: str, folder: Path) -> None:
        """Hard links to the newest content of `uri`; the client replaces files, it never writes into one."""
        references = (self._models / "refs" / _key(uri)).glob("*")
        newest = max(references, key=lambda each: each.stat().st_mtime, default=None)
        content = self._content(newest) if newest else None
        if content is not None:
            with contextlib.suppress(OSError):
                shutil.copytree(content, folder, copy_function=_link_or_copy, dirs_exist_ok=True)


def shown(uri: str) -> str:
    """`uri` without what may be secret: user, password, query."""
    return re.sub(r"\?.*", "?…", re.sub(r"://[^/@]*@", "://…@", uri))


def redacted(text: str, uri: str) -> str:
    """`text` with every mention of `uri`, or of its query, as `shown` has it."""
    query = urlsplit(uri).query
    text = text.replace(uri, shown(uri))
    return text.replace(query, "…") if query else text


def _check_scheme(uri: str) -> None:
    if urlsplit(uri).scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise StorageError(
            f"{shown(uri)}: not a storageUri that is known, known are {known} and absolute paths"
        )


def _check_exists(uri: str, path: Path) -> None:
    if path.exists():
        if path.is_dir() and not any(path.iterdir()):
            raise StorageError(f"{uri}: {path} is empty", hint=f"put the model's files into {path}")
        return
    above = path
    while not above.exists():
        above = above.parent
    there = ", ".join(sorted(os.listdir(above))[:10]) if above.is_dir() else "a file"
    raise StorageError(
        f"{uri}: {path} does not exist ({above} does, and holds: {there or 'nothing'})",
        hint=f"put the model there, or correct storageUri{_percent_hint(uri)}",
    )


def _percent_hint(uri: str) -> str:
    return "; %-escapes are taken literally" if unquote(uri) != uri else ""


def _hint(uri: str) -> str:
    if uri.startswith("s3://"):
        return (
            "the Secrets of the pod's ServiceAccount are used, and the machine's AWS_ACCESS_KEY_ID,"
            " AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL"
        )
    if uri.startswith("gs://"):
        return "the machine's GOOGLE_APPLICATION_CREDENTIALS is used"
    if uri.startswith(_HF):
        return "the machine's HF_TOKEN and HF_ENDPOINT are used; the form is hf://owner/model[:revision]"
    return "check the address, and that this computer reaches it"


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _link_or_copy(source: str, target: str) -> None:
    """A client's bookkeeping is written in place, so it must not be shared; a model's files are."""
    if any(part in NOT_MODEL for part in Path(source).parts):
        shutil.copy2(source, target)
    else:
        os.link(source, target)


def _move_in(folder: Path, content: Path) -> None:
    """Make `folder` visible as `content`, in one step; the same bytes may already be there.

    Its files are shared by all pods that serve them, so nobody may write to them, as in a cluster.
    """
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).parts[0] not in NOT_MODEL:
            path.chmod(0o444)
    content.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        folder.rename(content)
    except OSError:
        if not content.is_dir():
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _write_reference(reference: Path, uri: str, digest: str) -> None:
    reference.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = reference.with_suffix(".tmp")
    partial.write_text(json.dumps({"uri": shown(uri), "digest": digest}))
    partial.replace(reference)
