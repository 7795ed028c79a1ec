"""A server that begins to listen on $PORT when a file is there, and then answers each request with its own body.

`python gate.py http|grpc FILE`: a pod that becomes ready when its benchmark says so.
"""

import asyncio
import os
import pathlib
import sys

import grpc
import grpc.aio


class Echo(asyncio.Protocol):
    """HTTP/1.1 with a content-length, as the ingress sends it."""

    def connection_made(self, transport):
        self._transport, self._rest = transport, b""

    def data_received(self, data):
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end].lower()
            _, _, after = head.partition(b"\r\ncontent-length:")
            length = int(after.partition(b"\r\n")[0])
            if len(self._rest) < end + 4 + length:
                return
            body = self._rest[end + 4 : end + 4 + length]
            self._rest = self._rest[end + 4 + length :]
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (length, body))


async def echo(request, context):
    return request


async def serve(form, gate, port):
    while not gate.exists():  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.01)
    if form == "grpc":
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(echo)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("gate.Gate", {"Echo": handler}),)
        )
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(Echo, "127.0.0.1", port, backlog=4096)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], pathlib.Path(sys.argv[2]), int(os.environ["PORT"])))
