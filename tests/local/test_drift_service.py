"""The detector as a process: events in over HTTP, one event out to a real sink, `kill -9` in between."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import pathlib
import queue
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import httpx2
import numpy as np
import pytest
from unit.drift.streams import T0, label, predicted, profile, request, response, rows

from glowplug.drift.profile import PROFILE_FILE
from glowplug.wire.events import CloudEvent, encode_binary, encode_structured, structured_json

ROOT = pathlib.Path(__file__).parents[2]
DEADLINE_S = 60.0
BATCH = {"content-type": "application/cloudevents-batch+json"}
REVISION = '{"Knative-Serving-Revision": ["flights-predictor-00001"]}'


class Sink:
    """A receiver of events; `failures` requests are answered 503 first."""

    def __init__(self, failures: int = 0) -> None:
        self.events: queue.Queue[tuple[dict[str, str], dict[str, object]]] = queue.Queue()
        self.refused = 0
        self.failures = failures
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                is_refused = sink.refused < sink.failures
                sink.refused += is_refused
                if not is_refused:
                    sink.events.put(({k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
                self.send_response(503 if is_refused else 202)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/default/events"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Detector:
    """`glowplug drift serve`'s program on a folder; started anew as often as one likes."""

    def __init__(self, folder: pathlib.Path, sink: str, *flags: str) -> None:
        self.folder, self.sink, self.flags = folder, sink, flags
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.client = httpx2.Client(trust_env=False, timeout=30)
        (folder / PROFILE_FILE).write_bytes(profile(4000).to_json())

    def start(self) -> None:
        self.log.write_bytes(b"")
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}/eventing/drift-detector/src", "K_SINK": self.sink}
        environment.pop("PORT", None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "glowplug_drift_detector", "--inferenceservice=flights", "--host=127.0.0.1",
                 f"--profile={self.folder}", f"--state={self.folder / 'state'}", "--http_port=0", "--window_rows=400",
                 "--slots=4", "--needed=2", "--of=3", "--calm=3", "--min_rows=100", "--min_labels=50", *self.flags],
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        until(
            lambda: b"HTTP 127.0.0.1:" in self.log.read_bytes() or self.process.poll() is not None, self.said
        )
        found = re.search(rb"HTTP 127\.0\.0\.1:(\d+)", self.log.read_bytes())
        assert found, self.said()
        self.url = f"http://127.0.0.1:{int(found[1])}"

    def said(self) -> str:
        return self.log.read_text()[-3000:]

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        self.client.close()
        if self.process and self.process.poll() is None:
            self.kill()

    def send(self, events: Sequence[CloudEvent]) -> int:
        body = b"[" + b",".join(structured_json(each) for each in events) + b"]"
        return self.client.post(self.url, content=body, headers=BATCH).status_code

    def metric(self, name: str, **labels: str) -> float:
        text = self.client.get(f"{self.url}/metrics").text
        for line in text.splitlines():
            if line.startswith(name + "{") and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                return float(line.rpartition(" ")[2])
        return 0.0


def until(condition, said=lambda: "") -> None:
    ends = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends, said()
        time.sleep(0.01)


def stream(
    count: int, *, first: int = 0, noise: float = 1.0, width: int = 3, per: int = 20
) -> Iterator[CloudEvent]:
    random = np.random.default_rng(first)
    for number in range(first, first + count):
        features = rows(random, per)
        answers = predicted(features)
        yield request(f"r{number}", T0 + number, features[:, :width], metadata=REVISION)
        yield response(f"r{number}", T0 + number + 0.1, answers, metadata=REVISION)
        # A request's labels come five requests later.
        labels = (answers + random.normal(0, noise, per)).tolist()
        yield label(f"r{number}", T0 + number + 5, labels)


def parts(events: Iterator[CloudEvent], size: int) -> Iterator[list[CloudEvent]]:
    while part := list(itertools.islice(events, size)):
        yield part


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    found = Sink()
    yield found
    found.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Detector]:
    found = Detector(tmp_path_factory.mktemp("drift"), sink.url, "--max_body_bytes=200000")
    with contextlib.closing(found):
        found.start()
        yield found


