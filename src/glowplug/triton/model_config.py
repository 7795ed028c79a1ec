"""One model's configuration for Triton: values, what is wrong with them, and their two written forms.

`to_message` is for `config.pbtxt`, `to_json` for a load request over the repository API.

A queue limit (`default_queue_policy { max_queue_size }`) is left out on purpose: with one, Triton 2.51 gives a batch
to an instance only when the next request arrives, so that 32 clients that wait for their answers stall for 500 ms a
batch (measured: 79 instead of 6,882 requests a second).
Source: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from glowplug.triton.pbtxt import Message, Value, Word
from glowplug.wire.datatypes import DATATYPES

MAX_BATCH_SIZE = 32
MAX_QUEUE_DELAY_US = 5000
KINDS = ("KIND_CPU", "KIND_GPU")
# A model's name is a folder's name and a part of URLs.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class TensorConfig:
    """An input or output. `dims` has no batch axis where the model takes batches; -1 is any size.

    `is_flat`: a row has no axis of its own ([n] for n rows), which Triton writes as dims [1] reshaped to [].
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    is_flat: bool = False

    def to_message(self) -> Message:
        shown: Message = {
            "name": [self.name],
            "data_type": [Word(triton_type(self.datatype))],
            "dims": [1] if self.is_flat else list(self.dims),
        }
        if self.is_flat:
            shown["reshape"] = [{"shape": []}]
        return shown


