"""Runs the payload logger's process while a revision logs, and knows what came of its events.

Envoy copies requests to that process by itself, see `router.copies`, with all that it needs to know of the logger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from glowplug.copies.child import Child, ChildConfig
from glowplug.payloads.config import PayloadsConfig
from glowplug.payloads.ledger import Ledger
from glowplug.payloads.report import Object, notices_of
from glowplug.payloads.tally import Notice
from glowplug.spec.routes import RouteTable


class Payloads:
    """`run` it in a task; `module` is the process. `notify` is told what somebody should look at."""

    def __init__(
        self,
        config: PayloadsConfig,
        module: str,
        *,
        notify: Callable[[Notice], None] = lambda notice: None,
        on_pid: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self._notify = notify
        self._ledger = Ledger(config.kept_components)
        life = ChildConfig(stop_timeout_s=config.stop_timeout_s)
        self._child = Child(
            "the payload logger", module, life, on_report=self._reported, on_pid=on_pid, on_end=self._ended
        )

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return self._child.pid

    def publish(self, table: RouteTable) -> None:
        """The routes as they are now."""
        self._child.want(any(backend.logger is not None for backend in table.backends))

    def metrics(self, uncopied: int | None) -> str:
        """What came of the events, in Prometheus' text format; `uncopied` requests of which there are none."""
        return self._ledger.metrics(uncopied)

    async def run(self, copies: Path, arguments: Sequence[str]) -> None:
        """Until cancelled. `copies` is where Envoy sends copies, the process gets the arguments."""
        await self._child.run(copies, arguments)

    def _ended(self) -> None:
        for notice in self._ledger.ended():
            self._notify(notice)

    def _reported(self, report: Object) -> None:
        self._ledger.report(report)
        for notice in notices_of(report):
            self._notify(notice)