def test_what_is_no_event_is_refused_with_the_reason(shared: Detector) -> None:
    good = next(stream(1, first=10_000))
    cases = [
        ({"content-type": "application/json"}, b"{}", 400, "specversion"),
        (
            {"content-type": "application/cloudevents+json"},
            b'{"specversion": "1.0"}',
            400,
            "id, source, type",
        ),
        ({"content-type": "application/cloudevents+json"}, b"[", 400, ""),
        ({"content-type": "application/cloudevents+xml"}, b"<x/>", 415, "xml"),
    ]
    bad_label = CloudEvent(
        {
            "specversion": "1.0",
            "id": "1",
            "source": "/x",
            "type": "dev.glowplug.label.observed",
            "subject": "r",
        },
        b'{"inferenceservice": "flights", "labels": [1, "two"]}',
    )
    cases.append((*encode_binary(bad_label), 400, "labels[1]"))
    # One that is none among good ones: nothing of the batch is taken.
    mixed = b"[" + structured_json(good) + b"," + structured_json(bad_label) + b"]"
    cases.append((BATCH, mixed, 400, "labels[1]"))
    for headers, body, status, said in cases:
        answer = shared.client.post(shared.url, content=body, headers=headers)
        assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert shared.metric("glowplug_drift_events_total", outcome="request") == 0
    too_large = shared.client.post(shared.url, content=b"x" * 300_000, headers=BATCH)
    assert too_large.status_code == 413
    assert shared.client.post(f"{shared.url}/elsewhere", content=b"").status_code == 404
    assert shared.client.get(f"{shared.url}/healthz").status_code == 200


def test_binary_structured_and_batched_count_alike_and_once(shared: Detector) -> None:
    asked = list(stream(3, first=20_000))[::3]
    for event, encode in zip(asked, (encode_binary, encode_structured, encode_structured), strict=True):
        headers, body = encode(event)
        assert shared.client.post(shared.url, content=body, headers=headers).status_code == 202
    assert shared.send(asked) == 202
    assert shared.metric("glowplug_drift_events_total", outcome="request") == 3
    assert shared.metric("glowplug_drift_events_total", outcome="repeated") == 3


def test_labels_are_joined_late_and_counted_by_revision(shared: Detector) -> None:
    asked = [*stream(5, first=30_000)]
    assert shared.send([each for each in asked if "label" not in each.text("type")]) == 202
    assert shared.metric("glowplug_labelled_predictions_total") == 0
    assert shared.metric("glowplug_drift_waiting_requests") == 5
    assert shared.send([each for each in asked if "label" in each.text("type")]) == 202
    revision = {"namespace": "default", "inferenceservice": "flights", "revision": "flights-predictor-00001"}
    assert shared.metric("glowplug_labelled_predictions_total", **revision) == 100
    assert 40 < shared.metric("glowplug_labelled_loss_total", **revision) < 120
    assert shared.metric("glowplug_labelled_loss_squares_total", **revision) > 40
    assert shared.metric("glowplug_drift_waiting_requests") == 0


def test_requests_of_another_form_are_one_event(shared: Detector, sink: Sink) -> None:
    for part in parts(stream(60, first=40_000), 30):
        assert shared.send(part) == 202
    assert sink.events.empty()
    for part in parts(stream(120, first=50_000, width=2), 30):
        assert shared.send(part) == 202
    headers, data = sink.events.get(timeout=DEADLINE_S)
    assert headers["ce-type"] == "dev.glowplug.drift.detected"
    assert headers["ce-source"] == "/glowplug/drift/default/flights"
    assert headers["ce-subject"] == "flights"
    features = data["features"]
    assert isinstance(features, list)
    assert features[0]["name"] == "2 features, expected 3"
    assert features[0]["test"] == "schema"
    until(lambda: shared.metric("glowplug_drift_unsent_events") == 0)
    assert sink.events.empty()


