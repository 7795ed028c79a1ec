"""Brings snapshots to Envoy, one at a time, and tells what became of them."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import anyio

from glowplug.router import admin, xds
from glowplug.router.config import RouterConfig
from glowplug.router.endpoints import EndpointSource
from glowplug.router.files import replace_file
from glowplug.router.layout import CLUSTERS_FILE, LISTENERS_FILE, LOCAL_FILE, Layout
from glowplug.router.xds import Document, Snapshot

_log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_POLL_S = 0.002
_LONGEST_POLL_S = 0.05
_SHOWN_NAMES = 4


class Outcome(enum.Enum):
    """What became of a snapshot."""

    TAKEN = "taken"
    REFUSED = "refused"  # Envoy will not take it, now or later; it runs the one before
    LATE = "late"  # Envoy did not say in time


class Feed:
    """`applied` is the snapshot that Envoy runs, `sent` the one that it was given last."""

    def __init__(
        self, layout: Layout, config: RouterConfig, source: EndpointSource, reason: Callable[[], str]
    ) -> None:
        """`reason` gives Envoy's last words about an update that it refused."""
        self._layout = layout
        self._config = config
        self._source = source
        self._reason = reason
        self._refused: list[str] = []
        self._prepared: dict[str, str] = {}
        self._refusals: dict[str, int] = {}
        self._is_torn = True
        self.applied = Snapshot()
        self.sent = Snapshot()

    def prepare(self, state: Snapshot) -> None:
        """Lays everything out for an Envoy that has not started yet. Raises OSError."""
        self._prepared = self._send(state)
        self.applied = state

    async def confirm(self) -> Outcome:
        """Waits until the Envoy that has started runs what was laid out for it."""
        return await self._wait(self._prepared)

    def forget_refusals(self) -> None:
        """Envoy starts anew, and counts from 0."""
        self._refusals.clear()

    async def push(self, state: Snapshot) -> Outcome:
        """Gives Envoy what is different in `state` and waits until it runs. Raises OSError if it cannot be written.

        What is refused is taken back, so that an Envoy that starts anew reads what the last one ran.
        """
        outcome = await self._wait(self._send(state))
        if outcome is Outcome.TAKEN:
            for cluster in self.applied.clusters.keys() - state.clusters.keys():
                self._source.drop(cluster)
            self.applied = state
        elif outcome is Outcome.REFUSED:
            refused = _shortly(self._refused)
            await self._wait(self._send(self.applied), is_taken_back=True)
            # Envoy has logged its reason meanwhile.
            _log.error("Envoy refused an update of %s, what it ran before stays: %s", refused, self._reason())
        else:
            self.sent = self.applied
        return outcome

    def _send(self, state: Snapshot) -> dict[str, str]:
        """Writes what differs from `sent`; which version to wait for, by statistic."""
        # After a failure in the middle nobody knows what was written.
        old, everything = Snapshot() if self._is_torn else self.sent, self._is_torn
        self.sent, self._is_torn = state, True
        awaited: list[Document] = []
        for cluster, endpoints in _changed(old.endpoints, state.endpoints).items():
            awaited.append(document := xds.endpoint_document(cluster, endpoints))
            self._source.put(cluster, document)
        if everything or old.clusters != state.clusters:
            awaited.append(self._write(CLUSTERS_FILE, xds.cluster_document(state.clusters)))
        for file, resource in _changed(old.routes, state.routes).items():
            document = self._write(file, xds.route_document(file, resource))
            # Nobody reads the routes of local listeners while there is no such listener.
            if file != LOCAL_FILE or len(state.listeners) > 1:
                awaited.append(document)
        if everything or old.listeners != state.listeners:
            awaited.append(self._write(LISTENERS_FILE, xds.listener_document(state.listeners)))
        self._is_torn = False
        return {document.statistic: document.version for document in awaited}

    def _write(self, file: str, document: Document) -> Document:
        replace_file(self._layout.xds / file, document.content)
        return document

    async def _wait(self, awaited: Mapping[str, str], *, is_taken_back: bool = False) -> Outcome:
        interval_s = _FIRST_POLL_S
        with anyio.move_on_after(self._config.settle_timeout_s):
            while True:
                outcome = await self._look(awaited, is_taken_back)
                if outcome is not None:
                    return outcome
                await anyio.sleep(interval_s)
                interval_s = min(2 * interval_s, _LONGEST_POLL_S)
        _log.warning(
            "Envoy has not taken an update of %s within %g s",
            _shortly(awaited),
            self._config.settle_timeout_s,
        )
        return Outcome.LATE

    async def _look(self, awaited: Mapping[str, str], is_taken_back: bool) -> Outcome | None:
        try:
            taken = await admin.taken(self._layout.admin, awaited)
            refused = [name for name, count in taken.refusals.items() if count > self._refusals.get(name, 0)]
            self._refusals.update(taken.refusals)
            # Endpoints that it refused it asks for again at once, and refuses them, until they are taken back.
            if refused and not is_taken_back:
                self._refused = refused
                return Outcome.REFUSED
            is_taken = all(taken.versions.get(name) == version for name, version in awaited.items())
            if is_taken and not taken.warming:
                await self._reach_workers()
                return Outcome.TAKEN
        except (OSError, TimeoutError):
            # Envoy starts anew; it will read what was sent.
            pass
        return None

    async def _reach_workers(self) -> None:
        """The main thread has posted the update to its workers; an answer from one comes after it has seen that."""
        await admin.request(self._layout.probe, "/")
        if self._config.concurrency > 1:
            # Only one of them answered.
            await anyio.sleep(_LONGEST_POLL_S)


def _shortly(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN_NAMES])
    return f"{shown} and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else shown


def _changed(old: Mapping[str, T], new: Mapping[str, T]) -> dict[str, T]:
    return {name: resource for name, resource in new.items() if old.get(name) != resource}
