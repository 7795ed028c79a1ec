"""Envoy's admin interface and the worker probe, both HTTP on unix sockets; and the meaning of their answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import anyio
import httptools

from glowplug.router.clusters import revision_of

_REQUEST_TIMEOUT_S = 5.0
_CHUNK_BYTES = 256 * 1024
# Above this many, all versions are read at once: a regex of that many names would cost more than it saves.
_MAX_NAMES = 32
_BUSY = "requests.busy_us.cluster."
_COUNTERS = (
    r"cluster\.[^/]+/.*\.(upstream_rq_(total|5xx|active|pending_active))"
    r"|requests\.busy_us\.cluster\.[^/]+/.*"
)


@dataclass(frozen=True)
class RevisionStats:
    """A revision's requests since Envoy started, those in its pods, and those that wait for a place in one.

    `busy_us` is the time that requests which are over were in its pods, in microseconds, added up.
    """

    requests: int = 0
    errors_5xx: int = 0
    active: int = 0
    pending: int = 0
    busy_us: int = 0


@dataclass(frozen=True)
class Taken:
    """What Envoy has taken: `versions` and refusals by prefix of statistic, and what it has not yet put to work."""

    versions: Mapping[str, str]
    refusals: Mapping[str, int]
    warming: int


async def request(socket: Path, target: str, method: str = "GET") -> tuple[int, str]:
    """One HTTP request; the status and the body. Raises OSError or TimeoutError if nobody answers."""
    with anyio.fail_after(_REQUEST_TIMEOUT_S):
        reader, writer = await asyncio.open_unix_connection(str(socket))
        try:
            head = (
                f"{method} {target} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            writer.write(head.encode())
            # Not until the end of the connection: Envoy may take its time to close it.
            answer = _Answer()
            while not answer.is_complete:
                answer.feed(await reader.read(_CHUNK_BYTES))
        finally:
            writer.close()
    return answer.parser.get_status_code(), answer.body.decode()


async def taken(socket: Path, prefixes: Iterable[str]) -> Taken:
    """Which versions Envoy has taken for the documents with these statistics."""
    names = sorted(prefixes)
    of = "|".join(re.escape(name) for name in names) if len(names) <= _MAX_NAMES else ".*"
    pattern = (
        rf"^(({of})\.(version_text|update_rejected)"
        r"|cluster_manager\.warming_clusters|listener_manager\.total_listeners_warming)$"
    )
    return parse_taken(await _stats(socket, pattern))


async def revision_stats(socket: Path) -> dict[str, RevisionStats]:
    """The counters of every revision that has a cluster."""
    return parse_revision_stats(await _stats(socket, f"^{_COUNTERS}$"))


async def count(socket: Path, pattern: str) -> int:
    """The sum of the statistics whose whole names match."""
    return sum(int(value) for value in (await _stats(socket, f"^({pattern})$")).values())


async def queues(socket: Path, clusters: Iterable[str]) -> dict[tuple[str, str], int]:
    """How many requests wait for each host of these clusters, by cluster and `address:port`."""
    names = "|".join(re.escape(name) for name in sorted(clusters))
    status, body = await request(socket, f"/clusters?filter={quote(f'^({names})$', safe='')}")
    if status != 200:
        raise ConnectionError(f"{socket}: /clusters answered {status}: {body[:200]}")
    return parse_queues(body)


def parse_queues(text: str) -> dict[tuple[str, str], int]:
    """Reads lines `cluster::address:port::rq_pending_active::N`."""
    lines = (line.split("::") for line in text.splitlines())
    return {(line[0], line[1]): int(line[3]) for line in lines if line[2:3] == ["rq_pending_active"]}


def parse_taken(stats: Mapping[str, str]) -> Taken:
    """Reads the statistics that `taken` asks for."""
    versions: dict[str, str] = {}
    refusals: dict[str, int] = {}
    warming = 0
    for statistic, value in stats.items():
        prefix, _, name = statistic.rpartition(".")
        if name == "version_text":
            versions[prefix] = value.strip('"')
        elif name == "update_rejected":
            refusals[prefix] = int(value)
        else:
            warming += int(value)
    return Taken(versions, refusals, warming)


def parse_revision_stats(stats: Mapping[str, str]) -> dict[str, RevisionStats]:
    """Adds up the two clusters of each revision."""
    counts: dict[str, dict[str, int]] = {}
    for statistic, value in stats.items():
        if statistic.startswith(_BUSY):
            cluster, name = statistic[len(_BUSY) :], "busy_us"
        else:
            cluster, _, name = statistic.removeprefix("cluster.").rpartition(".")
        of_revision = counts.setdefault(revision_of(cluster), {})
        of_revision[name] = of_revision.get(name, 0) + int(value)
    return {
        revision: RevisionStats(
            requests=count.get("upstream_rq_total", 0),
            errors_5xx=count.get("upstream_rq_5xx", 0),
            active=count.get("upstream_rq_active", 0),
            pending=count.get("upstream_rq_pending_active", 0),
            busy_us=count.get("busy_us", 0),
        )
        for revision, count in sorted(counts.items())
    }


async def _stats(socket: Path, pattern: str) -> dict[str, str]:
    status, body = await request(socket, f"/stats?filter={quote(pattern, safe='')}")
    if status != 200:
        raise ConnectionError(f"{socket}: /stats answered {status}: {body[:200]}")
    pairs = (line.rpartition(": ") for line in body.splitlines())
    return {name: value for name, separator, value in pairs if separator}


class _Answer:
    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body = bytearray()
        self.is_complete = False

    def feed(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("Envoy closed the connection before it answered")
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ConnectionError(f"Envoy answered {data[:80]!r}") from error

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True
