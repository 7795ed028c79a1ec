"""From a request to the bytes of its image files.

A file comes as it is (binary tensors, gRPC, V1's {"b64": ...}) or as base64 text (JSON). Which of them it is, is told
by its first bytes: those of a JPEG or PNG file are no base64.
"""

from __future__ import annotations

import base64
import binascii

from glowplug.errors import InferenceError
from glowplug.wire import InferRequest, Tensor

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
WHITE_SPACE = b" \t\r\n"


def image_files(request: InferRequest, max_images: int) -> list[bytes]:
    """The files of the one BYTES tensor, [n] or [n, 1]. Raises InferenceError (400)."""
    if len(request.inputs) != 1:
        raise InferenceError(
            f"{len(request.inputs)} inputs, expected one BYTES tensor [n] of JPEG or PNG files"
        )
    tensor = request.inputs[0]
    if tensor.datatype != "BYTES":
        raise InferenceError(
            f"tensor {tensor.name!r}: datatype is {tensor.datatype}, expected BYTES: a JPEG or PNG file each"
        )
    if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)):
        raise InferenceError(f"tensor {tensor.name!r}: shape is {list(tensor.shape)}, expected [n]")
    if not 1 <= tensor.size <= max_images:
        raise InferenceError(f"tensor {tensor.name!r}: {tensor.size} images, expected 1 to {max_images}")
    return [_file(tensor, index) for index in range(tensor.size)]


def place(tensor: Tensor, index: int) -> str:
    """How messages name an image."""
    return f"tensor {tensor.name!r}: image {index}"


def _file(tensor: Tensor, index: int) -> bytes:
    data: bytes = tensor.data[index]
    if data.startswith((JPEG, PNG)):
        return data
    try:
        found = base64.b64decode(data.translate(None, WHITE_SPACE), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if found.startswith((JPEG, PNG)):
        return found
    raise InferenceError(
        f"{place(tensor, index)} is neither JPEG nor PNG ({_kind(found or data)})",
        hint="send the file as it is in a binary tensor or over gRPC, or as base64 text in JSON",
    )


def _kind(data: bytes) -> str:
    """What somebody who sent it would recognize."""
    if not data:
        return "it is empty"
    known = {b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"%PDF": "a PDF"}
    for magic, name in known.items():
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP"
    if data[4:12] in (b"ftypheic", b"ftypavif", b"ftypmif1"):
        return "a HEIF or AVIF"
    if data.startswith((b"data:", b"http:", b"https:")):
        return "a URL"
    return f"{len(data)} bytes that begin with {data[:4].hex(' ')}"
