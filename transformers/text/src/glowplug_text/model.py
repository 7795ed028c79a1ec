"""The transformer: texts → tokens → the predictor → its outputs, as they are."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.serving import Model, PredictorClient, ServerConfig, TensorSpec
from glowplug.wire import InferRequest, InferResponse
from glowplug_text.fit import ALL, Taken, fit, tensors
from glowplug_text.payload import texts_of
from glowplug_text.settings import TextConfig
from glowplug_text.tokens import MASK, Tokenizer

log = logging.getLogger("glowplug.text")

INPUT = "text"
# Up to here texts are tokenised on the event loop, in a millisecond or two: a hop to a thread costs 0.04 ms.
QUICK_BYTES = 8192


class TextTransformer(Model):
    """Input: BYTES [n], a text each. Outputs: the predictor's."""

    platform = "glowplug-text"
    inputs = (TensorSpec(INPUT, "BYTES", (-1,)),)

    def __init__(self, config: ServerConfig, texts: TextConfig, tokenizer: Path) -> None:
        super().__init__(config.model_name)
        self._config = texts
        self._place = tokenizer
        self._predictor = PredictorClient(config.predictor)
        self._tokenizer: Tokenizer = None  # type: ignore[assignment]
        self._taken: tuple[Taken, ...] = ()
        self._not_ready = ""
        # One: the tokenizer would only share a CPU with itself.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="text")

    def load(self) -> None:
        """Reads the tokenizer. Raises StorageError or ConfigError."""
        self._tokenizer = Tokenizer(self._place, self._config)

    async def warmup(self) -> None:
        """Opens the connection. The predictor need not be there yet: readiness waits for it."""
        self._tokenizer(["warm-up"])
        await self.is_ready()

    async def is_ready(self) -> bool:
        """Whether the predictor takes these tensors; asked until it does, then never again."""
        if not self._taken:
            reason = await self._misfit()
            if reason and reason != self._not_ready:
                log.warning("not ready: %s", reason)
            self._not_ready = reason
        return bool(self._taken)

    async def predict(self, request: InferRequest) -> InferResponse:
        """Raises InferenceError: 400 for texts that are refused, 503 without a predictor that fits."""
        if not self._taken and not await self.is_ready():
            raise InferenceError(f"{self.name} is not ready: {self._not_ready}", code=503)
        arrays = await self._tokens(texts_of(request, self._config))
        empty = np.flatnonzero(~arrays[MASK].any(axis=1))
        if empty.size:
            raise InferenceError(f"tensor {request.inputs[0].name!r}: text {empty[0]} has no tokens")
        response = await self._predictor.infer(
            InferRequest(self.name, tensors(self._taken, arrays), id=request.id, outputs=request.outputs)
        )
        return replace(response, model_name=self.name, id=request.id)

    async def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        await self._predictor.aclose()

    async def _tokens(self, texts: list[str]) -> dict[str, Any]:
        if sum(map(len, texts)) <= QUICK_BYTES:
            return self._tokenizer(texts)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._tokenizer, texts)

    async def _misfit(self) -> str:
        """Why the predictor cannot be used yet, or ""."""
        try:
            metadata = await self._predictor.metadata(self.name)
        except InferenceError as error:
            return error.message
        if metadata is None:
            self._taken = ALL
            return ""
        self._taken, reason = fit(metadata, self._config)
        if not reason:
            self.outputs = metadata.outputs
        return reason
