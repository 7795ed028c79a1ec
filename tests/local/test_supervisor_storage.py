"""storageUri to a directory: live local ones, real downloads by kserve-storage, and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from unit.supervisor.machine import Machine, a_pod, echo, running

from glowplug.errors import StorageError
from glowplug.spec import names
from glowplug.spec.kinds import POD
from glowplug.supervisor.config import MACHINE_PATH
from glowplug.supervisor.guard import Guard
from glowplug.supervisor.process import Launcher
from glowplug.supervisor.storage import Storage, shown


class Remote:
    """A web server with models; counts requests, and can hold an answer back."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.url = ""


@pytest.fixture
def remote() -> Iterator[Remote]:
    state = Remote()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            state.requests.append(path)
            state.asked.set()
            body = state.files.get(path)
            self.send_response(404 if body is None else 200)
            kind = "application/x-tar" if path.endswith((".tar", ".gz")) else "application/octet-stream"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write((body or b"")[:1])
                state.gate.wait(10)
                self.wfile.write((body or b"")[1:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    state.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.contextmanager
def launcher(tmp_path) -> Iterator[Launcher]:
    guard = Guard(sys.executable, tmp_path / "groups", "test")
    guard.start()
    try:
        yield Launcher(guard)
    finally:
        guard.close()


def new_storage(tmp_path, **settings) -> Storage:
    env = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    return Storage(tmp_path / "data", sys.executable, env, MACHINE_PATH, **settings)


async def test_local_addresses_are_used_in_place(tmp_path):
    storage = new_storage(tmp_path)
    model = tmp_path / "flights"
    model.mkdir()
    (model / "model.ubj").write_bytes(b"a model")
    claim = tmp_path / "data" / "volumes" / "team" / "models"
    claim.mkdir(parents=True)
    (claim / "flights").symlink_to(model)
    with launcher(tmp_path) as launch:
        for uri in (f"file://{model}", str(model)):
            assert await storage.fetch(uri, "team", "r1", launch, print) == model
        found = await storage.fetch("pvc://models/flights", "team", "r1", launch, print)
        assert found.resolve() == model
        single = await storage.fetch(f"file://{model}/model.ubj", "team", "r1", launch, print)
        assert os.listdir(single) == ["model.ubj"]
        (model / "model.ubj").write_bytes(b"a newer model")
        assert (single / "model.ubj").read_bytes() == b"a newer model"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (
            "pvc://models/flight",
            r"pvc://models/flight: .*/volumes/team/models/flight does not exist .*holds: flights",
        ),
        ("pvc://nothing/here", r"pvc://nothing/here: .*holds: models"),
        ("pvc://models/../../other", "must be pvc://<claim>/<path>"),
        ("file:///no/such/model", "file:///no/such/model: /no/such/model does not exist"),
        ("ftp://host/model", "ftp://host/model: not a storageUri that is known, known are .*s3://"),
    ],
)
async def test_a_missing_model_names_the_address_and_the_path(tmp_path, uri, expected):
    (tmp_path / "data" / "volumes" / "team" / "models" / "flights").mkdir(parents=True)
    with launcher(tmp_path) as launch, pytest.raises(StorageError, match=expected):
        await new_storage(tmp_path).fetch(uri, "team", "r1", launch, print)


async def test_a_download_happens_once_for_a_revision(tmp_path, remote):
    remote.files["/m/model.ubj"] = b"first"
    uri = f"{remote.url}/m/model.ubj"
    storage = new_storage(tmp_path)
    with launcher(tmp_path) as launch:
        found = await asyncio.gather(*(storage.fetch(uri, "team", "r1", launch, print) for _ in range(5)))
        assert len(set(found)) == 1 and (found[0] / "model.ubj").read_bytes() == b"first"
        assert remote.requests == ["/m/model.ubj"]
        remote.files["/m/model.ubj"] = b"second"
        again = await new_storage(tmp_path).fetch(uri, "team", "r1", launch, print)
        assert again == found[0], "a revision keeps its bytes, also after a restart"
        newer = await storage.fetch(uri, "team", "r2", launch, print)
        assert (newer / "model.ubj").read_bytes() == b"second"
        remote.files["/m/model.ubj"] = b"first"
        assert await storage.fetch(uri, "team", "r3", launch, print) == found[0], "kept by content"
        assert (newer / "model.ubj").stat().st_mode & 0o222 == 0, "pods share it"
    assert not list((tmp_path / "data" / "models" / "tmp").iterdir())


async def test_the_last_content_is_laid_under_the_next_download(tmp_path, remote):
    remote.files["/m/model.ubj"] = b"first"
    uri = f"{remote.url}/m/model.ubj"
    storage = new_storage(tmp_path)
    with launcher(tmp_path) as launch:
        content = await storage.fetch(uri, "team", "r1", launch, print)
    (content / ".cache").mkdir()
    (content / ".cache" / "etag").write_text("one")
    storage._seed(uri, tmp_path / "next")
    assert (tmp_path / "next" / "model.ubj").stat().st_ino == (content / "model.ubj").stat().st_ino
    (tmp_path / "next" / ".cache" / "etag").write_text("two")
    assert (content / ".cache" / "etag").read_text() == "one"


