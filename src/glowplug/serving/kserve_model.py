"""Runs subclasses of kserve.Model unchanged, as kserve.ModelServer would.

kserve is never imported from here: a model that is one has already imported it, so its classes are taken from
`sys.modules`. The model gets what it would get from KServe: a dict for V1, a kserve.InferRequest for V2, the
headers; and is called as a whole, so that an overridden `__call__` counts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from glowplug.errors import GlowplugError, InferenceError
from glowplug.serving.batcher import Call, Done
from glowplug.serving.config import PredictorConfig, predictor_options
from glowplug.serving.light import settle
from glowplug.serving.urgency import Urgency, remaining_s
from glowplug.wire import InferRequest, InferResponse, Tensor, v1, v2_grpc, v2_json
from glowplug.wire.binary import decode_raw, encode_raw
from glowplug.wire.datatypes import DATATYPES, datatype_of
from glowplug.wire.json_data import decode_data
from glowplug.wire.v2_grpc import ModelMetadata, TensorMetadata


def is_kserve_model(model: object) -> bool:
    """Whether it is a subclass of kserve's, told without importing kserve."""
    return any(
        base.__module__ == "kserve.model" and base.__name__ == "BaseKServeModel"
        for base in type(model).__mro__
    )


class KServeModel:
    """A `Served` made of a kserve.Model. `accepts_missing` is True where the model has an attribute that says so."""

    def __init__(self, model: Any, predictor: PredictorConfig) -> None:
        self.name: str = model.name
        self._model = model
        self._types = sys.modules["kserve.protocol.infer_type"]
        sys.modules["kserve.context"].set_predictor_config(
            sys.modules["kserve.predictor_config"].PredictorConfig(**predictor_options(predictor))
        )

    @property
    def is_direct(self) -> bool:
        """Never: kserve's own stages are coroutines."""
        return False

    def submit(self, request: InferRequest, asked: Urgency, done: Done) -> Call:
        raise NotImplementedError("is_direct is False")

    @property
    def accepts_missing(self) -> bool:
        """kserve.Model has no such attribute; a subclass may."""
        return bool(getattr(self._model, "accepts_missing", False))

    async def load(self) -> None:
        """Loads, unless the user's main did so before; then starts it."""
        model = self._model
        if not model.ready:
            try:
                await settle(model.load())
            except GlowplugError:
                raise
            except Exception as error:
                raise GlowplugError(
                    f"model {self.name!r} cannot be loaded: {type(error).__name__}: {error}"
                ) from error
        if not model.ready:
            raise GlowplugError(
                f"model {self.name!r}: load() left it not ready", hint="load() must set self.ready = True"
            )
        model.start()
        if getattr(model, "engine", False):
            await settle(model.start_engine())

    async def warmup(self) -> None:
        """Only where the model has a `warmup` of its own: what zeros do to a stranger's model is unknown."""
        warmup = getattr(self._model, "warmup", None)
        if callable(warmup):
            await settle(warmup())

    async def improve(self) -> None:
        """Nothing: kserve.Model has no such step."""

    async def is_ready(self) -> bool:
        return bool(await settle(self._model.healthy()))

    async def close(self) -> None:
        self._model.stop()
        if getattr(self._model, "engine", False):
            self._model.stop_engine()
        factory = sys.modules.get("kserve.utils.inference_client_factory")
        if factory is not None:
            await factory.InferenceClientFactory().close()

    async def metadata(self) -> ModelMetadata:
        inputs = await settle(self._model.get_input_types())
        outputs = await settle(self._model.get_output_types())
        return ModelMetadata(self.name, "", _specs(inputs), _specs(outputs))

    async def infer(self, request: InferRequest, headers: Mapping[str, str]) -> InferResponse:
        remaining_s()
        asked = to_kserve(self._types, request)
        answer, _ = await self._model(asked, headers=dict(headers))
        return from_kserve(answer, self.name)

    async def predict_v1(self, document: Any, headers: Mapping[str, str]) -> Any:
        v1.payload_of(document)
        remaining_s()
        answer, _ = await self._model(document, headers=dict(headers))
        return await _v1_answer(answer)

    async def explain_v1(self, document: Any, headers: Mapping[str, str]) -> Any:
        verb = sys.modules["kserve.model"].InferenceVerb.EXPLAIN
        answer, _ = await self._model(document, headers=dict(headers), verb=verb)
        return await _v1_answer(answer)


