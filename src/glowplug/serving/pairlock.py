"""What a server under a pair lock does besides serving: it refuses what is meant for another pair, and a transformer
listens only when its partner can be reached, or is gone for good.

It does not listen, rather than say that it is not ready: most transformers' readiness probe is Knative's default, a TCP
connection. Nothing of this is imported, and no request pays for it, where there is no lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from glowplug.errors import ConfigError, InferenceError
from glowplug.serving.config import ServerConfig
from glowplug.serving.dataplane import DataPlane
from glowplug.serving.grpc_server import GrpcEndpoints
from glowplug.serving.handing_on import HandingOn
from glowplug.serving.http import HttpEndpoints
from glowplug.serving.light import LightModel
from glowplug.serving.metrics import Metrics
from glowplug.serving.model import Model
from glowplug.serving.pair import NoPartner
from glowplug.serving.paired import Pair
from glowplug.serving.paired_grpc import LockedGrpcEndpoints
from glowplug.serving.paired_http import LockedHttpEndpoints
from glowplug.serving.predictor_client import PredictorClient
from glowplug.wire import InferRequest, InferResponse, cloudevents

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 0.5

log = logging.getLogger("glowplug.serving.pair")


class PairLock:
    """The lock of one process. Of a predictor: only refusals. Of a transformer: the way to its partner too."""

    def __init__(self, config: ServerConfig) -> None:
        self._pair = Pair(config.pair, config.transformer_host, config.revision)
        if not self._pair.id.isprintable() or not self._pair.id.isascii():
            raise ConfigError(f"the pair {self._pair.id!r} ($GLOWPLUG_PAIR), expected printable ASCII")
        self._client = PredictorClient(config.predictor) if config.predictor.host else None
        self._on: HandingOn | None = None
        if self._client is not None and self._pair.transformer_host:
            self._on = HandingOn(self._pair, config.predictor)
        self._why_not = ""
        # Whether this transformer started when its predictor had gone.
        self.is_late = False

    @property
    def is_transformer(self) -> bool:
        """Whether there is a predictor to be locked to."""
        return self._client is not None

    def light_model(self, model: Model, metrics: Metrics) -> LightModel:
        """A model, locked: only a transformer differs, whose requests may have to be handed on."""
        return LightModel(model, metrics) if self._on is None else _Transformer(model, metrics, self)

    def http_endpoints(
        self, plane: DataPlane, *, max_body_bytes: int, events: cloudevents.ResponsePolicy
    ) -> HttpEndpoints:
        """The HTTP endpoints, locked."""
        return LockedHttpEndpoints(
            plane, max_body_bytes=max_body_bytes, events=events, pair=self._pair, on=self._on
        )

    def grpc_endpoints(self, plane: DataPlane) -> GrpcEndpoints:
        """The gRPC methods, locked."""
        return LockedGrpcEndpoints(plane, self._pair, self._on)

    async def settled(self) -> None:
        """Returns when a transformer may take requests: its partner was found, or a newer transformer is there.

        A new transformer waits for its predictor, so that traffic does not move to it before; one that starts once its
        predictor has gone (out of zero, say) hands on what still reaches it.
        """
        pause_s = FIRST_PAUSE_S
        while self._client is not None:
            try:
                await self._client.find_partner()
                return
            except NoPartner as error:
                if self._on is not None and await self._on.is_there_a_newer():
                    log.warning("a newer transformer is handed all requests: %s", error.message)
                    self.is_late = True
                    return
                self._tell(error)
            except InferenceError as error:
                self._tell(error)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)

    async def find_again(self) -> None:
        """For a transformer that is late: raises NoPartner unless its predictor has come back."""
        if self._client is not None:
            await self._client.find_partner()
        self.is_late = False

    def _tell(self, error: InferenceError) -> None:
        if error.message != self._why_not:
            self._why_not = error.message
            log.warning("not listening yet: %s", error.message)

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()
        if self._on is not None:
            await self._on.aclose()


class _Transformer(LightModel):
    """A model whose every request has a task, since it may have to be handed on."""

    def __init__(self, model: Model, metrics: Metrics, lock: PairLock) -> None:
        super().__init__(model, metrics)
        self._lock = lock

    @property
    def is_direct(self) -> bool:
        return False

    async def is_ready(self) -> bool:
        # Many a transformer is not ready before it knows what its predictor takes; to hand on it need not be.
        return self._lock.is_late or await super().is_ready()

    async def infer(self, request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        if self._lock.is_late:
            await self._lock.find_again()
        return await super().infer(request, headers)
