"""One run of a pipeline: its id, its folder, and the journal of its steps, from the event that asked for it on.

    <work_dir>/<model>/<id>/
      request.json      what was asked: the window, the trigger; never changed
      status.json       running, finished or failed, with the reason
      <step>/           what the step made
      <step>.json       its outcome, written last: a step without one was not done
      lock              held (flock) by the process that works on the run

A step is done again only where what it was made from has changed. Its folder appears by rename and its outcome after
it, so a kill at any moment leaves a step done or not done; the next process with the same id goes on behind the last
one that is done. Nothing outside the folder is needed, so a folder that is copied goes on elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from glowplug.errors import ConfigError, DataDirHeld, StorageError
from glowplug_pipelines.settings import Span

_REQUEST = "request.json"
_STATUS = "status.json"
_ROOM = "is there room on the disk? the same run goes on where it stopped"
Values = Mapping[str, Any]
"""What JSON has."""


@dataclass(frozen=True)
class Trigger:
    """What asked for a run: the CloudEvent's type, id and source."""

    type: str = "dev.glowplug.retraining.requested"
    id: str = ""
    source: str = "/glowplug/cli"


@dataclass(frozen=True)
class Request:
    """What a run is asked for. `span` is the whole window, held-out time included."""

    id: str
    model: str
    span: Span
    trigger: Trigger = field(default_factory=Trigger)

    def to_json(self) -> dict[str, Any]:
        span = {"from": self.span.start.isoformat(), "to": self.span.stop.isoformat()}
        return {"id": self.id, "model": self.model, "window": span, "trigger": asdict(self.trigger)}

    @classmethod
    def from_json(cls, values: Values) -> Request:
        window = values["window"]
        span = Span(datetime.fromisoformat(window["from"]), datetime.fromisoformat(window["to"]))
        return cls(values["id"], values["model"], span, Trigger(**values["trigger"]))


@dataclass(frozen=True)
class Outcome:
    """What a step came to. `inputs` is what it was made from; `digest` of both, for the steps that follow."""

    step: str
    inputs: Values
    values: Values
    folder: Path
    seconds: float
    was_there: bool = False

    @property
    def digest(self) -> str:
        content = json.dumps([self.step, self.inputs, self.values], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Status:
    """`state` is running, finished or failed; `details` what a finished run came to: verdict, version, …"""

    state: str
    step: str = ""
    reason: str = ""
    hint: str = ""
    updated: str = ""
    details: Values = field(default_factory=dict)


class Run:
    """Made by `open_run`, which holds its lock. Threads may do different steps at a time."""

    def __init__(self, folder: Path, request: Request) -> None:
        self.folder = folder
        self.request = request
        self._has_failed = False
        self._reporting = threading.Lock()

    def step(self, name: str, inputs: Values, make: Callable[[Path], Values]) -> Outcome:
        """The outcome of step `name`: the one that is there if it was made from `inputs`, else what `make` comes to.

        `make` gets an empty folder for its files and returns its values. What it raises is written into the status,
        and goes on.
        """
        there = self.outcome(name)
        if there is not None and dict(there.inputs) == _plain(inputs):
            return there
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        self.report(Status("running", name))
        draft = self._empty(f".{name}.draft")
        started = time.monotonic()
        try:
            values = _plain(make(draft))
        except Exception as error:
            # Its room may be what the status needs.
            shutil.rmtree(draft, ignore_errors=True)
            self._report_failure(name, error)
            # A full disk has many faces: numpy's "17280 requested and 4968 written" has no errno.
            if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)):
                raise StorageError(f"the step {name} of {self.folder}: {error}", hint=_ROOM) from error
            raise
        seconds = round(time.monotonic() - started, 3)
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        _flush_below(draft)
        draft.rename(folder)
        outcome = Outcome(name, _plain(inputs), values, folder, seconds)
        record = {"step": name, "inputs": outcome.inputs, "values": values, "seconds": seconds}
        write_atomically(self.folder / f"{name}.json", record)
        return outcome

    def outcome(self, name: str) -> Outcome | None:
        """What the step came to, if it is done."""
        record = _read(self.folder / f"{name}.json")
        if record is None:
            return None
        folder = self.folder / name
        return Outcome(name, record["inputs"], record["values"], folder, record["seconds"], was_there=True)

    def need(self, name: str) -> Outcome:
        """Raises `ConfigError` where the step is not done."""
        outcome = self.outcome(name)
        if outcome is None:
            raise ConfigError(
                f"run {self.request.id} of model {self.request.model} has no outcome of the step {name}",
                hint=f"glowplug pipelines {name} --run {self.request.id}",
            )
        return outcome

    def report(self, status: Status) -> None:
        """Write the run's status, with the time. A failure stays until the run is opened again."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with self._reporting:
            if not self._has_failed:
                write_atomically(self.folder / _STATUS, {**asdict(status), "updated": now})
            self._has_failed = self._has_failed or status.state == "failed"

    def _report_failure(self, name: str, error: Exception) -> None:
        reason = getattr(error, "message", "") or f"{type(error).__name__}: {error}"
        # Where not even this can be written, what went wrong first is still what is raised.
        with suppress(StorageError):
            self.report(Status("failed", name, reason, getattr(error, "hint", "")))

    @property
    def status(self) -> Status:
        return read_status(self.folder) or Status("running")

    def _empty(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def run_folder(work_dir: Path, model: str, run_id: str) -> Path:
    """Where a run lies. Raises `ConfigError` for an id that is no name of a folder."""
    if not run_id or run_id.startswith(".") or "/" in run_id or "\0" in run_id:
        raise ConfigError(f"run id {run_id!r} must be the name of a folder")
    return work_dir / model / run_id


@contextmanager
def open_run(work_dir: Path, request: Request) -> Iterator[Run]:
    """The run with the request's id, made if it is not there; one that is there keeps its own request.

    Raises `DataDirHeld` while another process works on it.
    """
    folder = run_folder(work_dir, request.model, request.id)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirHeld(
                f"run {request.id} of model {request.model}: another process works on it"
            ) from error
        written = _read(folder / _REQUEST)
        if written is None:
            write_atomically(folder / _REQUEST, request.to_json())
        yield Run(folder, request if written is None else Request.from_json(written))


def read_request(work_dir: Path, model: str, run_id: str) -> Request:
    """What an earlier process asked for. Raises `ConfigError` where there is no such run."""
    folder = run_folder(work_dir, model, run_id)
    written = _read(folder / _REQUEST)
    if written is None:
        raise ConfigError(
            f"{folder} is no run of model {model}", hint="glowplug pipelines dataset starts one"
        )
    return Request.from_json(written)


def read_status(folder: Path) -> Status | None:
    """A run's status, without its lock; None for a folder that is no run."""
    written = _read(folder / _STATUS)
    return None if written is None else Status(**written)


def write_atomically(path: Path, values: Values) -> None:
    """JSON at `path`: after a kill or a power cut the old content or the new."""
    write_bytes(path, json.dumps(values, indent=2, sort_keys=True).encode() + b"\n")


def write_bytes(path: Path, content: bytes) -> None:
    """`content` at `path`, by rename, flushed. Raises `StorageError`; then what was there is as it was."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _flush(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}", hint=_ROOM) from error


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}", hint="remove the run's folder") from error
    return content


def _plain(values: Values) -> dict[str, Any]:
    """As JSON gives it back, so that what was written compares equal to what is asked."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _flush_below(folder: Path) -> None:
    for path in folder.rglob("*"):
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
