"""A PostgreSQL database: connections with bounded waits, transactions, and errors without secrets.

What the server or the connection fails at is a `StorageError` (try again later), what it says of the data a
`FeatureError`. Neither they nor a `repr` hold the password; psycopg's own errors are cleaned of it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import IsolationLevel, conninfo

from glowplug.errors import ConfigError, FeatureError, StorageError
from glowplug.features.offline_copy import Connection

_HINT = "is PostgreSQL running, and are the URL and its password right?"
# What a URL does not say itself. A peer that is gone is noticed within a minute, also in the middle of a COPY.
_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
    "application_name": "glowplug",
    "client_encoding": "utf8",
}
_PORTS = re.compile(r"[0-9,]*")
# JIT costs more than these queries take; a lock that nobody lets go of must be an error rather than a hang.
_SETTINGS = ("SET timezone = 'UTC'", "SET jit = off", "SET lock_timeout = '60s'")


@dataclass(frozen=True)
class Database:
    """`address` is what messages say."""

    address: str
    _parameters: dict[str, Any] = field(repr=False)

    @classmethod
    def at(cls, url: str) -> Database:
        """Raises `ConfigError` for a URL that libpq cannot read; it is not repeated, since it may hold a password."""
        try:
            parameters = conninfo.conninfo_to_dict(url)
        except psycopg.Error:
            raise _no_url() from None
        words = {word: str(parameters.get(word) or "") for word in ("user", "host", "port", "dbname")}
        # A '/' or '@' in a password that is not escaped moves the rest of it into one of these.
        if "@" in words["host"] + words["dbname"] or not _PORTS.fullmatch(words["port"]):
            raise _no_url()
        user = f"{words['user']}@" if words["user"] else ""
        port = f":{words['port']}" if words["port"] else ""
        return cls(f"postgresql://{user}{words['host']}{port}/{words['dbname']}", {**_DEFAULTS, **parameters})

    @contextmanager
    def transaction(self, what: str) -> Iterator[Connection]:
        """A connection in a transaction: committed at the end of the block, or rolled back. `what` is for messages."""
        with self._session(what) as session, session.transaction():
            yield session

    @contextmanager
    def snapshot(self, what: str, *, is_read_only: bool = True) -> Iterator[Connection]:
        """As `transaction`, and all reads see the database as it was at the first."""
        with self._session(what) as session:
            session.isolation_level = IsolationLevel.REPEATABLE_READ
            session.read_only = is_read_only
            with session.transaction():
                yield session

    @contextmanager
    def _session(self, what: str) -> Iterator[Connection]:
        session: Connection | None = None
        try:
            session = psycopg.connect(**self._parameters, autocommit=True)
            for setting in _SETTINGS:
                session.execute(setting.encode())
            yield session
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StorageError(f"{what} in {self.address}: {self._clean(error)}", hint=_HINT) from None
        except psycopg.Error as error:
            raise FeatureError(f"{what} in {self.address}: {self._clean(error)}") from None
        finally:
            if session is not None:
                with suppress(psycopg.Error):
                    session.close()

    def _clean(self, error: psycopg.Error) -> str:
        """The error on one line, without any secret."""
        text = " ".join(str(error).split())
        for secret in ("password", "sslpassword", "passfile"):
            value = str(self._parameters.get(secret) or "")
            text = text.replace(value, "***") if value else text
        return text


def _no_url() -> ConfigError:
    return ConfigError(
        "the offline store's URL is not one of PostgreSQL",
        hint="postgresql://user:password@host:5432/database; special characters of a password as %XX",
    )
