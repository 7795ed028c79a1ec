"""The rollout controller as a process: what it is made of, against the local machine and against a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import kopf
from lightkube.config.kubeconfig import SingleConfig

from glowplug.errors import ConfigError, Invalid, NotFound
from glowplug.operators import operator
from glowplug.operators.api import Api, Object
from glowplug.operators.webhook import WebhookConfig

from . import platform
from .admission import admit
from .announcer import Announcer
from .assessment import Source
from .controller import Controller, ControllerConfig
from .gates import LOSS
from .labels import LabelledSource
from .revisions import Revisions
from .sink import Sink, shown
from .sources import MachineSource, PrometheusSource

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_REFUSED = 422
_OK = 200
# The machine's page is as old as its last look at Envoy; a Prometheus scrapes every 15 to 30 s.
_BLIND_MACHINE_S = 5.0
_BLIND_PROMETHEUS_S = 90.0


@dataclass(frozen=True)
class OperatorConfig:
    """`prometheus_url` empty: the API's own page of metrics, as the local machine has it. `labels_url` is the drift
    detector's page of metrics, for the gate `loss`; empty: there is none. `sink` empty: no CloudEvents.

    `namespaces` empty: all. `service` names the Service by which the API reaches the webhook, as NAMESPACE/NAME; empty:
    by URL, on this computer. `webhook_name` is that of the webhook's configuration, of which a cluster has one for
    all: controllers that look after different namespaces need different ones. `blind_after_s` None: as long as the
    source may well be silent.
    """

    interval_s: float = 1.0
    namespaces: tuple[str, ...] = ()
    prometheus_url: str = ""
    labels_url: str = ""
    sink: str = ""
    service: str = ""
    webhook_port: int = 0
    webhook_name: str = "rollout"
    certificate_dir: pathlib.Path | None = None
    lease_namespace: str = "default"
    lease_duration_s: int = 15
    blind_after_s: float | None = None
    timeout_s: float = 10.0
    health_port: int = 0


def run(connection: SingleConfig, config: OperatorConfig, clock: Callable[[], float] = time.time) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError where KServe is not set up for it."""
    asyncio.run(_check(connection, config.timeout_s))
    metrics = _metrics(config)

    async def admitted(
        old: Object | None,
        new: Object,
        *,
        operation: str,
        dry_run: bool,
        userinfo: Object,
        warn: Callable[[str], None],
    ) -> Object | None:
        del operation, dry_run, userinfo
        try:
            return admit(old, new, metrics, clock(), warn)
        except (ConfigError, Invalid) as error:
            raise kopf.AdmissionError(error.message, code=_REFUSED) from error

    @asynccontextmanager
    async def part(api: Api, identity: str) -> AsyncIterator[operator.Controller]:
        async with _controller(api, identity, config, clock) as controller:
            yield controller

    settings = operator.OperatorConfig(
        "rollout", config.namespaces, config.timeout_s, _webhook(config), config.health_port
    )
    operator.run(connection, part, settings, admitted)


@asynccontextmanager
async def _controller(
    api: Api, identity: str, config: OperatorConfig, clock: Callable[[], float]
) -> AsyncIterator[Controller]:
    is_machine = not config.prometheus_url
    blind_after_s = config.blind_after_s or (_BLIND_MACHINE_S if is_machine else _BLIND_PROMETHEUS_S)
    settings = ControllerConfig(
        identity,
        interval_s=config.interval_s,
        blind_after_s=blind_after_s,
        lease_namespace=config.lease_namespace,
        lease_duration_s=config.lease_duration_s,
    )
    async with httpx2.AsyncClient(timeout=config.timeout_s, trust_env=False) as http:
        sink = Sink(config.sink, http) if config.sink else None
        announcer = Announcer(api, sink)
        async with _running(sink):
            yield Controller(api, _sources(api, http, config), _metrics(config), announcer, settings, clock)


@asynccontextmanager
async def _running(sink: Sink | None) -> AsyncIterator[None]:
    if sink is None:
        yield
        return
    task = asyncio.create_task(sink.run(), name="rollout: CloudEvents")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _metrics(config: OperatorConfig) -> frozenset[str]:
    """All that can be measured."""
    answers = PrometheusSource.metrics if config.prometheus_url else MachineSource.metrics
    return answers | {LOSS} if config.labels_url else answers


def _sources(
    api: Api, http: httpx2.AsyncClient, config: OperatorConfig
) -> Callable[[frozenset[str]], Source]:
    url = config.prometheus_url.rstrip("/")

    async def query(text: str) -> Any:
        return await _fetched(http, f"{url}/api/v1/query", httpx2.Response.json, query=text)

    async def page() -> str:
        return await _fetched(http, config.labels_url, _text)

    def source(metrics: frozenset[str]) -> Source:
        answers: Source = PrometheusSource(query) if url else MachineSource(lambda: api.text("/metrics"))
        return LabelledSource(answers, page, Revisions(api).version) if LOSS in metrics else answers

    return source


async def _fetched(
    http: httpx2.AsyncClient, url: str, parse: Callable[[httpx2.Response], _T], **params: str
) -> _T:
    """The parsed answer. Raises OSError with the address, but without a password that is in it."""
    try:
        return parse(await http.get(url, params=params))
    except (httpx2.HTTPError, ValueError) as error:
        raise OSError(f"{shown(url)}: {error or type(error).__name__}") from error


def _text(response: httpx2.Response) -> str:
    if response.status_code != _OK:
        raise ValueError(f"HTTP {response.status_code}")
    return response.text


def _webhook(config: OperatorConfig) -> WebhookConfig:
    namespace, _, service = config.service.rpartition("/")
    return WebhookConfig(
        config.webhook_name,
        port=config.webhook_port,
        service=service,
        service_namespace=namespace or config.lease_namespace,
        certificate_dir=config.certificate_dir,
    )


async def _check(connection: SingleConfig, timeout_s: float) -> None:
    async with Api(connection, timeout_s) as api:
        try:
            found = await api.get(platform.CONFIG_MAP)
        except NotFound:
            _log.info("there is no ConfigMap of KServe's: this is a local machine, or KServe is elsewhere")
            return
    platform.check(found)
