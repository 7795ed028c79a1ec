"""Runs a light `Model`: what is async is awaited, what is slow and says so runs in a thread, stages are timed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Protocol

from glowplug.errors import InferenceError
from glowplug.serving.batcher import Batcher, Call, Done, checked, predicted
from glowplug.serving.declared import check_inputs
from glowplug.serving.metrics import Metrics
from glowplug.serving.model import Model
from glowplug.serving.urgency import Urgency, remaining_s
from glowplug.wire import InferRequest, InferResponse, v1
from glowplug.wire.v2_grpc import ModelMetadata


class Served(Protocol):
    """A model as the data plane uses it; `light.py` and `kserve_model.py` make one of what the user wrote."""

    @property
    def name(self) -> str: ...
    @property
    def accepts_missing(self) -> bool: ...
    async def load(self) -> None: ...
    async def warmup(self) -> None: ...
    async def improve(self) -> None: ...
    async def is_ready(self) -> bool: ...
    async def close(self) -> None: ...
    async def metadata(self) -> ModelMetadata: ...
    async def infer(self, request: InferRequest, headers: Mapping[str, str]) -> InferResponse: ...
    @property
    def is_direct(self) -> bool: ...
    def submit(self, request: InferRequest, asked: Urgency, done: Done) -> Call: ...
    async def predict_v1(self, document: Any, headers: Mapping[str, str]) -> Any: ...
    async def explain_v1(self, document: Any, headers: Mapping[str, str]) -> Any: ...


async def settle(value: Any) -> Any:
    """The value, awaited if it can be."""
    return await value if hasattr(value, "__await__") else value


class LightModel:
    """A `Served` of ours."""

    def __init__(self, model: Model, metrics: Metrics) -> None:
        self.name = model.name
        self._model = model
        self._metrics = metrics
        self._batcher = Batcher(model, metrics)
        kind = type(model)
        # A stage that is not overridden costs nothing.
        self._has_preprocess = kind.preprocess is not Model.preprocess
        self._has_postprocess = kind.postprocess is not Model.postprocess

    @property
    def accepts_missing(self) -> bool:
        """Whether null and NaN are let through to `predict`; known for certain only once loaded."""
        return self._model.accepts_missing

    async def load(self) -> None:
        await settle(self._model.load())

    async def warmup(self) -> None:
        await settle(self._model.warmup())
        self._metrics.facts[self.name] = dict(self._model.facts)

    async def improve(self) -> None:
        """Off the event loop, unless there is nothing to do."""
        if type(self._model).improve is not Model.improve:
            await asyncio.get_running_loop().run_in_executor(None, self._model.improve)
            self._metrics.facts[self.name] = dict(self._model.facts)

    async def is_ready(self) -> bool:
        return bool(await settle(self._model.is_ready()))

    async def close(self) -> None:
        await self._batcher.close()
        await settle(self._model.close())

    async def metadata(self) -> ModelMetadata:
        model = self._model
        versions = (model.version,) if model.version else ()
        inputs, outputs = tuple(model.inputs), tuple(model.outputs)
        return ModelMetadata(self.name, model.platform, inputs, outputs, versions, tuple(model.columns))

    async def infer(self, request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        model, metrics = self._model, self._metrics
        self._check(request)
        started = perf_counter()
        if self._has_preprocess:
            request = await settle(model.preprocess(request))
            now = perf_counter()
            metrics.preprocess.observe(self.name, now - started)
        remaining_s()
        response: Any
        if model.max_batch_size > 1:
            response = await self._batcher.infer(request)
        else:
            response = await self._predict(request)
        if self._has_postprocess:
            started = perf_counter()
            response = await settle(model.postprocess(response))
            metrics.postprocess.observe(self.name, perf_counter() - started)
        return checked(response, self.name)

    @property
    def is_direct(self) -> bool:
        """Whether `submit` may be called: `infer` without a task, for models that only batch."""
        return self._model.max_batch_size > 1 and not (self._has_preprocess or self._has_postprocess)

    def submit(self, request: InferRequest, asked: Urgency, done: Done) -> Call:
        """The same prediction as `infer`, told to `done` later; the call that it returns can be cancelled.

        Raises InferenceError (400), and tells `done` nothing then, where the inputs are not the model's.
        """
        self._check(request)
        return self._batcher.submit(request, asked, done)

    def _check(self, request: InferRequest) -> None:
        model = self._model
        if model.checks_inputs and model.inputs:
            check_inputs(model.inputs, request.inputs)

    async def _predict(self, request: InferRequest) -> Any:
        started = perf_counter()
        response = await predicted(self._model, request)
        self._metrics.predict.observe(self.name, perf_counter() - started)
        return response

    async def predict_v1(self, document: Any, headers: Mapping[str, str]) -> Any:
        request = v1.decode_request(
            document,
            model_name=self.name,
            declared=self._model.inputs,
            accepts_missing=self._model.accepts_missing,
        )
        return v1.encode_response(await self.infer(request, headers))

    async def explain_v1(self, document: Any, headers: Mapping[str, str]) -> Any:
        raise InferenceError(f"model {self.name!r} has no explainer", code=501)
