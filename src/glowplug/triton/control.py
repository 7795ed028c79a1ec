"""A running server's repository API, over gRPC: over HTTP a load held up inferences for as long as it took.

Only what `tune` and tests need: is it ready, load, and why not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from glowplug.errors import ConfigError, GlowplugError
from glowplug.triton.model_config import to_json
from glowplug.triton.pbtxt import Message
from glowplug.wire import protobuf

_SERVICE = "/inference.GRPCInferenceService"


@dataclass(frozen=True)
class Address:
    """Where a server takes gRPC: `host:port`, and the path that an ingress wants before the method."""

    target: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """`host:port`, or a URL whose path is the prefix."""
        parts = urlsplit(text if "://" in text else f"grpc://{text}")
        return cls(parts.netloc, parts.path.rstrip("/"))


class Control:
    """A connection; a context manager."""

    def __init__(self, address: Address) -> None:
        try:
            import grpc
        except ImportError as error:
            raise ConfigError("tuning needs grpcio", hint="pip install 'glowplug[serving]'") from error
        self._grpc = grpc
        self._address = address
        self._channel: Any = grpc.insecure_channel(address.target)

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def is_model_ready(self, model: str, timeout_s: float) -> bool:
        """Whether the server serves the model."""
        try:
            raw = self._call("ModelReady", protobuf.field_text(1, model), timeout_s)
        except GlowplugError:
            return False
        return any(number == 1 and value for number, _, value in protobuf.fields(memoryview(raw)))

    def load(self, model: str, config: Message | None, timeout_s: float) -> None:
        """Load the model anew, with `config` instead of that in the repository; without it only if files changed.

        Returns when it is served; requests meanwhile are answered by what was loaded before. Raises GlowplugError.
        """
        request = protobuf.field_text(2, model)
        if config is not None:
            value = protobuf.field_text(3, json.dumps(to_json(config)))
            request += protobuf.field_bytes(
                3, protobuf.field_text(1, "config") + protobuf.field_bytes(2, value)
            )
        self._call("RepositoryModelLoad", request, timeout_s)

    def _call(self, method: str, request: bytes, timeout_s: float) -> bytes:
        call = self._channel.unary_unary(f"{self._address.prefix}{_SERVICE}/{method}")
        try:
            answer: bytes = call(request, timeout=timeout_s)
        except self._grpc.RpcError as error:
            hint = ""
            if "explicit model load / unload is not allowed" in (error.details() or ""):
                hint = "start the server with --model_control_mode=explicit"
            raise GlowplugError(
                f"{self._address.target} {method}: {error.code().name}: {error.details()}", hint=hint
            ) from error
        return answer
