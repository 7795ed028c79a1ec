"""A real S3 server: versitygw, built once with the Go that is here into the user's cache."""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import subprocess
import time

import pytest

MODULE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "glowplug" / "go"
ACCESS_KEY, SECRET_KEY = "models-reader", "a-secret-of-the-test"
REGION = "us-east-1"


def program() -> pathlib.Path:
    """The built server; skips the test where Go or the module cannot be had."""
    found = CACHE / f"versitygw-{VERSION}"
    if found.exists():
        return found
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("there is no S3 server: no `go` to build versitygw with")
    folder = CACHE / f"building-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        built = subprocess.run(
            [go, "install", f"{MODULE}@{VERSION}"],
            env={**os.environ, "GOBIN": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            pytest.skip(f"there is no S3 server: versitygw is not to be built: {built.stderr[-400:]}")
        (folder / "versitygw").rename(found)
    finally:
        shutil.rmtree(folder)
    return found


class S3:
    """A server on a free port over a folder; `start` again after `kill` finds what was there."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._program = folder / "buckets", program()
        self._folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Of a client, MLflow among them."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "MLFLOW_S3_ENDPOINT_URL": f"http://{self.address}",
            # One that is gone should be missed soon.
            "AWS_MAX_ATTEMPTS": "2",
        }

    def start(self) -> None:
        environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        self._process = subprocess.Popen(
            [str(self._program), "--port", self.address, "--region", REGION, "posix", str(self._folder)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self._process.poll() is None, "versitygw has ended"
                assert time.monotonic() < end, "versitygw does not listen"
                time.sleep(0.05)

    def bucket(self, name: str) -> None:
        """Made, by its folder, which is what this server's buckets are."""
        (self._folder / name).mkdir()

    def kill(self) -> None:
        """At once; what was being sent is cut off."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
