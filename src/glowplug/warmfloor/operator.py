"""The controller with what it is made of, as an operator runs it; see `operators.operator` for how that is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from lightkube.config.kubeconfig import SingleConfig

from glowplug.operators import operator
from glowplug.operators.api import Api

from .controller import Controller, ControllerConfig
from .demand import KNATIVE_QUERY, DemandSource, MachinePage, Prometheus


@dataclass(frozen=True)
class OperatorConfig:
    """`prometheus_url` empty: the demand is read from the API's own page, as the local machine has it.

    `namespaces` empty: all.
    """

    interval_s: float = 5.0
    namespaces: tuple[str, ...] = ()
    prometheus_url: str = ""
    prometheus_query: str = KNATIVE_QUERY
    lease_namespace: str = "default"
    lease_duration_s: int = 15
    timeout_s: float = 10.0
    health_port: int = 0


def run(connection: SingleConfig, config: OperatorConfig, clock: Callable[[], float] = time.time) -> None:
    """Run until SIGTERM or SIGINT."""

    @asynccontextmanager
    async def part(api: Api, identity: str) -> AsyncIterator[Controller]:
        settings = ControllerConfig(
            identity, config.interval_s, config.lease_namespace, config.lease_duration_s, config.namespaces
        )
        async with AsyncExitStack() as stack:
            yield Controller(api, await _source(api, config, stack), settings, clock)

    settings = operator.OperatorConfig(
        "warm floor", config.namespaces, config.timeout_s, health_port=config.health_port
    )
    operator.run(connection, part, settings)


async def _source(api: Api, config: OperatorConfig, stack: AsyncExitStack) -> DemandSource:
    url, timeout_s = config.prometheus_url, config.timeout_s
    if not url:
        return MachinePage(lambda: api.text("/metrics"))
    http = await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=timeout_s))

    async def fetch(query: str) -> Any:
        try:
            response = await http.get("/api/v1/query", params={"query": query})
            return response.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise OSError(f"{url}: {error or type(error).__name__}") from error

    return Prometheus(fetch, config.prometheus_query)