async def _v1_answer(answer: Any) -> Any:
    if hasattr(answer, "__aiter__"):
        chunks = [chunk if isinstance(chunk, bytes) else str(chunk).encode() async for chunk in answer]
        return b"".join(chunks)
    if isinstance(answer, str):
        return answer.encode()
    if hasattr(answer, "outputs"):
        return v1.encode_response(from_kserve(answer, ""))
    return answer


def _specs(items: Any) -> tuple[TensorMetadata, ...]:
    return tuple(TensorMetadata(item["name"], item["datatype"], tuple(item["shape"])) for item in items or ())


def to_kserve(types: Any, request: InferRequest) -> Any:
    """A kserve.InferRequest: the client's own lists where it sent JSON, raw contents where it sent those."""
    lists = (request.document or {}).get("inputs") or [{}] * len(request.inputs)
    inputs = [
        _to_kserve_input(types, tensor, item, request.is_raw)
        for tensor, item in zip(request.inputs, lists, strict=True)
    ]
    outputs = [types.RequestedOutput(item.name, dict(item.parameters)) for item in request.outputs] or None
    from_grpc = request.document is None
    asked = types.InferRequest(
        request.model_name,
        inputs,
        request_id=request.id or None,
        from_grpc=from_grpc,
        parameters=dict(request.parameters),
        request_outputs=outputs,
        model_version=request.model_version or None,
    )
    asked._use_raw_outputs = request.is_raw
    return asked


def _to_kserve_input(types: Any, tensor: Tensor, item: Mapping[str, Any], is_raw: bool) -> Any:
    made = types.InferInput(
        tensor.name, list(tensor.shape), tensor.datatype, data=[], parameters=dict(tensor.parameters)
    )
    if "data" in item:
        made.data = item["data"]
    elif is_raw:
        made._raw_data = encode_raw(tensor)
    elif tensor.datatype == "BYTES":
        made.data = list(tensor.data)
    else:
        made.data = tensor.data.reshape(-1).tolist()
    return made


def from_kserve(answer: Any, model_name: str) -> InferResponse:
    """What a kserve.Model may return for V2: a kserve.InferResponse, a protobuf message, or a dict of V2's form.

    Raises InferenceError (500) for anything else.
    """
    if isinstance(answer, dict):
        return v2_json.decode_response_document({"model_name": model_name, **answer})
    if hasattr(answer, "SerializeToString"):
        return v2_grpc.decode_infer_response(answer.SerializeToString())
    if not hasattr(answer, "outputs"):
        raise InferenceError(
            f"model {model_name!r} returned {type(answer).__name__}, expected InferResponse", code=500
        )
    try:
        outputs = tuple(_from_kserve_output(output) for output in answer.outputs)
    except InferenceError as error:
        raise InferenceError(
            f"model {model_name!r} returned a broken output: {error.message}", code=500
        ) from error
    parameters = _plain_parameters(answer.parameters)
    return InferResponse(
        answer.model_name or model_name, outputs, answer.id or "", answer.model_version or "", parameters
    )


def _from_kserve_output(output: Any) -> Tensor:
    shape = tuple(int(dimension) for dimension in output.shape)
    parameters = _plain_parameters(output.parameters)
    parameters.pop("binary_data_size", None)
    if output._raw_data is not None:
        data = decode_raw(output.name, output.datatype, shape, output._raw_data, accepts_missing=True)
    elif hasattr(output.data, "dtype"):
        datatype = output.datatype if output.datatype in DATATYPES else datatype_of(output.data.dtype)
        made = Tensor.from_numpy(output.name, output.data.reshape(shape), datatype)
        return Tensor(output.name, datatype, shape, made.data, parameters)
    else:
        data = decode_data(output.name, output.datatype, shape, list(output.data), accepts_missing=True)
    return Tensor(output.name, output.datatype, shape, data, parameters)


def _plain_parameters(parameters: Any) -> dict[str, Any]:
    """Parameters as plain values; those of a protobuf map are InferParameter messages."""
    plain: dict[str, Any] = {}
    for key, value in (parameters or {}).items():
        choice = value.WhichOneof("parameter_choice") if hasattr(value, "WhichOneof") else None
        plain[key] = getattr(value, choice) if choice else value
    return plain
