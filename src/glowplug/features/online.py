"""The online store's read side: one round trip to Redis for a whole batch, all groups, all rows.

Owns the connection and its time-outs. Policies are `resolve`'s; bytes are `packing`'s. Redis being down or slow
is a 503 with a sentence that says so, within `timeout_s`, never a hang.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from glowplug.errors import FeatureError, InferenceError
from glowplug.features.keys import row_keys, state_key
from glowplug.features.packing import Rows, unpack
from glowplug.features.resp import RedisAddress, RespClient, RespError
from glowplug.features.view import FeatureView

if TYPE_CHECKING:
    import redis.asyncio as redis


@dataclass(frozen=True)
class OnlineConfig:
    """Where Redis is and how long a request may wait for it."""

    url: str
    timeout_s: float = 0.5
    connect_timeout_s: float = 2.0
    max_connections: int = 64

    def __post_init__(self) -> None:
        RedisAddress.parse(self.url)

    @property
    def address(self) -> str:
        """The URL without its password, for messages."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class GroupState:
    """What a materialization of a group left: rows of its last job so far, and up to which moment (Unix ms) the last
    finished one was; None if none ever finished."""

    group: str
    rows: int = 0
    until_ms: int | None = None


def connect(config: OnlineConfig) -> redis.Redis:
    """redis-py's client with bounded waits, for whatever is not a look-up; connects on first use."""
    # A tenth of a second, which look-ups need not wait for.
    import redis.asyncio as redis
    from redis.asyncio.retry import Retry
    from redis.backoff import ConstantBackoff

    pool = redis.BlockingConnectionPool.from_url(
        config.url,
        max_connections=config.max_connections,
        timeout=config.timeout_s,
        socket_connect_timeout=config.connect_timeout_s,
        socket_timeout=max(config.connect_timeout_s, config.timeout_s),
        # A read may be repeated: once, for a connection that Redis closed while it lay idle in the pool.
        retry=Retry(ConstantBackoff(0.01), 1),
        retry_on_error=[redis.ConnectionError],
    )
    return redis.Redis.from_pool(pool)


class OnlineStore:
    """Reads rows of feature views. `close` it, or use it as an async context manager."""

    def __init__(self, config: OnlineConfig) -> None:
        self.config = config
        self._client = RespClient(RedisAddress.parse(config.url), timeout_s=config.timeout_s)

    async def __aenter__(self) -> OnlineStore:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def read(self, view: FeatureView, entities: Mapping[str, Sequence[str]]) -> list[Rows]:
        """The rows of every group, n each, for n entities: `entities` maps each entity's name to its n values.

        One MGET of the distinct keys. Raises `InferenceError` 503 if Redis does not answer in `timeout_s` or holds
        rows that do not fit the view.
        """
        keys = [row_keys(view, group, [entities[key] for key in group.keys]) for group in view.groups]
        # The same carrier or plane comes up many times in a batch; dict keeps the first place of each.
        distinct = list(dict.fromkeys(key for group_keys in keys for key in group_keys))
        if not distinct:
            return [Rows.empty(0, len(group.features)) for group in view.groups]
        values = dict(zip(distinct, await self._call("MGET", *distinct), strict=True))
        try:
            return [
                unpack(group, [values[key] for key in group_keys])
                for group, group_keys in zip(view.groups, keys, strict=True)
            ]
        except FeatureError as error:
            raise InferenceError(error.message, hint=error.hint, code=503) from error

    async def states(self, view: FeatureView) -> list[GroupState]:
        """What was materialized of each group under this very feature list. Raises `InferenceError` 503."""
        states = []
        for group in view.groups:
            flat = await self._call("HGETALL", state_key(view, group))
            states.append(parse_state(group.name, dict(zip(flat[::2], flat[1::2], strict=True))))
        return states

    async def ping(self) -> None:
        """Raises `InferenceError` 503 if Redis does not answer."""
        await self._call("PING")

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._client.call(*command)
        except asyncio.TimeoutError as error:
            raise InferenceError(
                f"the feature store at {self.config.address} did not answer in {self.config.timeout_s:g} s",
                code=503,
            ) from error
        except (RespError, OSError) as error:
            raise InferenceError(
                f"the feature store at {self.config.address} cannot be read: {error}", code=503
            ) from error


def parse_state(group: str, fields: Mapping[Any, Any]) -> GroupState:
    """A group's state from its Redis hash (bytes or text; empty when it was never materialized)."""
    text = {_text(name): _text(value) for name, value in fields.items()}
    until = text.get("until_ms")
    return GroupState(
        group=group,
        rows=int(text.get("rows", 0)),
        until_ms=int(until) if until else None,
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
