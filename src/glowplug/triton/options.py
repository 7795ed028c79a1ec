"""What `build` can be told, and the short forms in which the command line says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glowplug.triton.model_config import KINDS, VersionPolicy
from glowplug.triton.signature import TensorShape
from glowplug.wire.datatypes import DATATYPES

BACKENDS = ("auto", "onnxruntime", "pytorch", "python", "fil")


@dataclass(frozen=True)
class BuildOptions:
    """None: what the repository's config.pbtxt says already, else the default.

    `inputs` and `outputs` have no batch axis, unless `max_batch_size` is 0.
    """

    name: str
    backend: str = "auto"
    inputs: tuple[TensorShape, ...] = ()
    outputs: tuple[TensorShape, ...] = ()
    max_batch_size: int | None = None
    max_queue_delay_us: int | None = None
    preferred_batch_sizes: tuple[int, ...] = ()
    instances: int | None = None
    kind: str | None = None
    versions: VersionPolicy | None = None
    is_batched: bool = True
    is_warmed: bool = True


def parse_tensors(flag: str, texts: Sequence[str], problems: list[str]) -> tuple[TensorShape, ...]:
    """`NAME:DATATYPE:DIMS`, for example `x:FP32:3,224,224`; what is wrong goes to `problems`."""
    found = [_tensor(flag, text, problems) for text in texts]
    return tuple(tensor for tensor in found if tensor is not None)


def _tensor(flag: str, text: str, problems: list[str]) -> TensorShape | None:
    name, _, rest = text.partition(":")
    datatype, _, sizes = rest.partition(":")
    datatype = datatype.upper()
    shape = _integers(sizes)
    if not name or datatype not in DATATYPES or not shape or any(size < 1 and size != -1 for size in shape):
        problems.append(
            f"{flag} {text!r}: expected NAME:DATATYPE:DIMS such as x:FP32:3,224,224 (-1 for any size); "
            f"datatypes are {', '.join(DATATYPES)}"
        )
        return None
    return TensorShape(name, datatype, shape)


def parse_versions(text: str, problems: list[str]) -> VersionPolicy | None:
    """`latest:N`, `all`, or `1,3`."""
    if not text:
        return None
    if text == "all":
        return VersionPolicy(latest=None)
    word, _, count = text.partition(":")
    if word == "latest" and count.isdecimal() and int(count) > 0:
        return VersionPolicy(latest=int(count))
    numbers = _integers(text)
    if numbers and min(numbers) > 0:
        return VersionPolicy(specific=numbers)
    problems.append(f"--versions {text!r}: expected latest:N, all, or numbers such as 1,3")
    return None


def parse_kind(text: str, problems: list[str]) -> str | None:
    """`cpu` or `gpu`."""
    if not text:
        return None
    kind = f"KIND_{text.upper()}"
    if kind not in KINDS:
        problems.append(f"--kind {text!r}: expected cpu or gpu")
        return None
    return kind


def parse_sizes(flag: str, text: str, problems: list[str], *, least: int = 1) -> tuple[int, ...]:
    """Numbers with commas, each at least `least`, in the order given and once each."""
    numbers = _integers(text)
    if text and (not numbers or min(numbers) < least):
        problems.append(f"{flag} {text!r}: expected numbers of {least} or more, such as 8,16,32")
        return ()
    return tuple(dict.fromkeys(numbers))


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        return ()
