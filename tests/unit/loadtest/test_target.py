"""Where a load goes, and under which host."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from glowplug.cli import loadtest
from glowplug.errors import NotFound

URL = "http://flights-predictor.serving.example.com"


class Cluster:
    """An API that knows one InferenceService."""

    namespace = "serving"

    def get(self, path: str, **_: str) -> dict[str, Any]:
        if path == "/version":
            return {}
        if path.endswith("/inferenceservices/flights"):
            return {"metadata": {"name": "flights"}, "status": {"url": URL}}
        raise NotFound("no such InferenceService")


def found(**asked: Any) -> tuple[str, str]:
    every: dict[str, Any] = dict.fromkeys(each.name for each in dataclasses.fields(loadtest.Asked))
    every |= {"name": "flights", "out": pathlib.Path(), **asked}
    _, url, host = loadtest._found(loadtest.Asked(**every), Cluster)  # type: ignore[arg-type]
    return url, host


HOST = "flights-predictor.serving.example.com"
GATEWAY = "http://127.0.0.1:31080"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (URL, "")),
        ({"gateway": GATEWAY}, (GATEWAY, HOST)),
        ({"gateway": f"{GATEWAY}/", "target": "http://other.example.com/v9/"}, (f"{GATEWAY}/v9", "other.example.com")),
        ({"target": "http://other.example.com"}, ("http://other.example.com", "")),
        ({"target": GATEWAY}, (GATEWAY, HOST)),
        ({"target": "http://[::1]:8080"}, ("http://[::1]:8080", HOST)),
        ({"target": "http://localhost:8080"}, ("http://localhost:8080", HOST)),
        ({"target": GATEWAY, "name": "nobody"}, (GATEWAY, "")),
    ],
)  # fmt: skip
def test_an_address_is_asked_for_the_service_by_its_own_host(
    asked: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert found(**asked) == expected
