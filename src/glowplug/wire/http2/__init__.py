"""gRPC over HTTP/2, in Python that is not felt: 6 to 16 µs of CPU time for a small call that is echoed.

`ServerConnection` and `ClientConnection` do no I/O: bytes in, callbacks and bytes out. `GrpcService` is the asyncio
protocol around the server's. Nothing here knows of inference.
"""

from glowplug.wire.http2 import status
from glowplug.wire.http2.client import Caller, ClientConnection
from glowplug.wire.http2.limits import Limits
from glowplug.wire.http2.messages import grpc_timeout_s
from glowplug.wire.http2.protocol import GrpcProtocol, GrpcService
from glowplug.wire.http2.server import Handler, ServerConnection
from glowplug.wire.http2.stream import Stream

__all__ = [
    "Caller",
    "ClientConnection",
    "GrpcProtocol",
    "GrpcService",
    "Handler",
    "Limits",
    "ServerConnection",
    "Stream",
    "grpc_timeout_s",
    "status",
]
