"""A mutating admission webhook for InferenceServices, served by a controller: HTTPS, and the API told of it.

It is what kopf takes for `settings.admission.server`, and does without kopf's own two parts. Kopf's server wants
packages for a self-made certificate that we do not need otherwise, and takes a free port that somebody else may have
taken by then. Kopf's managed configuration is one for all replicas: each would point it to itself, and the first that
stops, as in every rolling update, would empty it for all.

By Service, the configuration is the same from every replica, and stays when they stop: the Service then has nobody
behind it, which the API learns at once and, by `failurePolicy: Ignore`, passes over. By URL it points to one process;
who stops takes it away, and who finds it pointing to a process that is gone takes it over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp.web
from lightkube.config.kubeconfig import SingleConfig

from glowplug.errors import AlreadyExists, ApiError, Conflict, NotFound

from .api import Api, Object
from .certificate import Certificate, mounted, self_made, shared, utc_now
from .review import Admit, answer
from .webhook_configuration import COLLECTION, PATH, WebhookConfig, address, agrees, authority, configuration

__all__ = ["Admit", "Webhook", "WebhookConfig"]

_log = logging.getLogger(__name__)
_MAX_REVIEW_BYTES = 16 * 2**20


class Webhook:
    """Serves `admit` from entering to leaving, and keeps the configuration pointing here."""

    def __init__(
        self,
        connection: SingleConfig,
        config: WebhookConfig,
        admit: Admit,
        namespaces: tuple[str, ...],
        timeout_s: float,
    ) -> None:
        self._api = Api(connection, timeout_s)
        self._config, self._admit, self._namespaces, self._timeout_s = config, admit, namespaces, timeout_s
        self._stack = contextlib.AsyncExitStack()
        self._wanted: Object = {}
        self._told = ""

    async def __aenter__(self) -> Webhook:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._api)
            certificate = await self._certificate()
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            _load(context, certificate)
            port = await self._listen(stack, context)
            self._wanted = configuration(self._config, port, certificate.authority, self._namespaces)
            _log.info("webhook %s answers on port %d", self._config.full_name, port)
            keeping = asyncio.create_task(
                self._keep(context, certificate, port), name="webhook: configuration"
            )
            # In this order: no longer called, then no longer there.
            stack.push_async_callback(self._withdraw)
            stack.push_async_callback(_end, keeping)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def __call__(self, fn: Any) -> AsyncIterator[Any]:
        """What kopf calls, with its own way of answering, which has no part in this."""
        del fn
        yield self._wanted["webhooks"][0]["clientConfig"]
        await asyncio.Event().wait()

    async def _certificate(self) -> Certificate:
        config = self._config
        if config.certificate_dir is not None:
            return mounted(config.certificate_dir)
        if config.service:
            name = f"{config.service}-certificate"
            return await shared(self._api, config.service_namespace, name, config.hosts, utc_now())
        return self_made(config.hosts, utc_now())

    async def _listen(self, stack: contextlib.AsyncExitStack, context: ssl.SSLContext) -> int:
        app = aiohttp.web.Application(client_max_size=_MAX_REVIEW_BYTES)
        app.add_routes([aiohttp.web.post(PATH, self._answer)])
        runner = aiohttp.web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=self._config.timeout_s
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        # A Service comes from anywhere in the cluster.
        host = "0.0.0.0" if self._config.service else self._config.host
        listening = socket.create_server((host, self._config.port))
        await aiohttp.web.SockSite(runner, listening, ssl_context=context).start()
        port: int = listening.getsockname()[1]
        return port

    async def _answer(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        try:
            review = json.loads(await request.text())
            found = await answer(self._config.full_name, review, self._admit)
        except (ValueError, KeyError, TypeError) as error:
            _log.info("not an AdmissionReview: %s: %s", type(error).__name__, error)
            return aiohttp.web.Response(status=400, text="the body must be an AdmissionReview of v1")
        return aiohttp.web.json_response(found)

    async def _keep(self, context: ssl.SSLContext, certificate: Certificate, port: int) -> None:
        complaint = ""
        while True:
            folder = self._config.certificate_dir
            try:
                if folder is not None and (renewed := mounted(folder)) != certificate:
                    certificate = renewed
                    _load(context, certificate)
                    self._wanted = configuration(self._config, port, certificate.authority, self._namespaces)
                await self._settle()
                complaint = ""
            except (ApiError, OSError) as error:
                if str(error) != complaint:
                    complaint = str(error)
                    _log.warning("the webhook may not be called: %s", complaint)
            except Exception:
                _log.exception("the webhook's configuration")
            await asyncio.sleep(self._config.check_interval_s)

    async def _settle(self) -> None:
        """Make the configuration be there and right. Raises what the API raises."""
        found = await self._find()
        try:
            if found is None:
                await self._api.create(COLLECTION, self._wanted)
            elif agrees(found, self._wanted):
                self._tell("called here")
            elif await self._is_served(found):
                self._tell("called at another replica")
            else:
                body = {**self._wanted, "metadata": found["metadata"]}
                await self._api.replace(f"{COLLECTION}/{self._config.full_name}", body)
        except (AlreadyExists, Conflict):
            return  # another replica was faster; the next look says what it wrote

    def _tell(self, what: str) -> None:
        if what != self._told:
            self._told = what
            _log.info("webhook %s is %s", self._config.full_name, what)

    async def _is_served(self, found: Object) -> bool:
        """Whether a configuration by URL is another replica's that lives."""
        theirs = address(found)
        if self._config.service or theirs is None or theirs == address(self._wanted):
            return False
        try:
            # By its certificate: the port of a process that is gone may be anybody's by now.
            opening = asyncio.open_connection(*theirs, ssl=_trusting(authority(found)))
            _, writer = await asyncio.wait_for(opening, self._timeout_s)
        except (OSError, ValueError, asyncio.TimeoutError):
            return False
        writer.close()
        return True

    async def _withdraw(self) -> None:
        if self._config.service:
            return
        try:
            found = await self._find()
            if found is not None and address(found) == address(self._wanted):
                await self._api.delete(f"{COLLECTION}/{self._config.full_name}")
        except (ApiError, OSError) as error:
            _log.warning("webhook %s stays configured: %s", self._config.full_name, error)

    async def _find(self) -> Object | None:
        try:
            return await self._api.get(f"{COLLECTION}/{self._config.full_name}")
        except NotFound:
            return None


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _trusting(authority: bytes) -> ssl.SSLContext:
    """Trusts these alone, as the API does. Raises ssl.SSLError or ValueError for what is no bundle."""
    context = ssl.create_default_context(cadata=authority.decode("ascii"))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Show this certificate from the next connection on; Python takes it from files only."""
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        chain.write_bytes(certificate.chain)
        key.touch(mode=0o600)
        key.write_bytes(certificate.key)
        context.load_cert_chain(chain, key)