async def test_archives_are_unpacked(tmp_path, remote):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("model.ubj")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"bytes"))
    (tmp_path / "model.tar.gz").write_bytes(buffer.getvalue())
    with launcher(tmp_path) as launch:
        found = await new_storage(tmp_path).fetch(
            f"file://{tmp_path}/model.tar.gz", "team", "r1", launch, print
        )
        assert (found / "model.ubj").read_bytes() == b"bytes"


async def test_a_failed_download_says_why_without_secrets(tmp_path, remote):
    uri = f"{remote.url}/m/none.bin?X-Amz-Signature=secret"
    reported: list[bytes] = []
    with launcher(tmp_path) as launch, pytest.raises(StorageError) as caught:
        await new_storage(tmp_path).fetch(uri, "team", "r1", launch, reported.append)
    assert caught.value.message.startswith(f"{remote.url}/m/none.bin?…: download failed (exit code 1)")
    assert "not found" in caught.value.message
    assert "secret" not in caught.value.message + b"".join(reported).decode()
    assert any(b"Copying" in each for each in reported)
    assert caught.value.hint


async def test_a_download_that_is_cut_off_leaves_nothing(tmp_path, remote):
    remote.files["/m/model.ubj"] = b"0123456789"
    remote.gate.clear()
    storage = new_storage(tmp_path)
    uri = f"{remote.url}/m/model.ubj"
    with launcher(tmp_path) as launch:
        first = asyncio.create_task(storage.fetch(uri, "team", "r1", launch, print))
        second = asyncio.create_task(storage.fetch(uri, "team", "r1", launch, print))
        assert await asyncio.to_thread(remote.asked.wait, 10)
        assert not (tmp_path / "data" / "models" / "content").exists()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        remote.gate.set()
        found = await asyncio.wait_for(second, 20)
        assert (found / "model.ubj").read_bytes() == b"0123456789", "who waited takes over"
        assert not list((tmp_path / "data" / "models" / "tmp").iterdir())
        slow = new_storage(tmp_path, timeout_s=0.5)
        remote.gate.clear()
        with pytest.raises(StorageError, match=r"not here after 0.5 s"):
            await slow.fetch(uri, "team", "r2", launch, print)


async def test_what_a_killed_machine_left_is_removed(tmp_path):
    partial = tmp_path / "data" / "models" / "tmp" / "x"
    partial.mkdir(parents=True)
    new_storage(tmp_path).clear_partial()
    assert not partial.exists()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a", "s3://bucket/a"),
        ("https://user:pass@host/a?token=x", "https://…@host/a?…"),
        ("https://host/a@b", "https://host/a@b"),
    ],
)
def test_shown(uri, expected):
    assert shown(uri) == expected


async def test_a_pod_gets_its_model_where_its_arguments_say(tmp_path):
    model = tmp_path / "models" / "flights"
    annotations = {names.STORAGE_SOURCE_URI: f"file://{model}"}
    container = echo("kserve-container", args=["--model_dir=/mnt/models"], environ={"FILES": "/mnt/models"})
    async with running(Machine(tmp_path / "data")) as machine:
        machine.objects.create(POD, a_pod("one", container, annotations=annotations))

        def init() -> dict:
            return ((machine.pod("one").get("status") or {}).get("initContainerStatuses") or [{}])[0]

        await machine.until(lambda: init().get("state", {}).get("waiting"), "fails")
        assert init()["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert f"file://{model}: {model} does not exist" in init()["lastState"]["terminated"]["message"]
        waiting = machine.container("one")["state"]["waiting"]
        assert waiting["reason"] == "PodInitializing"
        assert "does not exist" in await machine.logs("one", names.STORAGE_INITIALIZER)
        model.mkdir(parents=True)
        (model / "model.ubj").write_text("a model")
        await machine.ready("one")
        answer = await machine.ask("one")
        assert answer["argv"] == [f"--model_dir={model}"]
        assert answer["files"] == {"model.ubj": "a model"}
        assert init()["state"]["terminated"]["exitCode"] == 0
        conditions = {each["type"]: each["status"] for each in machine.pod("one")["status"]["conditions"]}
        assert conditions == dict.fromkeys(
            ("PodScheduled", "Initialized", "ContainersReady", "Ready"), "True"
        )


def test_digest_is_of_paths_and_contents(tmp_path):
    from glowplug.supervisor.download import digest_of

    (tmp_path / "a").write_bytes(b"1")
    one = digest_of(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "lock").touch()
    assert digest_of(tmp_path) == one == hashlib.sha256(b"a\0" + hashlib.sha256(b"1").digest()).hexdigest()
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_of(tmp_path) != one
