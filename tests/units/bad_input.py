"""Requests that nobody should send, to a unit as a process: whatever comes, no answer is the server's own fault."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import orjson
from hypothesis import strategies as st
from units.unit_process import DEADLINE_S, UnitProcess

from glowplug.wire import InferRequest, v2_grpc, v2_json

# What gRPC says of a server that broke.
FAULTS = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNAVAILABLE,
)

# Where to change a body, and to what; None cuts it off there.
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.none() | st.integers(0, 255)), max_size=4)


def changed(body: bytes, changes: list[tuple[float, int | None]]) -> bytes:
    """The body with bytes replaced, or cut off."""
    data = bytearray(body)
    for place, byte in changes:
        if not data:
            break
        at = int(place * len(data))
        if byte is None:
            del data[at:]
        else:
            data[at] = byte
    return bytes(data)


class Attacker:
    """Keeps a connection of each protocol to one unit."""

    def __init__(self, unit: UnitProcess) -> None:
        self._unit = unit
        # No certificates to load: everything is plain HTTP.
        self._http = httpx.Client(timeout=DEADLINE_S, verify=False)
        self._channel = grpc.insecure_channel(unit.grpc)
        self._infer = self._channel.unary_unary(f"/{v2_grpc.SERVICE}/ModelInfer")

    def close(self) -> None:
        self._http.close()
        self._channel.close()

    def post(self, body: bytes, header_length: Any = None, path: str = "/v2/models/m/infer") -> int:
        """The status of an HTTP request, which must not be a 5xx."""
        headers = {} if header_length is None else {v2_json.HEADER_LENGTH: str(header_length)}
        answer = self._http.post(self._unit.url + path, content=body, headers=headers)
        assert answer.status_code < 500, answer.text
        return answer.status_code

    def call(self, body: bytes) -> grpc.StatusCode:
        """The status of a gRPC call, which must not be the server's fault."""
        try:
            self._infer(body, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()  # type: ignore[attr-defined]
            assert code not in FAULTS, error
            return code
        return grpc.StatusCode.OK

    def send_changed(
        self, request: InferRequest, changes: list[tuple[float, int | None]], shift: int
    ) -> None:
        """A good request in each protocol, damaged; and then a good one, which is answered."""
        plain, _ = v2_json.encode_request(request)
        binary, length = v2_json.encode_request(request, binary=True)
        assert length is not None
        message = v2_grpc.encode_infer_request(request)
        instances = orjson.dumps({"instances": request.inputs[0].data.tolist()})
        self.post(changed(instances, changes), path="/v1/models/m:predict")
        self.post(changed(plain, changes))
        self.post(changed(binary, changes), length + shift)
        self.call(changed(message, changes))
        assert self.post(binary, length) == 200
        assert self.call(message) == grpc.StatusCode.OK
