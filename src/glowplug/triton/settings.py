"""What is tuned in a model's configuration: batch size, delay and instances; read from it and put back."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.triton.model_config import DynamicBatching, Instances, set_batching, set_instances
from glowplug.triton.pbtxt import Message, Value


@dataclass(frozen=True)
class Setting:
    """`max_queue_delay_us` is None where requests are not batched together at all."""

    max_batch_size: int
    max_queue_delay_us: int | None
    instances: int

    def __str__(self) -> str:
        delay = "no batching" if self.max_queue_delay_us is None else f"delay {self.max_queue_delay_us} us"
        plural = "" if self.instances == 1 else "s"
        return f"batch {self.max_batch_size}, {delay}, {self.instances} instance{plural}"


def first(message: Message, *path: str) -> Value | None:
    """The first value under a path of field names, or None."""
    value: Value = message
    for name in path:
        found = value.get(name) if isinstance(value, dict) else None
        if not found:
            return None
        value = found[0]
    return value


def setting_of(message: Message) -> Setting:
    """What a configuration says; Triton's defaults where it says nothing."""
    delay: int | None = None
    if "dynamic_batching" in message:
        delay = _int(first(message, "dynamic_batching", "max_queue_delay_microseconds"), 0)
    return Setting(
        _int(first(message, "max_batch_size"), 0),
        delay,
        _int(first(message, "instance_group", "count"), 1),
    )


def is_complete(message: Message | None) -> bool:
    """Whether a configuration leaves nothing to Triton's auto-completion, which asks the model itself.

    For a Python model that is a process of its own before each load; without it a load takes half as long.
    """
    return message is not None and all(
        message.get(name) for name in ("backend", "max_batch_size", "input", "output")
    )


def kind_of_instances(message: Message) -> str:
    """KIND_CPU, KIND_GPU, or KIND_AUTO where nothing is said."""
    return str(first(message, "instance_group", "kind") or "KIND_AUTO")


def applied(message: Message, setting: Setting) -> Message:
    """A copy with the setting in it. Preferred batch sizes larger than the new maximum are dropped."""
    result: Message = {**message, "max_batch_size": [setting.max_batch_size]}
    if setting.max_queue_delay_us is None:
        set_batching(result, None)
    else:
        old = first(message, "dynamic_batching")
        sizes = old.get("preferred_batch_size", []) if isinstance(old, dict) else []
        kept = tuple(size for size in sizes if isinstance(size, int) and size <= setting.max_batch_size)
        set_batching(result, DynamicBatching(setting.max_queue_delay_us, kept))
    set_instances(result, Instances(setting.instances, kind_of_instances(message)))
    warmups = [_capped(entry, setting.max_batch_size) for entry in message.get("model_warmup", [])]
    if warmups:
        result["model_warmup"] = warmups
    return result


def _capped(warmup: Value, limit: int) -> Value:
    """A warm-up of more rows than the model takes would fail its load."""
    if not isinstance(warmup, dict) or _int(first(warmup, "batch_size"), 0) <= limit:
        return warmup
    return {**warmup, "batch_size": [limit]}


def _int(value: Value | None, default: int) -> int:
    return value if isinstance(value, int) else default
