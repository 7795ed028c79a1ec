"""Views, rows and processes for the tests of features and of the feature lookup."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import yaml

from glowplug.features.view import (
    API_VERSION,
    KIND,
    Entity,
    EntityType,
    Feature,
    FeatureView,
    Group,
    OnMissing,
    OnStale,
)

ROOT = Path(__file__).parents[3]
LOOKUP_SRC = ROOT / "transformers" / "feature-lookup" / "src"
XGBOOST_SRC = ROOT / "predictors" / "xgboost" / "src"
FLIGHTS_SRC = ROOT / "pipelines" / "src"
FLIGHTS_VIEW = ROOT / "transformers" / "feature-lookup" / "feature_view.yaml"


def small_view(**of_group: Any) -> FeatureView:
    """Two groups: `user` (2 features, policies as given) and `pair` (1 feature, missing and stale are errors)."""
    user = Group(
        "user",
        ("user_id",),
        "users",
        "event_timestamp",
        (Feature("age", default=30.0), Feature("spend", default=-1.0)),
        **of_group,
    )
    pair = Group("pair", ("user_id", "shop"), "pairs", "event_timestamp", (Feature("visits"),))
    return FeatureView("shops", (Entity("user_id", EntityType.INT64), Entity("shop")), (user, pair))


def to_yaml(view: FeatureView) -> str:
    """The file of a view, written by somebody else's YAML writer."""
    groups = []
    for group in view.groups:
        features = [
            {
                "name": each.name,
                "dtype": each.dtype,
                **({} if each.default is None else {"default": each.default}),
            }
            for each in group.features
        ]
        written: dict[str, Any] = {
            "name": group.name,
            "keys": list(group.keys),
            "source": group.source,
            "timestamp": group.timestamp,
            "onMissing": group.on_missing.value,
            "onStale": group.on_stale.value,
            "features": features,
        }
        if group.ttl_s is not None:
            written["ttl"] = f"{group.ttl_s:.0f}s"
        groups.append(written)
    entities = [{"name": each.name, "type": each.type.value} for each in view.entities]
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": view.name},
        "spec": {"entities": entities, "groups": groups},
    }
    return yaml.safe_dump(document, sort_keys=False)


names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,12}", fullmatch=True)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def views(draw: st.DrawFn) -> FeatureView:
    """Any valid view, up to 4 entities and 3 groups of up to 5 features."""
    entities = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    group_names = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    feature_names = iter(draw(st.lists(names, min_size=15, max_size=15, unique=True)))
    groups = []
    for name in group_names:
        count = draw(st.integers(1, 5))
        groups.append(
            Group(
                name=name,
                keys=tuple(draw(st.lists(st.sampled_from(entities), min_size=1, unique=True))),
                source=draw(names),
                timestamp=draw(names),
                features=tuple(Feature(next(feature_names), default=draw(float32s)) for _ in range(count)),
                ttl_s=draw(st.none() | st.integers(1, 10**6).map(float)),
                on_missing=draw(st.sampled_from(OnMissing)),
                on_stale=draw(st.sampled_from(OnStale)),
            )
        )
    kinds = st.sampled_from(EntityType)
    return FeatureView(
        name=draw(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)),
        entities=tuple(Entity(entity, draw(kinds)) for entity in entities),
        groups=tuple(groups),
    )


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Ask until it is so; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Unit:
    """A unit's server process, its ports, and its output in a file."""

    def __init__(
        self, log: Path, module: str, args: Sequence[str], env: dict[str, str] | None = None
    ) -> None:
        self.http_port, self.grpc_port = free_ports(2)
        self.log = log
        path = os.pathsep.join(str(each) for each in (ROOT / "src", LOOKUP_SRC, XGBOOST_SRC))
        words = [f"--http_port={self.http_port}", f"--grpc_port={self.grpc_port}", "--drain_delay_s=0"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *args, *words],
                env={
                    **os.environ,
                    "PYTHONPATH": path,
                    "PYTHONSAFEPATH": "1",
                    "HOST": "127.0.0.1",
                    **(env or {}),
                },
                stdout=output,
                stderr=output,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_ready(self, timeout_s: float = 60) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output()}"
            return self.get("/v2/health/ready")[0] == 200

        wait_until(is_ready, timeout_s, f"ready:\n{self.output()}")

    def get(self, path: str) -> tuple[int, bytes]:
        return self._call(urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}"))

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON document."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        status, answer = self._call(request)
        return status, json.loads(answer)

    def infer(self, body: dict[str, Any], model: str) -> tuple[int, dict[str, Any]]:
        """V2 REST."""
        return self.post(f"/v2/models/{model}/infer", body)

    def _call(self, request: urllib.request.Request) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except urllib.error.URLError:
            return 0, b""

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
