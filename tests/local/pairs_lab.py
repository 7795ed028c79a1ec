"""An InferenceService of two components that check each other, and clients that count what met what."""

from __future__ import annotations

import http.client
import json
import pathlib
import threading
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from local.machine_lab import MachineLab, Object, v2_body, wait_for
from local.machine_load import CHANNEL, INFER, infer_message

from glowplug.spec import pairs
from glowplug.wire import v2_grpc

PODS = pathlib.Path(__file__).parents[2] / "benchmarks" / "paired_pods"
COMPONENTS = ("predictor", "transformer")


def paired(
    name: str,
    features: int,
    percent: int | None,
    *,
    is_locked: bool = True,
    protocol: str = "v2",
    load_s: dict[str, float] | None = None,
    **component: Any,
) -> Object:
    """A version that makes and expects so many features; stamped as the webhook does it."""
    spec: Object = {}
    for role in COMPONENTS:
        is_h2c = role == "predictor" and protocol == "grpc-v2"
        container = {
            "name": "kserve-container",
            "image": f"example/{role}",
            "command": ["python", str(PODS / f"{role}.py")],
            "args": [
                f"--model_name={name}",
                "--grpc_port=$(PORT)" if is_h2c else "--http_port=$(PORT)",
                "--http_port=0" if is_h2c else "--grpc_port=8091",
                f"--predictor_protocol={protocol}",
                "--drain_delay_s=0.2",
            ],
            "env": [
                {"name": "FEATURES", "value": str(features)},
                {"name": "LOAD_S", "value": str((load_s or {}).get(role, 0))},
            ],
        }
        if is_h2c:
            container["ports"] = [{"name": "h2c", "containerPort": 8081}]
        weight = {} if percent is None else {"canaryTrafficPercent": percent}
        spec[role] = {"containers": [container], **weight, **component}
    annotations = {"serving.kserve.io/deploymentMode": "Knative"}
    if is_locked:
        annotations["glowplug.dev/pair-lock"] = "true"
    isvc = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": spec,
    }
    return pairs.stamp(isvc) or isvc


def shares(machine: MachineLab, name: str) -> dict[str, dict[int, int]]:
    """By component and number of the revision, the percentages that the ingress has confirmed; none until it has."""
    found: dict[str, dict[int, int]] = {}
    for role in COMPONENTS:
        route = machine.get("routes.serving.knative.dev", f"{name}-{role}")
        status = route.get("status") or {}
        is_ready = all(condition["status"] == "True" for condition in status.get("conditions") or ())
        if not is_ready or status.get("observedGeneration") != route["metadata"]["generation"]:
            return {}
        counted: Counter[int] = Counter()
        for target in status.get("traffic") or ():
            counted[int(target["revisionName"].rpartition("-")[2])] += target.get("percent") or 0
        found[role] = dict(+counted)
    return found


def wait_shares(machine: MachineLab, name: str, wanted: dict[int, int]) -> None:
    """Until both components have these."""
    wait_for(
        lambda: shares(machine, name) == dict.fromkeys(COMPONENTS, wanted),
        f"{wanted} of both components, now {shares(machine, name)}\n",
    )


@dataclass
class Meetings:
    """Clients that ask without pause and never retry, by REST and by gRPC; which version met which, and what failed."""

    machine: MachineLab
    name: str
    rest: int = 3
    grpc: int = 2
    met: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _is_over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Meetings:
        kinds = [self._rest] * self.rest + [self._grpc] * self.grpc
        self._threads = [threading.Thread(target=kind) for kind in kinds]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        return sum(self.met.values())

    @property
    def mismatches(self) -> int:
        """Requests whose predictor did not expect what the transformer made."""
        return sum(n for (expected, got, made), n in self.met.items() if not expected == got == made)

    def wait_for_more(self, count: int = 150, of: int | None = None) -> None:
        """Until so many more were answered, by the version that makes `of` features if that is given."""

        def seen() -> int:
            return sum(n for (_, _, made), n in tuple(self.met.items()) if of in (None, made))

        start = seen()
        wait_for(lambda: seen() >= start + count or len(self.failures) > 20, f"{count} answers of {of}")

    def told(self) -> str:
        return f"{self.met}, slowest {self.slowest_s:.2f} s, failed {len(self.failures)}: {self.failures[:5]}"

    def _note(self, numbers: list[int], took_s: float) -> None:
        expected, got, made = numbers
        self.met[expected, got, made] += 1
        self.slowest_s = max(self.slowest_s, took_s)

    def _rest(self) -> None:
        body = json.dumps(v2_body([[0.0]]))
        path = f"/serving/default/{self.name}/v2/models/{self.name}/infer"
        address = urllib.parse.urlsplit(self.machine.ingress).netloc
        connection = http.client.HTTPConnection(address, timeout=40)
        while not self._is_over.wait(0.002):
            began = time.monotonic()
            try:
                connection.request("POST", path, body, {"content-type": "application/json"})
                response = connection.getresponse()
                text = response.read()
                if response.status != 200:
                    raise OSError(f"{response.status} {text!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"rest: {error!r}")
                connection.close()
                continue
            self._note(json.loads(text)["outputs"][0]["data"], time.monotonic() - began)
        connection.close()

    def _grpc(self) -> None:
        address = urllib.parse.urlsplit(self.machine.ingress).netloc
        options = [
            *CHANNEL,
            ("grpc.default_authority", f"{self.name}.default.localhost"),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        message = infer_message(self.name, [[0.0]])
        with grpc.insecure_channel(address, options=options) as channel:
            infer = channel.unary_unary(INFER)
            while not self._is_over.wait(0.002):
                began = time.monotonic()
                try:
                    raw = infer(message, timeout=40)
                except grpc.RpcError as error:
                    self.failures.append(f"grpc: {error.code()} {error.details()}")
                    continue
                (output,) = v2_grpc.decode_infer_response(raw).outputs
                self._note(output.as_numpy().tolist(), time.monotonic() - began)
