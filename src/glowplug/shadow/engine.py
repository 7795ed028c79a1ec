"""Runs the shadow's process while a route asks for one, and knows what it found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson

from glowplug.copies.child import Child, ChildConfig
from glowplug.shadow.config import ShadowConfig
from glowplug.shadow.report import Object, metrics, notices_of
from glowplug.shadow.tally import Notice
from glowplug.spec.routes import RouteTable


class Shadows:
    """`run` it in a task. `notify` is told what somebody should look at, `on_pid` of each process that starts."""

    def __init__(
        self,
        config: ShadowConfig,
        *,
        notify: Callable[[Notice], None] = lambda notice: None,
        on_pid: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self._notify = notify
        self._report: Object = {}
        life = ChildConfig(config.restart_backoff_s, config.max_restart_backoff_s, config.stop_timeout_s)
        self._child = Child(
            "the shadow", "glowplug.shadow.process", life, on_report=self._reported, on_pid=on_pid
        )

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return self._child.pid

    def publish(self, table: RouteTable) -> None:
        """The routes as they are now."""
        self._child.want(any(entry.shadow is not None for entry in table.routes))

    def metrics(self) -> str:
        """What came of the copies, in Prometheus' text format."""
        return metrics(self._report)

    def page(self, path: tuple[str, ...]) -> str | None:
        """Counters and the last differences as JSON: of all, of a namespace, or of a service in it."""
        if len(path) > 2:
            return None
        wanted = "/".join(path)

        def concerns(item: Object) -> bool:
            service = str(item["service"])
            return not wanted or service == wanted or service.startswith(f"{wanted}/")

        report = {
            part: [item for item in self._report.get(part, ()) if concerns(item)]
            for part in ("services", "differences")
        }
        return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()

    async def run(self, copies: Path, shadow: Path) -> None:
        """Until cancelled. `copies` is where Envoy sends copies, `shadow` its listener for the requests of shadows."""
        await self._child.run(copies, [str(shadow)])

    def _reported(self, report: Object) -> None:
        self._report = report
        for notice in notices_of(report):
            self._notify(notice)
