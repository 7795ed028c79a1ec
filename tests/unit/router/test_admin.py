from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.router import RevisionStats, admin
from glowplug.router.admin import parse_queues, parse_revision_stats, parse_taken


def test_versions_refusals_and_warming_are_read() -> None:
    taken = parse_taken(
        {
            "cluster_manager.cds.version_text": '"abc"',
            "cluster.default/r/grpc.update_rejected": "2",
            "cluster_manager.warming_clusters": "1",
            "listener_manager.total_listeners_warming": "2",
        }
    )
    assert taken.versions == {"cluster_manager.cds": "abc"}
    assert taken.refusals == {"cluster.default/r/grpc": 2}
    assert taken.warming == 3


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_both_clusters_of_a_revision_add_up(http: int, grpc: int) -> None:
    stats = {f"cluster.ns/r{suffix}.upstream_rq_{name}": str(value)
             for suffix, value in (("", http), ("/grpc", grpc))
             for name in ("total", "5xx", "active", "pending_active")}  # fmt: skip
    stats |= {"requests.busy_us.cluster.ns/r": str(http), "requests.busy_us.cluster.ns/r/grpc": str(grpc)}
    total = http + grpc
    assert parse_revision_stats(stats) == {"ns/r": RevisionStats(total, total, total, total, busy_us=total)}


def test_queues_are_read_by_host() -> None:
    text = (
        "ns/r::observability_name::ns/r\n"
        "ns/r::127.0.0.1:40001::rq_active::1\n"
        "ns/r::127.0.0.1:40001::rq_pending_active::7\n"
        "ns/r/grpc::127.0.0.1:40002::rq_pending_active::0\n"
    )
    assert parse_queues(text) == {("ns/r", "127.0.0.1:40001"): 7, ("ns/r/grpc", "127.0.0.1:40002"): 0}


@pytest.mark.parametrize("answer", [b"", b"not http", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"])
async def test_a_broken_answer_is_a_connection_error(tmp_path: Path, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "s"))
    try:
        with pytest.raises(ConnectionError):
            await admin.request(tmp_path / "s", "/ready")
    finally:
        server.close()
        await server.wait_closed()
