"""Steady load on one InferenceService: keep-alive REST and gRPC clients that never retry, and what failed when."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from local.machine_lab import MachineLab, v2_body

from glowplug.wire import v2_grpc
from glowplug.wire.tensors import InferRequest, Tensor

ROWS = [[0.1, 0.2, 0.3]]
INFER = f"/{v2_grpc.SERVICE}/ModelInfer"
# No second try anywhere below the test.
CHANNEL: Sequence[tuple[str, Any]] = (("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0))


@dataclass(frozen=True)
class Call:
    """One request: its client, when it began and ended (monotonic seconds), and what failed, or ''."""

    client: str
    began: float
    ended: float
    failure: str = ""


class Load:
    """`with Load(machine, name) as load: …` sends for as long as the block runs; `failures` are there after it."""

    def __init__(
        self, machine: MachineLab, name: str, *, rest: int = 4, grpc: int = 2, pause_s: float = 0.002
    ) -> None:
        self.calls: list[Call] = []
        self._address = urllib.parse.urlsplit(machine.ingress).netloc
        self._name = name
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._rest, args=(f"rest-{n}",)) for n in range(rest)),
            *(threading.Thread(target=self._grpc, args=(f"grpc-{n}",)) for n in range(grpc)),
        ]

    @property
    def clients(self) -> set[str]:
        """Those that have called."""
        return {call.client for call in self.calls}

    @property
    def failures(self) -> list[Call]:
        return [call for call in self.calls if call.failure]

    def count(self, kind: str = "") -> int:
        """How many calls of clients of a kind were answered well."""
        return sum(call.client.startswith(kind) and not call.failure for call in self.calls)

    def outage_s(self) -> float:
        """From the first failure's start to the last one's end; 0 without any."""
        failed = self.failures
        return max(call.ended for call in failed) - min(call.began for call in failed) if failed else 0.0

    def told(self) -> str:
        """The failures in few words."""
        kinds: dict[str, int] = {}
        for call in self.failures:
            key = f"{call.client[:4]}: {call.failure[:160]}"
            kinds[key] = kinds.get(key, 0) + 1
        lines = [f"{count} × {text}" for text, count in sorted(kinds.items())]
        return f"{len(self.failures)} of {len(self.calls)} failed over {self.outage_s():.2f} s\n" + "\n".join(
            lines
        )

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _rest(self, client: str) -> None:
        body = json.dumps(v2_body(ROWS))
        path = f"/serving/default/{self._name}/v2/models/{self._name}/infer"
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not self._stop.is_set():
            began, failure = time.monotonic(), ""
            try:
                connection.request("POST", path, body, {"content-type": "application/json"})
                response = connection.getresponse()
                text = response.read()
                if response.status != 200:
                    failure = f"{response.status} {text.decode(errors='replace')}"
            except (OSError, http.client.HTTPException) as error:
                failure = f"{type(error).__name__}: {error}"
                connection.close()
            self._note(client, began, failure)
        connection.close()

    def _grpc(self, client: str) -> None:
        data = infer_message(self._name)
        options = [*CHANNEL, ("grpc.default_authority", f"{self._name}.default.localhost"),
                   ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100),
                   ("grpc.max_reconnect_backoff_ms", 200), ("grpc.use_local_subchannel_pool", 1)]  # fmt: skip
        with grpc.insecure_channel(self._address, options=options) as channel:
            infer = channel.unary_unary(INFER)
            while not self._stop.is_set():
                began, failure = time.monotonic(), ""
                try:
                    infer(data, timeout=30)
                except grpc.RpcError as error:
                    failure = f"{error.code().name} {error.details()}"
                self._note(client, began, failure)

    def _note(self, client: str, began: float, failure: str) -> None:
        self.calls.append(Call(client, began, time.monotonic(), failure))
        # A client that fails at once must not fill the list; a good one leaves some of the two cores to the machine.
        self._stop.wait(0.02 if failure else self._pause_s)


def infer_message(name: str, rows: Sequence[Sequence[float]] = ROWS) -> bytes:
    """A V2 gRPC request for one FP32 tensor."""
    tensor = Tensor.from_numpy("input-0", np.array(rows, dtype=np.float32))
    return v2_grpc.encode_infer_request(InferRequest(name, (tensor,)))
