"""What the benchmarks of cold starts and held requests say is true: arithmetic and checks; not how fast anything is."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import pathlib
import socket
import sys
from types import ModuleType

import pytest

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """A module of benchmarks/, whose parent must not be on sys.path: its `transformers` is not the library's."""
    if "benchmarks" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "benchmarks", _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"benchmarks.{name}")


def test_phases_are_medians_and_the_rest_is_what_no_phase_has() -> None:
    starts = [
        {"decided": 1.0, "started": 10.0, "first_byte": 5.0, "how": "fork"},
        {"decided": 3.0, "started": 30.0, "first_byte": 5.0, "how": "fork"},
        {"decided": 2.0, "started": 20.0, "first_byte": 6.0, "how": "fork"},
    ]
    rows = benchmark("zero").phase_rows("warm", [20.0, 48.0, 29.0], starts)
    assert rows == [
        ["warm", "decided", 2.0, 3],
        ["warm", "started", 20.0, 3],
        ["warm", "first_byte", 5.0, 3],
        ["warm", "before and after", 4.0, 3],
        ["warm", "request to 200", 29.0, 3],
    ]


def test_ratios_are_taken_within_a_round_that_both_have() -> None:
    ratios = benchmark("coldstart").ratios_by_round
    assert ratios([[1000.0, 1200.0], [3000.0]], [[100.0, 120.0, 110.0], [200.0], [1.0]]) == [10.0, 15.0]
    assert ratios([[1000.0], []], [[100.0], [50.0]]) == [10.0]


def test_a_peer_that_is_absent_has_no_metric() -> None:
    coldstart = benchmark("coldstart")
    found = coldstart.Measured(
        pool=[[60.0, 80.0], [70.0, 200.0]],
        no_pool=[[210.0], [220.0]],
        together=[[150.0], [160.0]],
        process_s=[0.2, 0.3],
    )
    values = {result.metric: result.value for result in coldstart.results(found)}
    assert values == {
        "coldstart.xgboost.p50_ms": 75.0,
        "coldstart.xgboost.p99_ms": 200.0,
        "coldstart.xgboost_without_pool.p50_ms": 215.0,
        "coldstart.transformer_and_predictor.p50_ms": 155.0,
        "start.xgboost_without_pool.s": 0.25,
    }
    found.kserve = [[1400.0], [2700.0]]
    found.knative = [[4200.0]]
    values = {result.metric: result.value for result in coldstart.results(found)}
    assert values["coldstart.ratio_to_kserve_process"] == 20.0
    assert values["coldstart.ratio_to_knative"] == 60.0


def test_a_start_of_another_kind_is_not_counted_as_this_one() -> None:
    coldstart = benchmark("coldstart")
    coldstart._check("pool", {"predictor": {"how": "fork"}})
    coldstart._check("no_pool", {"predictor": {"how": "exec"}})
    with pytest.raises(AssertionError, match="predictor was started by exec"):
        coldstart._check("together", {"transformer": {"how": "fork"}, "predictor": {"how": "exec"}})


def test_nothing_counts_as_held_where_a_request_was_lost() -> None:
    activator = benchmark("activator")
    steps = [activator.Step(100, 8_000_000, 100_000), activator.Step(200, 15_000_000, 200_000)]
    rest = activator.Run("http", steps, 400, {}, 2.0, "503")
    grpc = activator.Run("grpc", steps, 199, {"lost": 1}, 1.0, "503")
    values = {result.metric: result.value for result in activator.results([rest, grpc])}
    assert values["activator.held.max"] == 0
    assert values["activator.memory_per_held.bytes"] == 76_000
    assert values["activator.release.rps"] == 200
    whole = [rest, activator.Run("grpc", steps[:1], 100, {}, 1.0, "")]
    values = {result.metric: result.value for result in activator.results(whole)}
    assert values["activator.held.max"] == 100
    assert values["activator.memory_per_held.grpc.bytes"] == 81_000
    (table,) = [activator._table([rest, grpc])]
    assert any("1 × lost" in note for note in table.notes)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP", (200, b"ab", b"HTTP")),
        (b"HTTP/1.1 503 No\r\nx: y\r\n\r\n", (503, b"", b"")),
    ],
)
def test_answers_are_taken_whole(data: bytes, expected: object) -> None:
    assert benchmark("held_clients").parse(data) == expected


@pytest.mark.parametrize(
    ("second", "right", "wrong"),
    [
        (b"%s:1", 4, 0),
        # The answer to the request before it, again.
        (b"%s:0", 2, 2),
    ],
)
async def test_a_client_notices_answers_out_of_order_and_lost_ones(
    second: bytes, right: int, wrong: int
) -> None:
    held_clients = benchmark("held_clients")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for body in (b"%s:0", second):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            number = (await reader.readexactly(length)).partition(b":")[0]
            text = body % number
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
        # The third request is never answered.
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    clients = held_clients.RestClients(server.sockets[0].getsockname()[1], "/x")
    await clients.add(2)
    assert clients.send_more() == 2
    outcome = clients.outcome
    await held_clients.until(lambda: outcome.right + sum(outcome.wrong.values()) == 4, "four answers")
    assert (outcome.right, sum(outcome.wrong.values())) == (right, wrong)
    clients.send_more()
    await held_clients.until(lambda: sum(outcome.wrong.values()) == wrong + 2, "two lost ones")
    assert outcome.wrong["connection lost: None"] == 2
    await clients.close()
    server.close()


@pytest.mark.parametrize(("form", "clients"), [("http", "RestClients"), ("grpc", "GrpcClients")])
async def test_the_gate_opens_when_its_file_is_there(tmp_path: pathlib.Path, form: str, clients: str) -> None:
    held_clients = benchmark("held_clients")
    gate = tmp_path / "open"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(_FOLDER / "peers" / "gate.py"), form, str(gate)]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PORT": str(port)})
    try:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        gate.touch()

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        await held_clients.until(listens, "the gate to open")
        asking = getattr(held_clients, clients)(port, "gate")
        await asking.add(20)
        expected = 20 + asking.send_more()
        await held_clients.until(lambda: asking.outcome.right == expected, f"{asking.outcome.wrong}")
        assert not asking.outcome.wrong
        await asking.close()
    finally:
        process.terminate()
        await process.wait()
