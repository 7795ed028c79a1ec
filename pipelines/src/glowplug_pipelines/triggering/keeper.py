"""A model's retraining state in its ConfigMap: read, decided on, and written only if nobody wrote in between.

The same against a cluster and against the local machine: get, create and replace of one ConfigMap are all that is
asked for. Every change goes through `change`; a lost race is read and decided anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Callable
from typing import TypeVar

from glowplug.errors import AlreadyExists, Conflict, NotFound
from glowplug.operators.api import Api, Object

from . import record
from .rules import Rules
from .state import State
from .summary import summary

T = TypeVar("T")
STATE = "state.json"
_LABELS = {"app.kubernetes.io/managed-by": "glowplug", "app.kubernetes.io/component": "retraining"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_PREFIX = "glowplug-retraining-"
_RACES = 30
_PAUSE_S = 0.05


def config_map_name(model: str) -> str:
    """Of a model: its name where Kubernetes takes that, else a name that follows from it."""
    if _NAME.fullmatch(model) and len(model) <= 200:
        return _PREFIX + model
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:40] or "model"
    return f"{_PREFIX}{plain}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


class Keeper:
    """Keeps the state of the model that `rules` are about."""

    def __init__(self, api: Api, rules: Rules) -> None:
        self._api, self._rules = api, rules
        self._name = config_map_name(rules.model)
        self._maps = f"/api/v1/namespaces/{rules.namespace}/configmaps"

    @property
    def place(self) -> str:
        """Where the state is, for messages."""
        return f"ConfigMap {self._rules.namespace}/{self._name}"

    async def read(self) -> State:
        """The state as it is. Raises ApiError, OSError, and ConfigError where it cannot be understood."""
        return self._state_of(await self._found())

    async def change(self, decide: Callable[[State], tuple[State, T]]) -> T:
        """Writes what `decide` makes of the state, and gives its answer; `decide` may be asked several times.

        Raises what `decide` and `read` raise, and Conflict where others are always faster.
        """
        for _ in range(_RACES):
            found = await self._found()
            before = self._state_of(found)
            after, answer = decide(before)
            if after == before:
                return answer
            try:
                await self._write(found, after)
                return answer
            except (AlreadyExists, Conflict):
                # Spread, so that ten that begin at once do not meet again.
                await asyncio.sleep(_PAUSE_S * random.uniform(0.2, 2.0))
            except NotFound:
                continue  # deleted in between
        raise Conflict(f"{self.place}: others wrote in between {_RACES} times", hint="try again")

    async def _found(self) -> Object | None:
        try:
            return await self._api.get(f"{self._maps}/{self._name}")
        except NotFound:
            return None

    def _state_of(self, found: Object | None) -> State:
        text = ((found or {}).get("data") or {}).get(STATE)
        return record.load(text, self.place)

    async def _write(self, found: Object | None, state: State) -> None:
        data = {**summary(state), STATE: record.dump(state)}
        if found is not None:
            await self._api.replace(f"{self._maps}/{self._name}", {**found, "data": data})
            return
        metadata = {"name": self._name, "labels": dict(_LABELS)}
        await self._api.create(
            self._maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        )
