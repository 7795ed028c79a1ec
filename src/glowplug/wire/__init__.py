"""The inference protocols, bytes <-> values: V1, V2 (JSON, binary tensors, gRPC), CloudEvents over HTTP, and HTTP/2.

Pure: nothing here does I/O, reads a clock or holds state. Sizes are checked before anything is allocated, and every
malformed input is an InferenceError (400) that names the tensor, what was found and what was expected, and never
repeats the input.

The names below are imported when they are first asked for: tensors need numpy, which who only speaks HTTP/2 does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glowplug.wire.tensors import (
        InferRequest,
        InferResponse,
        Parameter,
        Parameters,
        RequestedOutput,
        Tensor,
    )

__all__ = ["InferRequest", "InferResponse", "Parameter", "Parameters", "RequestedOutput", "Tensor"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from glowplug.wire import tensors

    return getattr(tensors, name)
