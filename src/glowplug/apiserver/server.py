"""The API server put together: state, HTTPS, garbage collection, housekeeping.

`State` is the objects without any server; controllers and supervisor are built on it. `ApiServer.run` serves it
until cancelled and then ends in order: no new connections, watches and logs told to end, what is under way
finished, all of that bounded by `shutdown_grace_s`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import anyio
import uvicorn
from anyio.abc import TaskStatus

from glowplug.apiserver.admission import Admission
from glowplug.apiserver.app import App, AppConfig, Pages
from glowplug.apiserver.changes import Ref
from glowplug.apiserver.codec import encode
from glowplug.apiserver.events import EventRecorder, prune_events
from glowplug.apiserver.finalizers import timestamp
from glowplug.apiserver.gc import GarbageCollector
from glowplug.apiserver.kubeconfig import write_kubeconfig
from glowplug.apiserver.listener import Listener, bind
from glowplug.apiserver.objects import Objects, utc_now
from glowplug.apiserver.openapi import OpenAPI
from glowplug.apiserver.podlogs import LogSource
from glowplug.apiserver.reading import ReadConfig, Reader
from glowplug.apiserver.schema import Schemas
from glowplug.apiserver.store import Store
from glowplug.apiserver.tls import Pki, ensure_pki
from glowplug.apiserver.watch import Hub, Window
from glowplug.apiserver.webhooks import Webhooks
from glowplug.apiserver.writing import Writer
from glowplug.errors import NotFound
from glowplug.spec import autoscaling_config
from glowplug.spec.kinds import CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ApiServerConfig:
    """All that can be set; times in seconds."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8081
    is_tls: bool = True
    max_body_bytes: int = 3 * 2**20
    window: Window = field(default_factory=Window)
    history_period_s: float = 300.0
    event_ttl_s: float = 3600.0
    watch_timeout_s: float = 1800.0
    bookmark_interval_s: float = 60.0
    unread_timeout_s: float = 30.0
    keep_alive_s: int = 120
    shutdown_grace_s: int = 5

    @property
    def kubeconfig(self) -> Path:
        return self.data_dir / "kubeconfig"


class State:
    """The stored objects and those who follow them, without a server.

    `requests` is for what clients ask: their writes are on the disk before they are acknowledged. `objects` is for
    code in this process, whose writes follow from the clients' and would follow again: they wait for no disk.
    """

    def __init__(self, store: Store, hub: Hub, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.hub = hub
        self.objects = Objects(store, hub, clock=clock, is_flushed=False)
        self.requests = Objects(store, hub, clock=clock)
        self.recorder = EventRecorder(self.objects)

    @classmethod
    def open(cls, config: ApiServerConfig, *, clock: Callable[[], datetime] = utc_now) -> State:
        """Open `<data-dir>/objects.db`. Raises DataDirHeld, ConfigError, StoreFull."""
        store = Store.open(config.data_dir / "objects.db")
        hub = Hub(store.revision, config.window)
        state = cls(store, hub, clock)
        state.objects.ensure_default_namespace()
        return state

    def close(self) -> None:
        self.hub.close()
        self.store.close()


class ApiServer:
    """Serves a `State` over HTTPS; `url` and `port` are known as soon as it exists, because it listens then."""

    def __init__(
        self, config: ApiServerConfig, state: State, logs: LogSource, pages: Pages | None = None
    ) -> None:
        """Bind, make the certificates and write the kubeconfig. Raises ConfigError if the port is taken."""
        self._config = config
        self._state = state
        self._socket = bind(config.host, config.port)
        self.port: int = self._socket.getsockname()[1]
        try:
            self._pki = ensure_pki(config.data_dir / "pki", config.host, utc_now())
            self._app = self._make_app(Schemas.load(config.data_dir / "cache"), logs, pages or {})
            write_kubeconfig(
                config.kubeconfig,
                server=self.url,
                token=self.token,
                ca_cert=self._pki.ca_cert if config.is_tls else None,
            )
        except BaseException:
            self._socket.close()
            raise

    @property
    def url(self) -> str:
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        return f"{'https' if self._config.is_tls else 'http'}://{host}:{self.port}"

    @property
    def token(self) -> str:
        return self._pki.token

    @property
    def pki(self) -> Pki:
        return self._pki

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `task_status` is told when requests are answered."""
        listener = Listener(self._uvicorn())
        async with anyio.create_task_group() as group:
            group.start_soon(self._serve, listener, name="apiserver: https")
            group.start_soon(self._end_with, listener, name="apiserver: stop")
            group.start_soon(GarbageCollector(self._state.objects).run, name="apiserver: garbage collector")
            group.start_soon(
                prune_events, self._state.objects, self._config.event_ttl_s, name="apiserver: old events"
            )
            group.start_soon(self._forget_history, name="apiserver: history")
            task_status.started()

    async def _serve(self, listener: Listener) -> None:
        # Shielded: the listener ends by `stop`, in its own order, also when everything is cancelled.
        with anyio.CancelScope(shield=True):
            await listener.serve(sockets=[self._socket])

    async def _end_with(self, listener: Listener) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._app.stop_streams()
            listener.stop()

    async def _forget_history(self) -> None:
        while True:
            await anyio.sleep(self._config.history_period_s)
            self._state.hub.forget_read()

    def _make_app(self, schemas: Schemas, logs: LogSource, pages: Pages) -> App:
        config, state = self._config, self._state
        openapi = OpenAPI(schemas)
        self._pin_definitions(openapi)
        app_config = AppConfig(
            token=self.token,
            address=f"{config.host}:{self.port}",
            max_body_bytes=config.max_body_bytes,
            unread_timeout_s=config.unread_timeout_s,
        )
        read_config = ReadConfig(config.watch_timeout_s, config.bookmark_interval_s)
        reader = Reader(state.requests, state.hub, read_config)
        admission = Admission(schemas, self._allows_zero_initial_scale)
        writer = Writer(state.requests, admission, Webhooks(state.requests))
        return App(app_config, state.requests, reader, writer, openapi, logs, pages)

    def _allows_zero_initial_scale(self) -> bool:
        namespace, name = autoscaling_config.NAMESPACE, autoscaling_config.CONFIG_MAP
        try:
            settings = self._state.objects.get(CONFIG_MAP, namespace, name)
        except NotFound:
            return False
        return autoscaling_config.read(settings.get("data") or {})[0].allow_zero_initial_scale

    def _pin_definitions(self, openapi: OpenAPI) -> None:
        now = timestamp(self._state.objects.now())
        for definition in openapi.custom_resource_definitions():
            meta = definition["metadata"]
            meta.setdefault("uid", str(uuid.uuid5(uuid.NAMESPACE_URL, meta["name"])))
            meta.setdefault("creationTimestamp", now)
            meta.setdefault("resourceVersion", "1")
            self._state.store.pin(Ref(CUSTOM_RESOURCE_DEFINITION, "", meta["name"]), encode(definition))

    def _uvicorn(self) -> uvicorn.Config:
        has_tls = self._config.is_tls
        return uvicorn.Config(
            self._app,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=self._config.keep_alive_s,
            timeout_graceful_shutdown=self._config.shutdown_grace_s,
            ssl_certfile=self._pki.server_cert if has_tls else None,
            ssl_keyfile=self._pki.server_key if has_tls else None,
        )
