"""Bounded load on one server: wrk for many rows over HTTP, h2load (Debian's nghttp2-client) for one row or gRPC.

gRPC is HTTP/2 with a prepared message. Neither tool looks further than the status, so a sampler asks during the load
and compares the numbers, and the bytes that the tool received must be those of right answers.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import wrk
from benchmarks.environments import tool
from benchmarks.processes import Server
from benchmarks.protocols import GRPC, Caller, Request, WrongAnswer, framed
from benchmarks.results import percentile

MAX_REQUESTS = 200_000
_LIMIT_S = 60
_WARM_UPS = 3
# Answers of one request differ in length by an id or the digits of a time, not by more.
_SIZE_TOLERANCE = 0.15
_HEAD_BYTES = 600
_DONE = re.compile(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed")
_FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s|m),")
_DATA = re.compile(r"\((\d+)\) data")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Sample:
    """One short load: requests a second, milliseconds, server CPU microseconds a request."""

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True)
class Amount:
    """How much load: seconds of varied rows (wrk), or that many times one row (h2load)."""

    seconds: float
    count: int | None = None


@dataclass(frozen=True)
class Load:
    """What one load tool run found: how many, how long, each request's milliseconds, bytes of the answers' bodies."""

    done: int
    seconds: float
    times_ms: Sequence[float]
    data_bytes: int


def measure(
    server: Server, sent: Sequence[Request], concurrency: int, amount: Amount, *, sample_s: float
) -> Sample:
    """One load; answers are compared before, during (every `sample_s`), and after.

    Raises `WrongAnswer` for one wrong or failed answer.
    """
    caller = Caller(server.http_port, server.grpc_port)
    try:
        size = caller.call(sent[0])
        before = server.cpu_s()
        with _sampling(server, sent, sample_s) as sampled:
            if amount.count is None:
                found = _varied(server, sent, concurrency, amount.seconds, size)
            else:
                found = _repeated(server, sent[0], concurrency, amount.count, size)
        cpu_s = server.cpu_s() - before
        caller.call(sent[-1])
    finally:
        caller.close()
    return Sample(found.rps, found.p50_ms, found.p99_ms, cpu_s / (found.served + sampled[0]) * 1e6)


@dataclass(frozen=True)
class _Found:
    """`served` is how many requests the server had CPU for, as an upper bound."""

    rps: float
    p50_ms: float
    p99_ms: float
    served: int


def _varied(server: Server, sent: Sequence[Request], concurrency: int, seconds: float, size: int) -> _Found:
    volley = wrk.run(server, sent, concurrency, seconds)
    each = volley.received / volley.done
    if not (1 - _SIZE_TOLERANCE) * size <= each <= (1 + _SIZE_TOLERANCE) * size + _HEAD_BYTES:
        raise WrongAnswer(f"{each:.0f} bytes an answer under load, {size} and its head before it")
    # At the end wrk hangs up on a request of each connection, which the server may have computed.
    served = volley.done + concurrency
    return _Found(volley.done / volley.seconds, volley.p50_ms, volley.p99_ms, served)


def _repeated(server: Server, sent: Request, concurrency: int, count: int, size: int) -> _Found:
    load = run(server, sent, concurrency, count)
    if abs(load.data_bytes / load.done - size) > _SIZE_TOLERANCE * size:
        raise WrongAnswer(f"{load.data_bytes / load.done:.0f} bytes an answer under load, {size} before it")
    p50, p99 = (percentile(load.times_ms, percent) for percent in (50, 99))
    return _Found(load.done / load.seconds, p50, p99, load.done)


def run(server: Server, sent: Request, concurrency: int, count: int) -> Load:
    """One run of the tool. Raises `WrongAnswer` where a request failed."""
    is_grpc = sent.protocol == GRPC
    headers = {"content-type": "application/grpc", "te": "trailers"} if is_grpc else sent.headers
    with tempfile.TemporaryDirectory(prefix="glowplug-load-") as folder:
        body, log = pathlib.Path(folder) / "body", pathlib.Path(folder) / "log"
        body.write_bytes(framed(sent.body) if is_grpc else sent.body)
        command = [
            tool("h2load"), "-n", str(count), "-c", str(concurrency), "-t", "1", "-m", "1",
            "-d", str(body), f"--log-file={log}", *(() if is_grpc else ("--h1",)),
        ]  # fmt: skip
        for name, value in headers.items():
            command += ["-H", f"{name}: {value}"]
        port = server.grpc_port if is_grpc else server.http_port
        command.append(f"http://127.0.0.1:{port}{sent.path}")
        try:
            output = subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=_LIMIT_S
            ).stdout
        except subprocess.TimeoutExpired as error:
            raise WrongAnswer(f"{count} requests were not answered in {_LIMIT_S} s") from error
        return parse(output, log.read_text(), count)


def parse(output: str, log: str, count: int) -> Load:
    """h2load's report and its log (start µs, status, duration µs). Raises `WrongAnswer` unless all `count` were 200."""
    counts, finished, data = _DONE.search(output), _FINISHED.search(output), _DATA.search(output)
    if counts is None or finished is None or data is None:
        raise WrongAnswer(f"h2load said: {output[-300:]!r}")
    if int(counts[2]) != count:
        raise WrongAnswer(f"{counts[2]} of {count} requests succeeded")
    times = [int(line.split("\t")[2]) / 1000 for line in log.splitlines()]
    return Load(int(counts[1]), float(finished[1]) * _UNITS[finished[2]], times, int(data[1]))


@contextlib.contextmanager
def _sampling(server: Server, requests: Sequence[Request], every_s: float) -> Iterator[list[int]]:
    """Ask and compare in a thread of its own while the block runs; yields the count in a list of one."""
    done, count, wrong = threading.Event(), [0], []

    def ask() -> None:
        caller = Caller(server.http_port, server.grpc_port)
        try:
            while not done.wait(every_s):
                caller.call(requests[count[0] % len(requests)])
                count[0] += 1
        except Exception as error:  # told below, by the thread that measures
            wrong.append(error)
        finally:
            caller.close()

    thread = threading.Thread(target=ask, name="sampler", daemon=True)
    thread.start()
    try:
        yield count
    finally:
        done.set()
        thread.join(_LIMIT_S)
    if wrong:
        raise WrongAnswer(f"during the load: {wrong[0]}") from wrong[0]


def amount_for(server: Server, sent: Request, concurrency: int, seconds: float, *, is_varied: bool) -> Amount:
    """About `seconds` of requests, with h2load at least two for each client; found by a warm-up of the server."""
    count = concurrency + 4
    for _ in range(_WARM_UPS):
        warm = run(server, sent, concurrency, count)
        rate = warm.done / warm.seconds
        if warm.seconds > seconds / 4:
            break
        count = max(count, int(rate * seconds / 3))
    if is_varied and sent.protocol != GRPC:
        return Amount(seconds)
    return Amount(seconds, max(2 * concurrency, min(MAX_REQUESTS, int(rate * seconds))))
