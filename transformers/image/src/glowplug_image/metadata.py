"""Asks the predictor what it takes and gives, over gRPC or REST as it is called; V1 does not say."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import quote

from glowplug.errors import InferenceError
from glowplug.serving import PredictorConfig, TensorSpec
from glowplug.serving.http_client import HttpClient
from glowplug.wire import v2_grpc, v2_json
from glowplug.wire.protobuf import BYTES, VARINT, fields, packed_varints, to_signed, to_text
from glowplug.wire.v2_grpc import ModelId, ModelMetadata

TIMEOUT_S = 2.0
# Field numbers of ModelMetadataResponse.
_NAME, _INPUTS, _OUTPUTS = 1, 4, 5


async def predictor_metadata(config: PredictorConfig, model_name: str) -> ModelMetadata | None:
    """The metadata, or None where the protocol has none. Raises InferenceError (503) without an answer."""
    if config.protocol == "v1":
        return None
    ask = _over_grpc if config.protocol == "grpc-v2" else _over_http
    try:
        return await asyncio.wait_for(ask(config, model_name), TIMEOUT_S)
    except (asyncio.TimeoutError, OSError) as error:
        raise InferenceError(
            f"the predictor at {config.host} has no metadata yet: {error}", code=503
        ) from error


async def _over_grpc(config: PredictorConfig, model_name: str) -> ModelMetadata:
    import grpc.aio

    host, port = _address(config)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = [("grpc.enable_http_proxy", 0)]
    channel = (
        grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=options)
        if config.use_ssl
        else grpc.aio.insecure_channel(target, options=options)
    )
    async with channel:
        call = channel.unary_unary(f"/{v2_grpc.SERVICE}/ModelMetadata")
        try:
            answer = await call(v2_grpc.encode_model_id(ModelId(model_name)), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise InferenceError(f"the predictor: {error.details()}", code=503) from error
    return decode_metadata(answer)


async def _over_http(config: PredictorConfig, model_name: str) -> ModelMetadata:
    host, port = _address(config)
    client = HttpClient(host, port, tls=ssl.create_default_context() if config.use_ssl else None)
    try:
        answer = await client.request("GET", f"/v2/models/{quote(model_name, safe='')}", {})
    finally:
        await client.aclose()
    if answer.status != 200:
        raise InferenceError(f"the predictor answers {answer.status} when asked for its metadata", code=503)
    document = v2_json.parse_json(answer.body, "the predictor's metadata")
    try:
        inputs, outputs = (
            tuple(_of_json(item) for item in document.get(key) or ()) for key in ("inputs", "outputs")
        )
        return ModelMetadata(str(document["name"]), inputs=inputs, outputs=outputs)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InferenceError(f"the predictor's metadata cannot be read: {error!r}", code=503) from error


def _of_json(item: Any) -> TensorSpec:
    shape = tuple(int(size) for size in item["shape"])
    return TensorSpec(str(item["name"]), str(item["datatype"]), shape)


def decode_metadata(data: bytes) -> ModelMetadata:
    """A ModelMetadataResponse, without platform and versions. Raises InferenceError for what is none."""
    name = ""
    tensors: dict[int, list[TensorSpec]] = {_INPUTS: [], _OUTPUTS: []}
    for number, wire, value in fields(memoryview(data)):
        if number == _NAME and wire == BYTES:
            name = to_text(value)
        elif number in tensors and wire == BYTES:
            tensors[number].append(_of_message(value))
    return ModelMetadata(name, inputs=tuple(tensors[_INPUTS]), outputs=tuple(tensors[_OUTPUTS]))


def _of_message(data: memoryview) -> TensorSpec:
    texts = {1: "", 2: ""}
    shape: list[int] = []
    for number, wire, value in fields(data):
        if number in texts and wire == BYTES:
            texts[number] = to_text(value)
        elif number == 3:
            sizes = [value] if wire == VARINT else packed_varints(value).tolist()
            shape.extend(to_signed(int(size)) for size in sizes)
    return TensorSpec(texts[1], texts[2], tuple(shape))


def _address(config: PredictorConfig) -> tuple[str, int]:
    """Host and port of `name[:port]`, `http://name[:port]` or `[v6]:port`, as PredictorClient reads them."""
    text = (config.host.partition("://")[2] or config.host).rstrip("/")
    host, _, port = text.rpartition(":")
    if host and port.isdigit():
        return host.strip("[]"), int(port)
    return text.strip("[]"), 443 if config.use_ssl else 80
