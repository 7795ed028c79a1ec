"""What the serving benchmark says of a server is true: its arithmetic, turns and checks; not how fast anything is."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
_REPORT = """
finished in 1.02s, 980.39 req/s, 200.00KB/s
requests: 1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout
traffic: 195.31KB (200000) total, 73.24KB (75000) headers (space savings 0.00%), 122.07KB (125000) data
"""


def benchmark(name: str) -> ModuleType:
    """A module of benchmarks/, whose parent must not be on sys.path: its `transformers` is not the library's."""
    if "benchmarks" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "benchmarks", _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"benchmarks.{name}")


load = benchmark("load")
processes = benchmark("processes")
protocols = benchmark("protocols")
results = benchmark("results")
rounds = benchmark("rounds")
serving_tables = benchmark("serving_tables")
ROW = {"input-0": np.array([[1.0, 2.0]], dtype=np.float32)}


def test_the_load_tools_report_is_read() -> None:
    log = "1700000000000000\t200\t1500\n1700000000001000\t200\t2500\n"
    found = load.parse(_REPORT, log, 1000)
    assert (found.done, found.seconds, found.times_ms, found.data_bytes) == (1000, 1.02, [1.5, 2.5], 125000)


def test_a_load_with_a_failed_request_is_no_sample() -> None:
    report = _REPORT.replace("1000 succeeded, 0 failed", "999 succeeded, 1 failed")
    with pytest.raises(protocols.WrongAnswer, match="999 of 1000"):
        load.parse(report, "", 1000)


def test_a_ratio_is_taken_within_a_round() -> None:
    # The second round was slow for both; the median of the ratios does not see it, that of the values would.
    [found] = rounds.ratio("a.ratio", [2.0, 20.0, 2.0], [4.0, 40.0, 8.0])
    assert (found.value, found.n) == (0.5, 3)
    assert rounds.ratio("a.ratio", [], [1.0]) == []


