"""Valid requests, and what is made of them by breaking bytes."""

from __future__ import annotations

import gzip
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from glowplug.wire import InferRequest, Tensor, v2_json

SECONDS = "GLOWPLUG_FUZZ_SECONDS"
# What parsers trip over: limits of integers and floats, nesting, signs, separators, broken text.
PIECES = [
    b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"0", b"-1", b"1e999", b"-0", b"1e-999", b"2147483648",
    b"9223372036854775808", b"18446744073709551616", b"99999999999999999999999999", b"1.5", b"null", b"true", b"NaN",
    b"[]", b"{}", b'""', b"[" * 200, b'{"a":' * 200, b'"\\ud800"', b"\xed\xa0\x80", b",", b":", b'"', b"\\u0000",
    b"\r\n", b"\r\n\r\n", b"FP16", b"FP32", b"FP64", b"BF16", b"INT8", b"UINT64", b"BYTES", b"BOOL", b"shape", b"data",
    b"inputs", b"binary_data_size", b"instances", b"b64", b"chunked", b"content-length: 7\r\n",
    b"transfer-encoding: chunked\r\n", b"1099511627776", b"[1099511627776,1099511627776]", b"[0,1099511627776]",
]  # fmt: skip


def timeout_s() -> float:
    """How long one test may take."""
    return 180 + float(os.environ.get(SECONDS, "0"))


def endless(seed: int, count: int) -> Iterator[random.Random]:
    """`count` sources of chance, or as many as fit into $GLOWPLUG_FUZZ_SECONDS; each is told by its number."""
    seconds = float(os.environ.get(SECONDS, "0"))
    ends_at = time.monotonic() + seconds
    number = 0
    while number < count or time.monotonic() < ends_at:
        # Another start each time where there is time to look around, the same one where there is not.
        yield random.Random((seed, number, time.time_ns() if seconds else 0).__hash__())
        number += 1


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The data with one to six breaks."""
    broken = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(broken) + 1)
        length = min(chance.choice((1, 1, 2, 4, 8, 30)), len(broken) - at)
        match chance.randrange(6):
            case 0:
                broken[at : at + length] = bytes(chance.randrange(256) for _ in range(length))
            case 1:
                del broken[at : at + length]
            case 2:
                broken[at:at] = chance.choice(PIECES)
            case 3:
                broken[at : at + length] = chance.choice(PIECES)
            case 4:
                broken[at:at] = broken[at : at + length] * chance.choice((1, 3, 50))
            case _:
                if length:
                    broken[at] ^= 1 << chance.randrange(8)
    return bytes(broken)


@dataclass
class Seed:
    """A valid request to one of the models `plain`, `batching` and `gappy`."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"

    def raw(self, body: bytes | None = None) -> bytes:
        """As bytes of HTTP/1.1; another body gets a right length."""
        data = self.body if body is None else body
        lines = [f"{self.method} {self.path} HTTP/1.1", "host: x", f"content-length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def tensors() -> tuple[Tensor, ...]:
    """One of each kind of datatype."""
    return (
        Tensor.from_numpy("x", np.array([[1.5, -2.25], [0, 1e9]], dtype=np.float32)),
        Tensor.from_numpy("d", np.array([1e300, -0.0]), "FP64"),
        Tensor.from_numpy("h", np.array([1.5, 2]), "FP16"),
        Tensor.from_numpy("f", np.array([1.5, 2]), "BF16"),
        Tensor.from_numpy("i", np.array([2**62, -1]), "INT64"),
        Tensor.from_numpy("u", np.array([255, 0]), "UINT8"),
        Tensor.from_numpy("b", np.array([True, False]), "BOOL"),
        Tensor.from_strings("s", ["ä", "b"]),
    )


def _json(value: Any) -> bytes:
    return orjson.dumps(value)


def seeds() -> list[Seed]:
    """V2 JSON and binary, V1, CloudEvents, compressed, chunked."""
    many = InferRequest("m", tensors(), id="7", parameters={"priority": 1})
    one = InferRequest("m", tensors()[:1])
    plain, single = v2_json.encode_request(many)[0], v2_json.encode_request(one)[0]
    binary, length = v2_json.encode_request(many, binary=True)
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": orjson.loads(single)}
    event_headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}
    zipped = {"content-encoding": "gzip"}
    return [
        Seed("/v2/models/plain/infer", plain),
        Seed("/v2/models/plain/infer", binary, {v2_json.HEADER_LENGTH: str(length)}),
        Seed("/v2/models/plain/infer", gzip.compress(plain), zipped),
        Seed("/v2/models/batching/infer", single),
        Seed("/v2/models/batching/infer", single, {"x-envoy-expected-rq-timeout-ms": "15000"}),
        Seed("/v2/models/batching/infer", _json(event), {"content-type": "application/cloudevents+json"}),
        Seed("/v2/models/batching/infer", single, event_headers),
        Seed("/v2/models/gappy/versions/1/infer", single.replace(b"1.5", b"null")),
        Seed("/v1/models/plain:predict", _json({"instances": [[1, 2.5], [3, 4]]})),
        Seed("/v1/models/plain:predict", _json({"instances": [{"x": [1], "s": {"b64": "AAAA"}}]})),
        Seed("/v1/models/gappy:predict", _json({"inputs": {"x": [[1, None]], "n": [True]}})),
        Seed("/v2/repository/index", _json({"ready": True})),
        Seed("/v2/models/plain", b"", method="GET"),
        Seed("/metrics", b"", method="HEAD"),
    ]


CHUNKED = (
    b"POST /v2/models/batching/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
    b'c;ext=1\r\n{"inputs":[\r\n2\r\n]}\r\n0\r\ntrailer: 1\r\n\r\n'
)
