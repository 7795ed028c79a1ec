"""What the cluster's benchmarks say is true: what counts as lost, and what is said where there is no cluster."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from unit.test_benchmarks_coldstart import benchmark

RATE = 50.0


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that gives these answers in turn, each on a connection of its own; "" hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for number in range(1_000_000):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answers[number % len(answers)])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def counted(where: str) -> object:
    load = benchmark("cluster_load")
    with load.OpenLoop(where, "a.b", "/x", b"{}", RATE, b"right") as running:
        begin = time.monotonic()
        time.sleep(0.6)
        return running.count(begin, time.monotonic())


def test_only_a_right_answer_is_not_lost() -> None:
    good = b"HTTP/1.1 200 OK\r\n\r\nright"
    with answering(good, b"HTTP/1.1 200 OK\r\n\r\nwrong", b"HTTP/1.1 503 Busy\r\n\r\nno", b"") as where:
        found = counted(where)
    assert found.due >= 20
    assert abs(found.lost - found.due * 3 / 4) <= 3
    assert all(each in found.errors for each in ("wrong answer", "503 no", "connection closed"))
    with answering(good) as where:
        assert counted(where).lost == 0


def test_refused_connections_are_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"127.0.0.1:{listener.getsockname()[1]}"
    found = counted(where)
    assert found.lost == found.due >= 20
    assert "ConnectionRefusedError" in found.errors


def test_a_kept_connection_reads_whole_answers() -> None:
    load = benchmark("cluster_load")

    async def calls() -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(3):
                await reader.readuntil(b"{}")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright")
            await reader.readuntil(b"{}")
            writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            connection = await load.Connection.open(f"127.0.0.1:{port}", "a.b", "/x", b"{}")
            times = [await connection.call() for _ in range(3)]
            with pytest.raises(AssertionError, match="500"):
                await connection.call()
            connection.close()
            return len(times)

    assert asyncio.run(calls()) == 3


def test_without_a_cluster_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    place, absent = benchmark("cluster_place"), benchmark("environments").Absent
    for name in ("KUBECONFIG", place.GATEWAY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(absent, match=r"KUBECONFIG.*CONFORMANCE_GATEWAY.*docs/cluster\.md"):
        place.find()
    assert benchmark("__main__").main(["cluster"]) == 2
