"""What HTTP and gRPC have in common: the models, whether they are ready, and how many requests are let in."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from glowplug.errors import GlowplugError, InferenceError
from glowplug.serving.light import Served
from glowplug.serving.metrics import Metrics
from glowplug.serving.urgency import Expired
from glowplug.wire import InferRequest, InferResponse

log = logging.getLogger("glowplug.serving")

# For ids, which need not be unguessable: the operating system's own randomness costs as much as encoding an answer.
_random_bits = Random().getrandbits

SERVER_NAME = "glowplug"
EXTENSIONS = ("binary_tensor_data", "model_repository")


class Overloaded(InferenceError):
    """As many requests as are allowed are being served or wait for it: come back later."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} requests are being served, which is the limit; try again later", code=503)


@dataclass
class Entry:
    """A model of the repository; `is_loaded` from the end of its warm-up until it is unloaded."""

    served: Served
    is_loaded: bool = False
    reason: str = ""


class DataPlane:
    """One writer of the repository's state. `is_draining` turns readiness off; requests are still served."""

    def __init__(
        self,
        served: Sequence[Served],
        metrics: Metrics,
        *,
        max_in_flight: int,
        is_predictor_ready: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.entries = {model.name: Entry(model) for model in served}
        self.metrics = metrics
        self.is_draining = False
        self.max_in_flight = max_in_flight
        self._is_predictor_ready = is_predictor_ready

    def entry(self, name: str, version: str = "") -> Entry:
        """The model of that name. Raises InferenceError (404)."""
        entry = self.entries.get(name)
        if entry is None:
            known = ", ".join(repr(key) for key in self.entries) or "none"
            raise InferenceError(f"no model {name[:80]!r}; the models are: {known}", code=404)
        return entry

    def served(self, name: str) -> Served:
        """A model that can predict, any version. Raises InferenceError: 404 unknown, 503 not loaded."""
        entry = self.entry(name)
        if not entry.is_loaded:
            raise InferenceError(
                f"model {name!r} is not ready{entry.reason and ': ' + entry.reason}", code=503
            )
        return entry.served

    async def loaded(self, name: str, version: str = "") -> Served:
        """A model that can predict. Raises InferenceError: 404 unknown, or no such version; 503 not loaded."""
        served = self.served(name)
        if version:
            versions = (await served.metadata()).versions or ("1",)
            if version not in versions:
                raise InferenceError(
                    f"model {name!r} has no version {version[:80]!r}; it has {', '.join(versions)}", code=404
                )
        return served

    def enter(self) -> None:
        """Takes one of the places for requests, to be given back by `leave`. Raises Overloaded where none is free."""
        metrics = self.metrics
        if metrics.in_flight >= self.max_in_flight:
            raise Overloaded(self.max_in_flight)
        metrics.in_flight += 1

    def leave(self) -> None:
        """Gives a place back."""
        self.metrics.in_flight -= 1

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Holds a place. Raises Overloaded where none is free."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def count(self, name: str, protocol: str, code: str, error: Exception | None = None) -> None:
        """Counts an answer under its model, and an unknown model under none: labels are kept for ever."""
        model = name if name in self.entries else ""
        self.metrics.count(model, protocol, code)
        if isinstance(error, Expired):
            self.metrics.drop(model, "deadline")
        elif isinstance(error, Overloaded):
            self.metrics.drop(model, "overload")

    async def is_ready(self) -> bool:
        """Whether every model can predict now, and the predictor if that is asked for, and no shutdown has begun."""
        if self.is_draining:
            return False
        for entry in self.entries.values():
            if not (entry.is_loaded and await entry.served.is_ready()):
                return False
        return self._is_predictor_ready is None or await self._is_predictor_ready()

    async def is_model_ready(self, name: str, version: str = "") -> bool:
        """The same for one model. Raises InferenceError (404)."""
        entry = self.entry(name)
        if self.is_draining or not entry.is_loaded:
            return False
        await self.loaded(name, version)
        if not await entry.served.is_ready():
            return False
        return self._is_predictor_ready is None or await self._is_predictor_ready()

    async def index(self, only_ready: bool = False) -> list[dict[str, str]]:
        """Every model and its state, as the model repository extension lists them."""
        rows = []
        for name, entry in self.entries.items():
            is_ready = entry.is_loaded and await entry.served.is_ready()
            if is_ready or not only_ready:
                state = "READY" if is_ready else "UNAVAILABLE"
                rows.append({"name": name, "state": state, "reason": entry.reason})
        return rows

    async def load(self, name: str) -> None:
        """Loads or reloads. Raises InferenceError: 404 unknown, 503 with the reason where it cannot be loaded."""
        entry = self.entry(name)
        try:
            await entry.served.load()
            await entry.served.warmup()
        except GlowplugError as error:
            raise InferenceError(f"model {name!r} cannot be loaded: {error.message}", code=503) from error
        entry.is_loaded, entry.reason = True, ""

    async def unload(self, name: str) -> None:
        """Takes the model out of service. Raises InferenceError (404)."""
        entry = self.entry(name)
        entry.is_loaded, entry.reason = False, "unloaded"

    async def close(self) -> None:
        """Closes every model; one that fails does not keep the others open."""
        for name, entry in self.entries.items():
            entry.is_loaded = False
            try:
                await entry.served.close()
            except Exception:
                log.exception("model %s: close failed", name)


def identified(response: InferResponse, request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
    """The response with an id: its own, the request's, the X-Request-ID, or a new one."""
    if response.id:
        return response
    name = request.id or headers.get("x-request-id") or f"{_random_bits(128):032x}"
    return InferResponse(
        response.model_name, response.outputs, name, response.model_version, response.parameters
    )


def as_inference_error(error: BaseException, owner: str) -> InferenceError:
    """What a caller is told. A bug of the model or ours is logged with its traceback and told without detail."""
    if isinstance(error, InferenceError):
        return error
    foreign = _FOREIGN.get(f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}")
    if foreign is not None:
        return InferenceError(str(error) or type(error).__name__, code=foreign)
    if isinstance(error, NotImplementedError):
        return InferenceError(str(error) or f"{owner} does not implement this", code=501)
    transport = _transport_error(error)
    if transport is not None:
        return transport
    log.error("%s failed", owner, exc_info=error)
    return InferenceError(
        f"{owner} failed ({type(error).__name__}); the server's log has the details", code=500
    )


# Errors of kserve's that models raise; by name, so that kserve need not be imported.
_FOREIGN = {
    "kserve.InvalidInput": 400,
    "kserve.InferenceError": 500,
    "kserve.ModelNotFound": 404,
    "kserve.ModelNotReady": 503,
    "kserve.ServerNotReady": 503,
    "kserve.ServerNotLive": 503,
    "kserve.UnsupportedProtocol": 501,
}


def _transport_error(error: Any) -> InferenceError | None:
    """What kserve's own clients raise in a transformer: httpx's and gRPC's errors, as the caller should see them."""
    module = type(error).__module__.partition(".")[0]
    if module == "httpx":
        response = getattr(error, "response", None)
        if response is not None:
            return InferenceError(f"the predictor answered {response.status_code}", code=response.status_code)
        code = 504 if "Timeout" in type(error).__name__ else 503
        return InferenceError(f"the predictor cannot be reached ({type(error).__name__})", code=code)
    if module == "grpc":
        from glowplug.serving.codes import http_code

        status = error.code() if hasattr(error, "code") else None
        if status is not None:
            return InferenceError(f"the predictor: {error.details()}", code=http_code(status.name))
    return None