def test_kills_in_the_middle_lose_nothing_and_tell_once(tmp_path: pathlib.Path) -> None:
    """What was answered is counted once; what was not is sent again, as a broker does. The sink is away at first."""
    sink = Sink(failures=2)
    detector = Detector(tmp_path, sink.url)
    with contextlib.closing(detector), contextlib.closing(sink):
        detector.start()
        events = [*stream(60), *stream(160, first=60, noise=4.0)]
        batches = list(parts(iter(events), 20))
        kills = {5, 14, len(batches) - 3}
        for number, part in enumerate(batches):
            if number in kills:
                # Killed while it takes them: written or not, it does not matter.
                sending = threading.Thread(target=lambda part=part: attempt(detector, part))
                sending.start()
                detector.kill()
                sending.join()
                detector.start()
            assert detector.send(part) == 202
        assert detector.metric("glowplug_drift_events_total", outcome="request") == 220
        assert detector.metric("glowplug_labelled_predictions_total") == 220 * 20
        assert detector.metric("glowplug_drift_episodes_total") == 1
        headers, data = sink.events.get(timeout=DEADLINE_S)
        until(lambda: detector.metric("glowplug_drift_unsent_events") == 0, detector.said)
        ids = {headers["ce-id"]}
        while not sink.events.empty():
            # At least once: between the sink's answer and the note of it a kill fits.
            ids.add(sink.events.get()[0]["ce-id"])
        assert len(ids) == 1
        error = data["error"]
        assert isinstance(error, dict)
        assert error["drifted"]
        assert error["mae"] > 1.5 * error["reference_mae"]
        assert data["revision"] == "flights-predictor-00001"
        assert detector.stop() == 0


def test_a_full_disk_is_said_and_what_was_acknowledged_is_there(tmp_path: pathlib.Path) -> None:
    """No file may grow: SQLite finds the disk full. Also an event that was sent then is sent once."""
    sink = Sink(failures=10**9)
    detector = Detector(tmp_path, sink.url)
    with contextlib.closing(detector), contextlib.closing(sink):
        detector.start()
        batches = list(parts(stream(160, width=2), 30))
        for part in batches[:-1]:
            assert detector.send(part) == 202
        until(lambda: detector.metric("glowplug_drift_unsent_events") == 1 and sink.refused, detector.said)
        assert detector.process
        pid = detector.process.pid
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        taken = detector.metric("glowplug_drift_events_total", outcome="response")
        for _ in range(3):
            assert detector.send(batches[-1]) == 503
        sink.failures = 0
        headers, _ = sink.events.get(timeout=DEADLINE_S)
        assert headers["ce-type"] == "dev.glowplug.drift.detected"
        # That it was sent cannot be written now.
        assert detector.metric("glowplug_drift_unsent_events") == 1
        assert detector.metric("glowplug_drift_events_total", outcome="response") == taken
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        assert detector.send(batches[-1]) == 202
        until(lambda: detector.metric("glowplug_drift_unsent_events") == 0, detector.said)
        assert sink.events.empty()
        detector.kill()
        detector.start()
        assert detector.metric("glowplug_drift_events_total", outcome="response") == 160


def attempt(detector: Detector, part: list[CloudEvent]) -> None:
    with contextlib.suppress(httpx2.TransportError):
        detector.send(part)


def test_another_profile_is_taken_up_and_begins_anew(tmp_path: pathlib.Path, sink: Sink) -> None:
    detector = Detector(tmp_path, sink.url, "--reload_s=0.1")
    with contextlib.closing(detector):
        detector.start()
        for part in parts(stream(120, width=2), 30):
            assert detector.send(part) == 202
        first, _ = sink.events.get(timeout=DEADLINE_S)
        assert detector.metric("glowplug_drift_episode_open") == 1
        (tmp_path / PROFILE_FILE).write_bytes(b"{")
        until(lambda: "the profile stays what it was" in detector.said(), detector.said)
        (tmp_path / PROFILE_FILE).write_bytes(profile(4000, seed=9).to_json())
        until(lambda: detector.metric("glowplug_drift_episode_open") == 0, detector.said)
        for part in parts(stream(120, first=1000, width=2), 30):
            assert detector.send(part) == 202
        second, _ = sink.events.get(timeout=DEADLINE_S)
        assert first["ce-id"] != second["ce-id"]


