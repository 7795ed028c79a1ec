"""`glowplug loadtest run` against a whole machine, and its senders against servers that misbehave on purpose."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from local.machine_lab import MachineLab, inference_service

from glowplug.errors import InferenceError
from glowplug_loadtest import records, run
from glowplug_loadtest.plan import Plan
from glowplug_loadtest.profiles import Profile, Segment
from glowplug_loadtest.thresholds import parse

ROWS = "0.1,0.2,0.3\n0.3,0.3,0.9\n0.5,0.1,0.4\n"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`glowplug loadtest run`."""
    return subprocess.run(
        [sys.executable, "-m", "glowplug.cli.main", "loadtest", "run", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )


def figures(folder: pathlib.Path) -> dict:
    return json.loads((folder / "figures.json").read_text())


@pytest.fixture
def rows(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return str(path)


def test_the_command_loads_a_service_of_the_machine(
    machine: MachineLab, small_model: pathlib.Path, rows: str, tmp_path: pathlib.Path
) -> None:
    machine.apply(inference_service("loaded", small_model, minReplicas=1))
    machine.wait_ready("loaded")
    kube = ("--kubeconfig", str(machine.directory.kubeconfig), "--data", rows)
    rest, grpc = tmp_path / "rest", tmp_path / "grpc"
    # 10 requests a second, 100 in the spike, for 3 s; by path and REST, then by host name and gRPC.
    bursty = ("bursty", "loaded", "--scale", "0.1", "--time-scale", "0.01", *kube)
    by_path = command(*bursty, "--warm-up", "0.3", "--threshold", "errors<1%", "--out", str(rest))
    assert by_path.returncode == 0, by_path.stderr
    assert "✓ errors<1%" in by_path.stderr
    assert "requests " in by_path.stdout
    host = "http://loaded.default.localhost:80"
    grpc_by_host = ("--protocol", "grpc", "--target", host, "--gateway", machine.ingress)
    by_host = command(
        *bursty, *grpc_by_host, "--duration", "1.0", "--threshold", "p50<0.001ms", "--out", str(grpc)
    )
    assert by_host.returncode == 1
    assert "✗ missed: p50<0.001ms: measured" in by_host.stderr
    for folder, least in ((rest, 50), (grpc, 10)):
        found = figures(folder)
        assert (found["failed"], found["errors"]) == (0, {})
        assert found["answered"] == found["requests"] > least
        assert found["replicas"]["ready_least"] == 1
        assert found["replicas"]["held_most"] is not None
        assert "<svg" in (folder / "report.html").read_text()
    assert max(figures(rest)["series"]["due_rps"]) > 50
    machine.delete("loaded")


def test_what_is_wrong_is_told_before_anything_is_sent(machine: MachineLab, rows: str) -> None:
    kube = ("--kubeconfig", str(machine.directory.kubeconfig))
    for arguments, words in (
        (("wave", "x"), "no profile"),
        (("steady", "x", "--threshold", "p99"), "--threshold p99"),
        (("steady", "x", "--protocol", "soap", "--workers", "0", "--data", rows), "--workers 0"),
        (("steady", "x", "--scale", "0"), "--scale 0"),
        (("steady", "x", *kube), "what is x to be asked"),
        (("steady", "x", "--data", rows, *kube), '"x" not found'),
    ):
        result = command(*arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert words in result.stderr


class Service:
    """Answers the sum of a request's row, but for every so-manieth request; counts what it was sent."""

    def __init__(self) -> None:
        self.count = 0
        self.slow_s = 0.0
        self.wrong_every = self.refused_every = self.cut_every = 0
        service, lock = self, threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    service.count += 1
                    number = service.count
                time.sleep(service.slow_s)
                if service.cut_every and number % service.cut_every == 0:
                    self.close_connection = True
                    return
                is_wrong = service.wrong_every and number % service.wrong_every == 0
                total = sum(body["inputs"][0]["data"]) + (1 if is_wrong else 0)
                output = {"name": "sum", "datatype": "FP32", "shape": [1], "data": [total]}
                answer = json.dumps({"model_name": "m", "outputs": [output]}).encode()
                is_refused = service.refused_every and number % service.refused_every == 0
                self.send_response(503 if is_refused else 200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextlib.contextmanager
def serving() -> Iterator[Service]:
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever)
    thread.start()
    try:
        yield service
    finally:
        service.server.shutdown()
        thread.join()
        service.server.server_close()


BODIES = [
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [number, 1.0]}]}
    for number in range(5)
]


def profile(rate: float, seconds: float) -> Profile:
    return Profile("steady", (Segment(seconds, rate, rate),))


def test_wrong_refused_and_cut_answers_are_failures_and_are_not_sent_again(tmp_path: pathlib.Path) -> None:
    with serving() as service:
        service.wrong_every, service.refused_every, service.cut_every = 7, 11, 13
        plan = Plan(service.url, "m", profile(200, 1), check="shape", arrivals="constant")
        lenient = run.run(plan, "m", BODIES, [], tmp_path / "lenient").total
        assert service.count == 200 == lenient["requests"]
        refused = sum(count for error, count in lenient["errors"].items() if error.startswith("HTTP 503"))
        assert refused == sum(not number % 11 and bool(number % 13) for number in range(1, 201))
        assert lenient["failed"] == sum(not number % 11 or not number % 13 for number in range(1, 201))

        service.count = 0
        service.refused_every = service.cut_every = 0
        strict = run.run(
            Plan(service.url, "m", profile(200, 1), arrivals="constant"), "m", BODIES, [], tmp_path / "strict"
        )
        # The references are the first five, none of which is a seventh.
        wrong = sum(not number % 7 for number in range(6, 206))
        assert strict.total["errors"] == {"wrong answer: output 'sum' has other values": wrong}
        assert service.count == len(BODIES) + 200


def test_a_stall_is_seen_by_all_who_would_have_asked(tmp_path: pathlib.Path) -> None:
    # Two at a time, half a second each: of 40 requests a second, four are answered. A closed loop would have asked
    # eight times and found half a second each time.
    with serving() as service:
        service.slow_s = 0.5
        plan = Plan(
            service.url,
            "m",
            profile(40, 2),
            check="shape",
            arrivals="constant",
            max_in_flight=2,
            timeout_s=2.0,
        )
        found = run.run(plan, "m", BODIES, parse(["over600ms<50%"]), tmp_path)
    total = found.total
    assert total["requests"] == 80
    assert total["unsent"] > 50
    assert total["answered"] + total["failed"] == 80
    assert total["latency_ms"]["max"] > 1000
    assert found.missed
    rows = records.read(tmp_path.glob("requests-*.csv"))
    assert [row.due_s for row in rows] == pytest.approx(
        [(number + 0.5) / 40 for number in range(80)], abs=1e-5
    )


def test_senders_share_the_load_and_one_that_cannot_begin_says_why(tmp_path: pathlib.Path) -> None:
    with serving() as service:
        plan = Plan(service.url, "m", profile(100, 1), workers=2, arrivals="constant")
        total = run.run(plan, "m", BODIES, [], tmp_path).total
        assert (total["requests"], total["failed"]) == (100, 0)
        halves = [len(records.read([tmp_path / f"requests-{index}.csv"])) for index in range(2)]
        assert halves == [50, 50]
        url = service.url
    with pytest.raises(InferenceError, match="request 1 before the load"):
        run.run(Plan(url, "m", profile(10, 1)), "m", BODIES, [], tmp_path / "nobody")
