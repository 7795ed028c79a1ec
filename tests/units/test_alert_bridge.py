"""The alert bridge as a process, on the webhook that Alertmanager's documentation describes."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from units.hosted_process import HostedProcess

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "eventing" / "alert-bridge" / "src"))
from glowplug.wire.events import decode, encode_binary  # noqa: E402
from glowplug_alert_bridge.events import event_of, id_of  # noqa: E402
from glowplug_alert_bridge.webhook import Alert, WebhookProblem, parse  # noqa: E402

ALERT: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "SlowFlights", "model": "flights", "severity": "page"},
    "annotations": {"summary": "p99 over 100 ms"},
    "startsAt": "2026-03-04T05:06:07.089Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus/graph",
    "fingerprint": "c6e8ff0c4a8b1f3d",
}
WEBHOOK: dict[str, Any] = {
    "version": "4",
    "groupKey": '{}:{alertname="SlowFlights"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "glowplug",
    "groupLabels": {"alertname": "SlowFlights"},
    "commonLabels": {"alertname": "SlowFlights", "model": "flights"},
    "commonAnnotations": {},
    "externalURL": "http://alertmanager",
    "alerts": [ALERT],
}


class Sink:
    """A broker's address; it answers with `statuses` in turn, the last one for ever."""

    def __init__(self) -> None:
        self.events: list[tuple[dict[str, str], Any]] = []
        self.statuses = [202]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.events.append(({k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
                self.send_response(outer.statuses.pop(0) if len(outer.statuses) > 1 else outer.statuses[0])
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/serving/default"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostedProcess, Sink]]:
    sink = Sink()
    log = tmp_path_factory.mktemp("bridge") / "log"
    process = HostedProcess(log, "alert-bridge", "--max_alerts=20", "--send_timeout_s=5", K_SINK=sink.url)
    yield process, sink
    process.stop()
    sink.close()


@pytest.fixture
def bridge(of_module: tuple[HostedProcess, Sink]) -> HostedProcess:
    of_module[1].events.clear()
    of_module[1].statuses = [202]
    return of_module[0]


@pytest.fixture
def sink(of_module: tuple[HostedProcess, Sink]) -> Sink:
    return of_module[1]


def notify(bridge: HostedProcess, *alerts: Any, **more: Any) -> httpx.Response:
    return httpx.post(f"{bridge.url}/alerts", json={**WEBHOOK, **more, "alerts": list(alerts)})


def test_an_alert_is_an_event(bridge: HostedProcess, sink: Sink) -> None:
    assert notify(bridge, ALERT).status_code == 200
    ((headers, data),) = sink.events
    assert data == ALERT
    attributes = {key[3:]: value for key, value in headers.items() if key.startswith("ce-")}
    assert attributes.pop("id") == id_of(parse(json.dumps(WEBHOOK).encode(), 1).alerts[0])
    assert attributes == {
        "specversion": "1.0",
        "type": "dev.glowplug.alert.fired",
        "source": "/glowplug/alertmanager",
        "subject": "flights",
        "model": "flights",
        "time": "2026-03-04T05:06:07.089Z",
    }


def test_one_event_for_each_that_fires(bridge: HostedProcess, sink: Sink) -> None:
    others = [{**ALERT, "fingerprint": str(number)} for number in range(9)]
    assert notify(bridge, *others, {**ALERT, "status": "resolved"}, truncatedAlerts=3).status_code == 200
    assert len({headers["ce-id"] for headers, _ in sink.events}) == len(sink.events) == 9
    page = httpx.get(f"{bridge.url}/metrics").text
    assert 'glowplug_alerts_total{outcome="resolved"} 1' in page
    assert 'glowplug_alerts_total{outcome="truncated"} 3' in page


def test_a_repeat_is_the_same_event_and_the_next_firing_another(bridge: HostedProcess, sink: Sink) -> None:
    for alert in (ALERT, {**ALERT, "annotations": {}}, {**ALERT, "startsAt": "2026-03-05T00:00:00Z"}):
        assert notify(bridge, alert).status_code == 200
    first, second, third = (headers["ce-id"] for headers, _ in sink.events)
    assert first == second != third


def test_alertmanager_is_asked_to_try_again_where_it_helps(bridge: HostedProcess, sink: Sink) -> None:
    other = {**ALERT, "fingerprint": "f"}
    for statuses, expected in (([503], 503), ([404], 503), ([400], 400), ([400, 500], 503), ([202], 200)):
        sink.statuses = statuses
        answer = notify(bridge, ALERT, other)
        assert answer.status_code == expected, statuses
        if expected != 200:
            assert f"{statuses[-1]}" in answer.json()["error"]


def test_a_sink_that_is_away_is_503(tmp_path: Path) -> None:
    gone = Sink()
    gone.close()
    process = HostedProcess(tmp_path / "log", "alert-bridge", K_SINK=gone.url)
    assert notify(process, ALERT).status_code == 503
    process.stop()


def broken(**changes: Any) -> list[dict[str, Any]]:
    return [{**ALERT, **changes}]


@pytest.mark.parametrize(
    ("status", "said", "document"),
    [
        (400, "no JSON", b"{"),
        (400, "the body is no object", b"[]"),
        (400, 'version = "3", expected "4"', {**WEBHOOK, "version": "3"}),
        (400, "alerts is missing", {**WEBHOOK, "alerts": None}),
        (400, "alerts[0] is no object", {**WEBHOOK, "alerts": [1]}),
        (
            400,
            'alerts[0].status = "off", expected firing or resolved',
            {**WEBHOOK, "alerts": broken(status="off")},
        ),
        (400, "alerts[0].labels", {**WEBHOOK, "alerts": broken(labels={"a": 1})}),
        (400, "alerts[0].startsAt = null", {**WEBHOOK, "alerts": broken(startsAt=None)}),
        (400, "alerts[0].fingerprint = 1", {**WEBHOOK, "alerts": broken(fingerprint=1)}),
        (413, "21 alerts, expected at most 20", {**WEBHOOK, "alerts": [ALERT] * 21}),
        (413, "larger than", b"x" * (2**20 + 1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_says_what_is_wrong(bridge: HostedProcess, sink: Sink, status: int, said: str, document: Any) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = httpx.post(f"{bridge.url}/alerts", content=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert sink.events == []


def test_all_problems_at_once_but_not_without_bounds() -> None:
    wrong = copy.deepcopy(WEBHOOK)
    wrong["alerts"] = [{"status": "off"}] * 50
    with pytest.raises(WebhookProblem) as raised:
        parse(json.dumps(wrong).encode(), 50)
    assert "alerts[0].status" in raised.value.message and "alerts[1].labels" in raised.value.message
    assert raised.value.message.endswith("and 130 more")


def test_says_that_nobody_takes_events() -> None:
    for sink, said in (("", "neither --sink nor $K_SINK"), ("ftp://a", "expected an http or https URL")):
        ran = subprocess.run(
            [sys.executable, "-m", "glowplug_alert_bridge"],
            capture_output=True, text=True, check=False,
            env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'eventing/alert-bridge/src'}", "K_SINK": sink},
        )  # fmt: skip
        assert ran.returncode == 2
        assert said in ran.stderr and "hint:" in ran.stderr


@given(
    labels=st.dictionaries(st.sampled_from(["model", "alertname", "inferenceservice", "x"]), st.text()),
    starts_at=st.text(min_size=1),
    fingerprint=st.text(),
)
def test_whatever_an_alert_says_it_is_an_event(
    labels: dict[str, str], starts_at: str, fingerprint: str
) -> None:
    document = {"labels": labels, "startsAt": starts_at}
    event = event_of(Alert(True, labels, starts_at, fingerprint, document))
    (read,) = decode(*encode_binary(event))
    assert read == event
    assert len(read.text("id")) == 32
