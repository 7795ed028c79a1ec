"""Redis's protocol, as lean as a look-up needs it: one connection, commands sent without waiting for earlier answers.

redis-py's asyncio client takes 60 to 90 µs of a look-up that costs 13 by itself (5 where eight are under way), its pool
a connection for each request under way, and its import a tenth of a second; the parser is the same hiredis. Commands
here must be safe to repeat: one whose connection broke is sent once more. Writing stays with redis-py.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import hiredis

from glowplug.errors import ConfigError

SCHEMES = ("redis", "rediss", "unix")
DEFAULT_PORT = 6379
REFUSED_PAUSE_S = 0.05
_OPTIONS = ("db", "username", "password", "ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname")


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is and who asks. `path` is that of a unix socket; else `host` and `port` count."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str = ""
    username: str = ""
    password: str = ""
    database: int = 0
    tls: ssl.SSLContext | None = None

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """From redis://, rediss:// or unix://, as redis-py reads them. Raises ConfigError; never shows the password."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ConfigError(f"Redis URL cannot be read: {error}") from error
        if parts.scheme not in SCHEMES:
            expected = ", ".join(f"{each}://" for each in SCHEMES)
            raise ConfigError(f"Redis URL has scheme '{parts.scheme}', must be one of {expected}")
        options = dict(parse_qsl(parts.query))
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown:
            raise ConfigError(f"Redis URL has option '{unknown[0]}', must be one of {', '.join(_OPTIONS)}")
        path = unquote(parts.path)
        if parts.scheme == "unix" and not path:
            raise ConfigError("Redis URL has no path, must be unix:///path/of/the.sock")
        try:
            port = parts.port or DEFAULT_PORT
            database = int(options.get("db") or ("" if parts.scheme == "unix" else path.strip("/")) or 0)
        except ValueError:
            raise ConfigError("Redis URL has a port or database that is not a whole number") from None
        return cls(
            host=parts.hostname or "localhost",
            port=port,
            path=path if parts.scheme == "unix" else "",
            username=unquote(parts.username or options.get("username", "")),
            password=unquote(parts.password or options.get("password", "")),
            database=database,
            tls=_tls(options) if parts.scheme == "rediss" else None,
        )


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    except OSError as error:
        raise ConfigError(f"Redis URL: ssl_ca_certs cannot be read: {error}") from error
    if options.get("ssl_check_hostname", "true").lower() in ("false", "0", "no"):
        context.check_hostname = False
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _packed(*command: bytes | str | int) -> bytes:
    # Its annotations say that a command has one word.
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return packed


class RespError(Exception):
    """Redis answered with an error, or not in its protocol."""


class RespClient:
    """Commands to one Redis. Used by one event loop; connects on first use; `close` when done."""

    def __init__(self, address: RedisAddress, *, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def call(self, *command: bytes | str | int) -> Any:
        """The answer, bulk strings as bytes; connecting included, it takes no longer than the time-out.

        Raises asyncio.TimeoutError, OSError where there is no connection, RespError for what Redis says.
        """
        loop = asyncio.get_running_loop()
        data = _packed(*command)
        ends_at = loop.time() + self._timeout_s
        is_retry = False
        while True:
            connection = self._connection
            if connection is None or connection.is_lost:
                connection = await self._connect(ends_at)
                is_retry = True
            answer = connection.send(data)
            timer = loop.call_at(ends_at, connection.expire, answer)
            try:
                result = await answer
            except ConnectionError:
                # Closed while it lay idle, or given up for another's sake: nothing was changed by asking.
                if is_retry:
                    raise
                continue
            finally:
                timer.cancel()
            if isinstance(result, hiredis.ReplyError):
                raise RespError(str(result))
            return result

    async def _connect(self, ends_at: float) -> _Connection:
        """A new connection; whoever needs one meanwhile shares it."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open(), name="connection to Redis")
            self._connecting.add_done_callback(self._connected)
        left_s = ends_at - asyncio.get_running_loop().time()
        return await asyncio.wait_for(asyncio.shield(self._connecting), max(left_s, 0.0))

    def _connected(self, task: asyncio.Task[_Connection]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._connection = task.result()

    async def _open(self) -> _Connection:
        address = self._address
        loop = asyncio.get_running_loop()
        opening: Callable[[], Any]
        if address.path:
            opening = partial(loop.create_unix_connection, _Connection, address.path)
        else:
            opening = partial(
                loop.create_connection, _Connection, address.host, address.port, ssl=address.tls
            )
        connection = await self._accepted(opening)
        greetings: list[tuple[str | int, ...]] = []
        if address.password:
            user = (address.username,) if address.username else ()
            greetings.append(("AUTH", *user, address.password))
        if address.database:
            greetings.append(("SELECT", address.database))
        answers = [connection.send(_packed(*greeting)) for greeting in greetings]
        for answer in answers:
            result = await asyncio.wait_for(answer, self._timeout_s)
            if isinstance(result, hiredis.ReplyError):
                connection.give_up(ConnectionError(str(result)))
                raise RespError(str(result))
        assert isinstance(connection, _Connection)
        return connection

    async def _accepted(self, opening: Callable[[], Any]) -> Any:
        """A connection within the time-out; one that is refused is tried again, as Redis may be on its way back."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._timeout_s
        while True:
            try:
                _, connection = await asyncio.wait_for(opening(), max(ends_at - loop.time(), 0.0))
                return connection
            except ConnectionRefusedError:
                # Said before whoever waits runs out of time: the reason is worth more than the time-out.
                if loop.time() + 2 * REFUSED_PAUSE_S > ends_at:
                    raise
            await asyncio.sleep(REFUSED_PAUSE_S)

    async def close(self) -> None:
        """Closes the connection; whoever waits for an answer is told so (ConnectionError)."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._connection is not None:
            self._connection.give_up(ConnectionError("the client was closed"))


class _Connection(asyncio.Protocol):
    """Answers come in the order of the commands."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self.is_lost = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, data: bytes) -> asyncio.Future[Any]:
        """The answer to come: any value, hiredis.ReplyError among them. Its exception is an OSError."""
        answer = self._loop.create_future()
        if self.is_lost:
            answer.set_exception(ConnectionError("the connection is lost"))
        else:
            self._waiting.append(answer)
            self._transport.write(data)
        return answer

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while waiting:
                result = reader.gets()
                if result is False:
                    break
                answer = waiting.popleft()
                # Who was cancelled has left, but the answer still comes.
                if not answer.done():
                    answer.set_result(result)
        except hiredis.ProtocolError as error:
            self.give_up(ConnectionError(f"no answer in Redis's protocol: {error}"))

    def expire(self, answer: asyncio.Future[Any]) -> None:
        """Time is up for one answer. The connection may be dead without saying so, and is given up."""
        if not answer.done():
            answer.set_exception(asyncio.TimeoutError())
            self.give_up(ConnectionError("an earlier answer did not come in time"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.give_up(ConnectionError(str(exc) if exc else "Redis closed the connection"))

    def give_up(self, error: ConnectionError) -> None:
        """Closes at once; whoever waits gets the error."""
        self.is_lost = True
        self._transport.abort()
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(error)
