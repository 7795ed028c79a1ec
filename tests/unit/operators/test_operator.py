"""An operator's process ends with its loop, and gives back what it holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from lightkube.config.kubeconfig import KubeConfig

from glowplug.operators.operator import Controller, OperatorConfig, _Life


class Broken:
    """A controller whose loop ends by an error."""

    def __init__(self) -> None:
        self.is_closed = False

    def saw(self, isvc: dict[str, Any], *, is_gone: bool) -> None: ...

    async def run(self) -> None:
        raise ValueError("a mistake")

    async def close(self) -> None:
        self.is_closed = True


async def test_a_loop_that_ends_stops_the_process_and_the_lease_is_given_back() -> None:
    controller, ended = Broken(), threading.Event()

    @asynccontextmanager
    async def part(api: Any, identity: str) -> AsyncIterator[Controller]:
        yield controller

    one = {"name": "x", "cluster": {"server": "http://127.0.0.1:1"}, "user": {"token": "t"}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    document = {"current-context": "x", "contexts": [context], "clusters": [one], "users": [one]}
    connection = KubeConfig.from_dict(document).get()
    assert connection is not None
    life = _Life(connection, part, OperatorConfig("test"), ended.set)
    await life.start()
    await asyncio.wait_for(asyncio.to_thread(ended.wait), 20)
    with pytest.raises(ValueError, match="a mistake"):
        await life.stop()
    assert controller.is_closed