def test_servers_take_turns_and_a_wrong_one_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def measure(server: Any, sent: Any, concurrency: int, amount: Any, *, sample_s: float) -> Any:
        order.append((server.name, concurrency))
        if server.name == "wrong" and concurrency == 8:
            raise protocols.WrongAnswer("answered 3, expected 4")
        return load.Sample(1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(rounds, "measure", measure)
    monkeypatch.setattr(rounds, "amount_for", lambda *_, **__: load.Amount(1.0))
    servers = {name: processes.Server(name) for name in ("right", "wrong")}
    requests = {name: {"v2_json": [None]} for name in servers}
    found = rounds.by_turns(servers, requests, (1, 8), rounds.Options(quick=True))
    assert order == [
        ("right", 1), ("wrong", 1), ("right", 8), ("wrong", 8),
        ("wrong", 1), ("right", 1), ("right", 8),
    ]  # fmt: skip
    assert {(cell.server, cell.concurrency) for cell in found.samples} == {
        ("right", 1),
        ("right", 8),
        ("wrong", 1),
    }
    table = serving_tables.figures("t", "T", found, (), ())
    assert "absent: wrong, v2_json, c=8: answered 3, expected 4" in table.notes


class _Answers(BaseHTTPRequestHandler):
    """V2 answers: the sum of the row. The benchmark's own call of number `wrong_call` gets 0, a load tool's never."""

    protocol_version = "HTTP/1.1"
    wrong_call = 0
    calls = 0

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        head = int(self.headers.get("Inference-Header-Content-Length") or len(content))
        tensor = json.loads(content[:head])["inputs"][0]
        values = np.frombuffer(content[head:], dtype="<f4") if content[head:] else np.array(tensor["data"])
        is_call = self.headers.get("Accept-Encoding") == "identity"
        type(self).calls += is_call
        total = 0.0 if is_call and self.calls == self.wrong_call else float(values.sum())
        self.answer({"outputs": [{"name": "y", "shape": [1], "datatype": "FP32", "data": [total]}]})

    def answer(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answers() -> Iterator[tuple[Any, type[_Answers]]]:
    """A server under measurement, and the handler's class to make it answer wrongly."""
    handler = type("Answers", (_Answers,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield processes.Server("s", listening.server_address[1]), handler
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("protocol", ["v2_json", "v2_binary"])
def test_answers_are_compared(answers: Any, protocol: str) -> None:
    server, _ = answers
    caller = protocols.Caller(server.http_port, 0)
    assert caller.call(protocols.request(protocol, "m", ROW, [3.0])) > 0
    with pytest.raises(protocols.WrongAnswer, match=r"\[3.0\], expected \[4.0\]"):
        caller.call(protocols.request(protocol, "m", ROW, [4.0]))


def test_binary_and_grpc_answers_are_read() -> None:
    head = json.dumps(
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}]}
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    content = head + np.array([1.5, -2.0], dtype="<f4").tobytes()
    assert protocols._http_numbers("v2_binary", headers, content).tolist() == [1.5, -2.0]
    assert protocols.framed(b"abc") == b"\0\0\0\0\x03abc"


@pytest.mark.skipif(
    not (shutil.which("h2load") and shutil.which("wrk")), reason="h2load or wrk is not installed"
)
@pytest.mark.parametrize("amount", [load.Amount(0.1, 400), load.Amount(0.1)], ids=["h2load", "wrk"])
def test_a_server_that_is_wrong_only_under_load_is_caught(answers: Any, amount: Any) -> None:
    server, handler = answers
    sent = [
        protocols.request(
            "v2_json", "m", {"input-0": np.array([[value, 2.0]], dtype=np.float32)}, [value + 2.0]
        )
        for value in (1.0, 5.0)
    ]
    sample = load.measure(server, sent, 2, amount, sample_s=0.01)
    assert sample.rps > 0 and sample.p50_ms <= sample.p99_ms
    # The first call is before the load.
    handler.wrong_call = handler.calls + 2
    with pytest.raises(protocols.WrongAnswer, match="during the load"):
        load.measure(server, sent, 2, amount, sample_s=0.01)


def test_wrks_report_is_read() -> None:
    wrk = benchmark("wrk")
    line = '{"done":100,"us":1000000,"bytes":5000,"p50":1500.0,"p99":2500.0,"failed":0}'
    assert wrk.parse(f"Running\n{line}\n") == wrk.Volley(100, 1.0, 1.5, 2.5, 5000)
    with pytest.raises(protocols.WrongAnswer, match="3 requests failed"):
        wrk.parse(line.replace('"failed":0', '"failed":3'))


_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.2: pass\\ntime.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    """Not for a zombie, which waits for a parent that may be a container's first process."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_servers_children_are_counted_and_stopped_with_it(tmp_path: pathlib.Path) -> None:
    server = processes.Server("a server, with a child")
    server.launch([sys.executable, "-c", _PARENT], {}, tmp_path)
    try:
        deadline = time.monotonic() + 20
        while server.cpu_s() < 0.2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        tree = server.tree()
        assert len(tree) == 2 and int((tmp_path / "a-server-with-a-child.log").read_text()) in tree
        assert server.memory_mib() > 1
    finally:
        server.stop()
    while any(map(is_running, tree)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


_UV = """#!/bin/sh
echo "$1 $2" >> "$CALLS"
for last; do :; done
if [ "$1" = venv ]; then mkdir -p "$last/bin"; fi
"""


def test_an_environment_is_made_once_and_again_when_its_packages_change(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = benchmark("environments")
    monkeypatch.setattr(environments, "ROOT", tmp_path / "peers")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (tmp_path / "uv").write_text(_UV)
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for packages in (("a==1",), ("a==1",), ("a==2",)):
        environments.Environment("peer", packages).ensure()
    assert (tmp_path / "calls").read_text().split("\n")[:-1] == ["venv --quiet", "pip install"] * 2
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(environments.Absent, match="uv is not on PATH"):
        environments.Environment("other", ("a==1",)).ensure()


def test_a_server_that_ends_at_its_start_is_absent_with_its_last_line(tmp_path: pathlib.Path) -> None:
    server = processes.Server("broken")
    server.launch([sys.executable, "-c", "raise SystemExit('no such model')"], {}, tmp_path)
    with pytest.raises(benchmark("environments").Absent, match="broken ended: no such model"):
        server.wait_until(lambda: False)


def test_tables_are_drawn_beside_the_metrics(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib")
    samples = {
        rounds.Cell(server, "v2_json", 8): [load.Sample(1000.0 / n, 1.0 * n, 2.0 * n, 100.0 * n)]
        for n, server in enumerate(("glowplug", "kserve", "raw ASGI"), start=1)
    }
    found = rounds.Measured(samples, {"glowplug": [40.0], "kserve": [130.0]})
    table = serving_tables.figures("serving.lookup", "Side by side", found, ("a note",), ("serving_lookup",))
    results.record([results.summarise("a.s", [1.0], "s", command="make bench-a")], [table], tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| `a.s` | 1 s |" in page and "- a note" in page
    assert "## Side by side" in page and "![Side by side](plots/serving_lookup.png)" in page
    assert "| kserve | v2_json | 8 | 500 | 2 | 4 | 200 | 130 |  |" in page
    [plot] = benchmark("plots").draw(tmp_path)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark("__main__").main(["sevring"])
    assert ended.value.code == 2