@dataclass(frozen=True)
class DynamicBatching:
    """Requests wait up to `max_queue_delay_us` for others to form a batch with."""

    max_queue_delay_us: int = MAX_QUEUE_DELAY_US
    preferred_batch_sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Instances:
    """`count` copies of the model on each device of the kind."""

    count: int = 1
    kind: str = "KIND_CPU"


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions are served: the latest N, or those named, or all of them (neither)."""

    latest: int | None = 1
    specific: tuple[int, ...] = ()

    def to_message(self) -> Message:
        if self.specific:
            return {"specific": [{"versions": list(self.specific)}]}
        if self.latest is None:
            return {"all": [{}]}
        return {"latest": [{"num_versions": [self.latest]}]}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that is written. `warmup` are batch sizes to run once with zeros before the model is ready."""

    name: str
    backend: str
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    max_batch_size: int = MAX_BATCH_SIZE
    batching: DynamicBatching | None = field(default_factory=DynamicBatching)
    instances: Instances = field(default_factory=Instances)
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    warmup: tuple[int, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    model_file: str = ""


def triton_type(datatype: str) -> str:
    """TYPE_FP32 for FP32; V2's BYTES is Triton's TYPE_STRING."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def problems(config: ModelConfig) -> tuple[str, ...]:
    """Everything that is wrong, each with the field, what was found and what was expected."""
    return tuple(_problems(config))


def _problems(config: ModelConfig) -> Iterator[str]:
    if not _NAME.fullmatch(config.name):
        yield f"name {config.name!r}: expected letters, digits, . _ -, and a letter or digit first"
    if config.max_batch_size < 0:
        yield f"max batch size {config.max_batch_size}: expected 0 (no batching) or more"
    if config.instances.count < 1:
        yield f"instances {config.instances.count}: expected 1 or more"
    if config.instances.kind not in KINDS:
        yield f"kind {config.instances.kind!r}: expected one of {', '.join(KINDS)}"
    yield from _batching_problems(config)
    if config.versions.latest is not None and config.versions.latest < 1:
        yield f"versions latest:{config.versions.latest}: expected 1 or more"
    for what, tensors in (("input", config.inputs), ("output", config.outputs)):
        seen: set[str] = set()
        for tensor in tensors:
            yield from _tensor_problems(what, tensor)
            if tensor.name in seen:
                yield f"{what} {tensor.name!r} is named twice"
            seen.add(tensor.name)


def _batching_problems(config: ModelConfig) -> Iterator[str]:
    if config.batching is None:
        return
    if config.batching.max_queue_delay_us < 0:
        yield f"max queue delay {config.batching.max_queue_delay_us} us: expected 0 or more"
    for size in config.batching.preferred_batch_sizes:
        if not 1 <= size <= max(config.max_batch_size, 1):
            yield f"preferred batch size {size}: expected 1 to the max batch size {config.max_batch_size}"


def _tensor_problems(what: str, tensor: TensorConfig) -> Iterator[str]:
    if not tensor.name:
        yield f"an {what} has no name"
    if tensor.datatype not in DATATYPES:
        yield f"{what} {tensor.name!r}: datatype {tensor.datatype!r}, expected one of {', '.join(DATATYPES)}"
    if not tensor.dims and not tensor.is_flat:
        yield f"{what} {tensor.name!r}: no dims, expected at least one"
    for size in tensor.dims:
        if size < 1 and size != -1:
            yield f"{what} {tensor.name!r}: dim {size}, expected 1 or more, or -1 for any"


def to_message(config: ModelConfig) -> Message:
    """The message of `config.pbtxt`."""
    message: Message = {"name": [config.name], "backend": [config.backend]}
    if config.model_file:
        message["default_model_filename"] = [config.model_file]
    message["max_batch_size"] = [config.max_batch_size]
    for name, tensors in (("input", config.inputs), ("output", config.outputs)):
        if tensors:
            message[name] = [tensor.to_message() for tensor in tensors]
    set_instances(message, config.instances)
    set_batching(message, config.batching if config.max_batch_size else None)
    message["version_policy"] = [config.versions.to_message()]
    message["response_cache"] = [{"enable": [False]}]
    if config.warmup:
        message["model_warmup"] = [_warmup(config, size) for size in config.warmup]
    if config.parameters:
        message["parameters"] = [
            {"key": [key], "value": [{"string_value": [text]}]} for key, text in config.parameters.items()
        ]
    return message


def set_batching(message: Message, batching: DynamicBatching | None) -> None:
    """Replace the delay and the preferred sizes; what else somebody wrote about batching stays."""
    if batching is None:
        message.pop("dynamic_batching", None)
        return
    found = message.get("dynamic_batching") or [{}]
    block: Message = dict(found[0]) if isinstance(found[0], dict) else {}
    block.pop("preferred_batch_size", None)
    if batching.preferred_batch_sizes:
        block["preferred_batch_size"] = list(batching.preferred_batch_sizes)
    block["max_queue_delay_microseconds"] = [batching.max_queue_delay_us]
    message["dynamic_batching"] = [block]


def set_instances(message: Message, instances: Instances) -> None:
    """One group of instances of the kind."""
    message["instance_group"] = [{"kind": [Word(instances.kind)], "count": [instances.count]}]


def _warmup(config: ModelConfig, size: int) -> Message:
    inputs: list[Value] = [
        {
            "key": [tensor.name],
            "value": [{
                "data_type": [Word(triton_type(tensor.datatype))],
                "dims": [1] if tensor.is_flat else list(tensor.dims),
                "zero_data": [True],
            }],
        }
        for tensor in config.inputs
    ]  # fmt: skip
    batch: Message = {"name": [f"zeros_{size}"]}
    if config.max_batch_size:
        batch["batch_size"] = [size]
    return {**batch, "inputs": inputs}


# Fields of a configuration that may appear several times; the others are written plain in JSON.
_REPEATED = frozenset({
    "input", "output", "dims", "shape", "instance_group", "gpus", "profile", "preferred_batch_size", "versions",
    "model_warmup", "batch_input", "batch_output", "step", "control_input", "control", "state", "initial_state",
    "secondary_devices", "rate_limiter_resources", "int32_false_true", "fp32_false_true", "bool_false_true",
    "model_repository_agents", "agents", "source_input", "target_name",
})  # fmt: skip
# protobuf's maps: written as entries of key and value in text, as an object in JSON.
_MAPS = frozenset({"parameters", "inputs", "cc_model_filenames", "metric_tags", "priority_queue_policy"})


def to_json(message: Message) -> dict[str, Any]:
    """The same message as protobuf's JSON form, which a load request takes as its `config` parameter."""
    return {name: _json(name, values) for name, values in message.items()}


def _json(name: str, values: list[Value]) -> Any:
    if name in _MAPS:
        entries = [entry for entry in values if isinstance(entry, dict)]
        return {
            str(entry["key"][0]): _json_value(entry["value"][0]) if "value" in entry else {}
            for entry in entries
        }
    if name in _REPEATED or len(values) > 1:
        return [_json_value(value) for value in values]
    return _json_value(values[0]) if values else []


def _json_value(value: Value) -> Any:
    return to_json(value) if isinstance(value, dict) else value


def from_json(config: Mapping[str, Any]) -> Message:
    """The message of a configuration as a server tells it, which is with every default written out."""
    message: Message = {}
    for name, value in config.items():
        if name in _MAPS and isinstance(value, dict):
            message[name] = [{"key": [key], "value": [_from_json_value(each)]} for key, each in value.items()]
        elif isinstance(value, list):
            message[name] = [_from_json_value(each) for each in value]
        else:
            message[name] = [_from_json_value(value)]
    return message


def _from_json_value(value: Any) -> Value:
    if isinstance(value, dict):
        return from_json(value)
    if isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"{value!r} is no value of a protobuf message")
