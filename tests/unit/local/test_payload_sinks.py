"""Where a logger's URL leads on this machine."""

from __future__ import annotations

import pytest

from glowplug.local.payload_sinks import Sinks
from glowplug.payloads.teller import Sink

INGRESS, BROKER = "http://127.0.0.1:8080", "http://127.0.0.1:8082"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://default-broker", Sink(f"{BROKER}/team/default", True)),
        ("http://broker-ingress.knative-eventing.svc.cluster.local/a/b", Sink(f"{BROKER}/a/b", True)),
        ("http://kafka-broker-ingress.knative-eventing.svc/a/b", Sink(f"{BROKER}/a/b", True)),
        (f"{BROKER}/a/b", Sink(f"{BROKER}/a/b", True)),
        ("http://job-sink.knative-eventing.svc.cluster.local/a/b", Sink(f"{BROKER}/jobsink/a/b")),
        ("http://display.default.svc.cluster.local/x?y=1", Sink(f"{INGRESS}/serving/default/display/x?y=1")),
        ("http://display.default/", Sink(f"{INGRESS}/serving/default/display/")),
        ("http://display.svc.cluster.local", Sink(f"{INGRESS}/serving/team/display")),
        ("http://127.0.0.1:9000/x", Sink("http://127.0.0.1:9000/x")),
        ("http://display.default.localhost:8080/", Sink("http://display.default.localhost:8080/")),
        ("https://logs.example.com/x", Sink("https://logs.example.com/x")),
        ("https://example.com/", Sink("https://example.com/")),
        ("http://example.com:9000/", Sink("http://example.com:9000/")),
        ("http://localhost:9000", Sink("http://localhost:9000")),
    ],
)
def test_the_names_of_a_cluster_lead_to_the_machines_own(url: str, expected: Sink) -> None:
    assert Sinks(INGRESS, BROKER).find("team", url) == expected
