"""The life of a server process: bind, load, warm up, serve, drain, close.

Ports are bound first, so that a taken one is told before a model is loaded, and listen last, so that whoever gets a
connection gets an answer. On SIGTERM: not ready, but serving; then no new connections and calls; then what is in
flight is finished; then models close. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from glowplug.errors import ConfigError, GlowplugError
from glowplug.serving.config import ServerConfig
from glowplug.serving.dataplane import DataPlane
from glowplug.serving.http import HttpEndpoints
from glowplug.serving.http_protocol import Endpoints, HttpService
from glowplug.serving.kserve_model import KServeModel, is_kserve_model
from glowplug.serving.light import LightModel, Served
from glowplug.serving.listener import HttpListener, bind
from glowplug.serving.metrics import process_samples
from glowplug.serving.model import Model
from glowplug.serving.timeline import IMPORTED, LISTENING, LOADED, WARMED, TimedMetrics, Timeline
from glowplug.spec import names

if TYPE_CHECKING:
    from glowplug.serving.copying import Copying
    from glowplug.serving.pairlock import PairLock

log = logging.getLogger("glowplug.serving")

IMPROVE_AFTER_S = 0.5
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(models: Sequence[Any], config: ServerConfig) -> int:
    """Serves `Model`s and `kserve.Model`s until a signal; returns the exit code of the process.

    What stops the start (a port, a model) is told in one message on stderr, and the code is 1. How far the start has
    come is told to whoever gave `$GLOWPLUG_TIMELINE`.
    """
    timeline = Timeline.from_environment(os.environ)
    timeline.mark(IMPORTED)
    logging.basicConfig(
        level=config.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return _run(Server(models, config, timeline), config.event_loop)
    except GlowplugError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        print(f"error: {error.message}{hint}", file=sys.stderr, flush=True)
        return 1


def rehearse() -> None:
    """What of every start can be done before it is known what to serve, for a process that is to fork servers.

    Imports what is imported late, and goes once through the command line, so that modules and regular expressions are
    there: 8 ms of a start. Starts no thread, opens no file, makes no event loop.
    """
    import shutil  # noqa: F401 - argparse does, when it prints or only looks at the width of the terminal

    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401
    with contextlib.suppress(ImportError):
        from glowplug.serving import copying, grpc_server  # noqa: F401
    ServerConfig.from_args([], {})


def _run(server: Server, event_loop: str) -> int:
    loop = _new_loop(event_loop)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(server.run())
    finally:
        asyncio.set_event_loop(None)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name != "asyncio":
        try:
            import uvloop

            return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())
        except ImportError as error:
            if name == "uvloop":
                raise ConfigError("--event-loop=uvloop, but uvloop is not installed") from error
    return asyncio.new_event_loop()


def _copying(text: str) -> Copying:
    """Raises ConfigError."""
    from glowplug.copies.settings import parse_takers
    from glowplug.serving.copying import Copying

    try:
        return Copying(parse_takers(text))
    except (ValueError, TypeError, KeyError) as error:
        # What it says is a secret.
        raise ConfigError(
            f"${names.COPIES_ENV} is not what the machine gives: {type(error).__name__}"
        ) from None


class Server:
    """One server; `run` returns when it is over. `http_port` and `grpc_port` are the bound ones, once it runs."""

    def __init__(self, models: Sequence[Any], config: ServerConfig, timeline: Timeline | None = None) -> None:
        self._config = config
        self._timeline = timeline or Timeline()
        self._metrics = TimedMetrics(self._timeline)
        self._copying = _copying(config.copies) if config.copies else None
        self._lock: PairLock | None = None
        if config.pair:
            from glowplug.serving.pairlock import PairLock

            self._lock = PairLock(config)
        served = [self._adapt(model) for model in models]
        if not served:
            raise ConfigError("no model to serve")
        self._predictor: Any = None
        self._plane = DataPlane(
            served,
            self._metrics,
            max_in_flight=config.max_in_flight,
            is_predictor_ready=self._is_predictor_ready if config.predictor.is_health_checked else None,
        )
        self._listener: HttpListener | None = None
        self._grpc: Any = None
        self._signals = 0
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()
        self.http_port = 0
        self.grpc_port: int | None = None

    def _adapt(self, model: Any) -> Served:
        if isinstance(model, Model):
            light = LightModel if self._lock is None else self._lock.light_model
            return light(model, self._metrics)
        if is_kserve_model(model):
            if self._lock is not None and self._lock.is_transformer:
                log.warning(
                    "model %s: calls that kserve.Model makes to its predictor are not under the pair lock; "
                    "glowplug.serving.PredictorClient's are",
                    model.name,
                )
            return KServeModel(model, self._config.predictor)
        raise ConfigError(f"{type(model).__name__} is neither a glowplug.serving.Model nor a kserve.Model")

    async def _is_predictor_ready(self) -> bool:
        if self._predictor is None:
            from glowplug.serving.predictor_client import PredictorClient

            self._predictor = PredictorClient(self._config.predictor)
        return bool(await self._predictor.is_ready())

    async def run(self) -> int:
        """Serves until a signal: 0 if all that was in flight was finished, 1 if not. Raises GlowplugError at start."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.stop)
        try:
            self._bind()
            await self._load()
            if self._lock is not None and not await self._is_settled(self._lock):
                return 0
            await self._start()
            improving = asyncio.create_task(self._improve(), name="improve")
            await self._stopping.wait()
            improving.cancel()
            await asyncio.gather(improving, return_exceptions=True)
            is_clean = await self._drain()
        finally:
            await self._close()
            self._timeline.close()
            for number in SIGNALS:
                loop.remove_signal_handler(number)
        log.info("stopped" if is_clean else "stopped with requests in flight")
        return 0 if is_clean else 1

    def stop(self) -> None:
        """Begins the shutdown; called again, cuts it short."""
        self._signals += 1
        (self._stopping if self._signals == 1 else self._forced).set()

    def _bind(self) -> None:
        config = self._config
        listener = bind(config.host, config.http_port)
        self.http_port = listener.getsockname()[1]
        endpoints: Endpoints = self._http_endpoints()
        if self._copying is not None:
            endpoints = self._copying.http(endpoints)
        service = HttpService(
            endpoints, max_body_bytes=config.max_body_bytes, keep_alive_s=config.keep_alive_s
        )
        self._listener = HttpListener(service, listener)
        if config.enable_grpc:
            from glowplug.serving import grpc_server

            self._grpc, self.grpc_port = grpc_server.bind(
                self._plane,
                host=config.host,
                port=config.grpc_port,
                max_message_bytes=config.max_body_bytes,
                endpoints=self._lock.grpc_endpoints(self._plane) if self._lock else None,
                around=self._copying.grpc if self._copying else None,
            )

    def _http_endpoints(self) -> HttpEndpoints:
        config = self._config
        kind = self._lock.http_endpoints if self._lock else HttpEndpoints
        return kind(self._plane, max_body_bytes=config.max_body_bytes, events=config.events)

    async def _load(self) -> None:
        loads_s: list[float] = []
        for entry in self._plane.entries.values():
            started = time.perf_counter()
            await entry.served.load()
            loads_s.append(time.perf_counter() - started)
        self._timeline.mark(LOADED)
        for entry, load_s in zip(self._plane.entries.values(), loads_s, strict=True):
            started = time.perf_counter()
            await self._warm_up(entry.served)
            entry.is_loaded = True
            log.info(
                "model %s: loaded in %.0f ms, warmed up in %.0f ms",
                entry.served.name,
                load_s * 1000,
                (time.perf_counter() - started) * 1000,
            )
        self._timeline.mark(WARMED)

    async def _is_settled(self, lock: PairLock) -> bool:
        """Waits until a transformer has its predictor; False where a signal came first."""
        settling = asyncio.create_task(lock.settled(), name="settle")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        await asyncio.wait({settling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (settling, stopping):
            task.cancel()
        settled, _ = await asyncio.gather(settling, stopping, return_exceptions=True)
        if isinstance(settled, Exception):
            raise settled
        return not self._stopping.is_set()

    async def _improve(self) -> None:
        # The requests that a cold start was made for go first.
        await asyncio.sleep(IMPROVE_AFTER_S)
        for entry in self._plane.entries.values():
            try:
                await entry.served.improve()
            except Exception:
                log.exception("model %s: not improved, it goes on as it is", entry.served.name)

    async def _warm_up(self, served: Served) -> None:
        try:
            await served.warmup()
        except GlowplugError:
            raise
        except Exception as error:
            log.exception("model %s: the warm-up failed", served.name)
            raise GlowplugError(
                f"model {served.name!r} loaded, but its first prediction failed: {type(error).__name__}: {error}"
            ) from error

    async def _start(self) -> None:
        assert self._listener is not None
        if self._grpc is not None:
            await self._grpc.start()
        self._metrics.watch_first_answer()
        await self._listener.start()
        self._timeline.mark(LISTENING)
        started = process_samples().get("process_start_time_seconds")
        if started is not None:
            self._metrics.start_to_ready_s = max(time.time() - started[2], 0.0)
        took = f" {self._metrics.start_to_ready_s:.2f} s after start" if started else ""
        grpc = f", gRPC {self._config.host}:{self.grpc_port}" if self.grpc_port else ""
        log.info("ready%s: HTTP %s:%d%s", took, self._config.host, self.http_port, grpc)

    async def _drain(self) -> bool:
        """Whether everything in flight was finished."""
        config = self._config
        log.info("stopping: %d requests in flight", self._metrics.in_flight)
        assert self._listener is not None
        self._plane.is_draining = True
        self._listener.begin_drain()
        await self._unless_forced(asyncio.sleep(config.drain_delay_s))
        self._listener.close()
        work = [self._listener.drained()]
        if self._grpc is not None:
            work.append(self._grpc.drain(config.drain_timeout_s))
        return await self._unless_forced(
            asyncio.wait_for(asyncio.gather(*work), config.drain_timeout_s + 1.0)
        )

    async def _unless_forced(self, work: Any) -> bool:
        """Awaits work; False where a second signal or the time-out came first, and the work is then cancelled."""
        task = asyncio.ensure_future(work)
        forced = asyncio.ensure_future(self._forced.wait())
        await asyncio.wait({task, forced}, return_when=asyncio.FIRST_COMPLETED)
        is_done = task.done() and not task.cancelled() and task.exception() is None
        for future in (task, forced):
            future.cancel()
        await asyncio.gather(task, forced, return_exceptions=True)
        return is_done

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            await self._listener.abort()
        if self._grpc is not None:
            await self._grpc.abort()
        await self._plane.close()
        if self._predictor is not None:
            await self._predictor.aclose()
        if self._lock is not None:
            await self._lock.aclose()
        if self._copying is not None:
            self._copying.close()
