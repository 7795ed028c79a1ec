"""From a request to its texts. Pure."""

from __future__ import annotations

from glowplug.errors import InferenceError
from glowplug.wire import InferRequest
from glowplug_text.settings import TextConfig


def texts_of(request: InferRequest, config: TextConfig) -> list[str]:
    """The texts of the one BYTES tensor, [n] or [n, 1]. Raises InferenceError (400) that names the tensor."""
    if len(request.inputs) != 1:
        raise InferenceError(f"{len(request.inputs)} inputs, expected one BYTES tensor [n] of texts")
    tensor = request.inputs[0]
    where = f"tensor {tensor.name!r}"
    if tensor.datatype != "BYTES":
        raise InferenceError(f"{where}: datatype is {tensor.datatype}, expected BYTES: a text each")
    if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)):
        raise InferenceError(f"{where}: shape is {list(tensor.shape)}, expected [n]")
    if not 1 <= tensor.size <= config.max_rows:
        raise InferenceError(f"{where}: {tensor.size} texts, expected 1 to {config.max_rows} (--max_rows)")
    return [_text(where, index, data, config) for index, data in enumerate(tensor.data)]


def _text(where: str, index: int, data: bytes, config: TextConfig) -> str:
    if len(data) > config.max_text_bytes:
        raise InferenceError(
            f"{where}: text {index} has {len(data)} bytes, at most {config.max_text_bytes} are allowed",
            hint="--max_text_bytes, or cut it off: what is behind --max_length tokens is not looked at",
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InferenceError(f"{where}: text {index} is not UTF-8 (byte {error.start})") from error