def test_a_model_that_is_still_to_be_trained_has_no_profile(tmp_path: pathlib.Path, sink: Sink) -> None:
    """Knative gives up for good on a pod that does not become ready: it is, and refuses what it cannot count."""
    detector = Detector(tmp_path, sink.url, "--reload_s=0.1")
    with contextlib.closing(detector):
        (tmp_path / PROFILE_FILE).unlink()
        detector.start()
        assert "nothing is counted yet" in detector.said()
        assert detector.client.get(f"{detector.url}/healthz").status_code == 200
        assert detector.client.get(f"{detector.url}/metrics").text == ""
        first, *others = parts(stream(120, width=2), 30)
        assert detector.send(first) == 503
        # Half of it, as a copy that is under way leaves it.
        (tmp_path / PROFILE_FILE).write_bytes(profile(4000).to_json()[:100])
        assert detector.send(first) == 503
        (tmp_path / PROFILE_FILE).write_bytes(profile(4000).to_json())
        until(lambda: detector.send(first) == 202, detector.said)
        for part in others:
            assert detector.send(part) == 202
        sink.events.get(timeout=DEADLINE_S)


def test_what_is_set_wrong_is_told_in_a_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / PROFILE_FILE).write_bytes(b"{")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/eventing/drift-detector/src"}
    for flags, said, status in (
        ([], "both are needed", 2),
        (["--inferenceservice=f", "--profile=/x", "--needed=9"], "needed = 9", 2),
        (["--inferenceservice=f", "--profile=/x", "--sink=ftp://x"], "expected an http or https URL", 2),
        (["--inferenceservice=f", f"--profile={tmp_path}", f"--state={tmp_path}"], "profile", 1),
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "glowplug_drift_detector", "--http_port=0", *flags],
            env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert (done.returncode, said in done.stderr) == (status, True), done.stderr
        assert "Traceback" not in done.stderr


def test_the_command_replays_and_shows(tmp_path: pathlib.Path) -> None:
    (tmp_path / PROFILE_FILE).write_bytes(profile(4000).to_json())
    lines = [structured_json(each) for each in itertools.chain(stream(60), stream(120, first=60, noise=4.0))]
    lines[1] = json.dumps({"number": 2, "event": json.loads(lines[1])}).encode()
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines))
    command = [sys.executable, "-m", "glowplug.cli.main", "drift"]
    done = subprocess.run(
        [*command, "replay", str(tmp_path / "events.jsonl"), "-i", "flights", "--profile", str(tmp_path),
         "--window-rows", "800", "--slots", "4"],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DETECTED") == 1
    assert "the error is" in done.stdout
    assert "180 label_joined" in done.stderr
    shown = subprocess.run(
        [*command, "show", str(tmp_path)], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "4000 rows" in shown.stdout
    assert re.search(r"^prediction .* PSI 0\.\d+, KS 0\.\d+$", shown.stdout, re.MULTILINE)
    wrong = subprocess.run(
        [*command, "replay", "-", "-i", "flights", "--profile", str(tmp_path)],
        input="{}\n", capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert wrong.returncode == 1
    assert "-:1: specversion, id, source, type are missing" in wrong.stderr


def test_a_port_that_is_taken_is_said(tmp_path: pathlib.Path, sink: Sink) -> None:
    (tmp_path / PROFILE_FILE).write_bytes(profile(500).to_json())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "glowplug.cli.main", "drift", "serve", "-i", "flights", "--profile", str(tmp_path),
             "--port", str(taken.getsockname()[1]), "--state", str(tmp_path / "state")],
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
