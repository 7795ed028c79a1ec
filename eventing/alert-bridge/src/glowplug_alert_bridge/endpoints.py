"""The bridge's HTTP side.

    POST /alerts    Alertmanager's webhook: 200 once the sink has taken every alert that fires
    GET  /metrics, GET /healthz

Alertmanager tries again after a 5xx and never after a 4xx, so a sink that is away is 503, and what would be refused
again is 400. Alerts that went through before are sent once more then, with the same ids.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import orjson

from glowplug.serving.http import HttpRequest, HttpResponse
from glowplug.wire.events import CloudEvent

from . import webhook
from .events import event_of
from .sender import Outcome
from .webhook import WebhookProblem

log = logging.getLogger("glowplug.alert_bridge")

PATH = "/alerts"
_TEXT = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_COUNTED = ("taken", "refused", "failed", "resolved", "truncated")


class Sends(Protocol):
    """Who brings events to the sink."""

    async def send(self, events: Sequence[CloudEvent]) -> list[tuple[Outcome, str]]: ...


class Endpoints:
    """`max_alerts` is how many one webhook may have."""

    def __init__(self, sender: Sends, max_alerts: int) -> None:
        self._sender, self._max_alerts = sender, max_alerts
        self._alerts: Counter[str] = Counter()
        self._malformed = 0

    def begin(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> None:
        """Every request is for `answer`."""

    async def answer(self, request: HttpRequest) -> HttpResponse:
        if request.method == "POST" and request.path == PATH:
            return await self._take(request.body)
        if request.method in ("GET", "HEAD") and request.path == "/healthz":
            return HttpResponse(200, b"ok", dict(_TEXT))
        if request.method in ("GET", "HEAD") and request.path == "/metrics":
            return HttpResponse(200, self._metrics().encode(), dict(_TEXT))
        return _said(404, f"{request.method} {request.path[:200]} is not here, expected POST {PATH}")

    async def _take(self, body: bytes) -> HttpResponse:
        try:
            asked = webhook.parse(body, self._max_alerts)
        except WebhookProblem as error:
            self._malformed += 1
            log.info("refused: %s", error.message)
            return _said(error.status, error.message)
        firing = [event_of(alert) for alert in asked.alerts if alert.is_firing]
        outcomes = await self._sender.send(firing)
        self._count(asked, outcomes)
        return self._said_of(outcomes)

    def _count(self, asked: webhook.Webhook, outcomes: list[tuple[Outcome, str]]) -> None:
        self._alerts.update(outcome.value for outcome, _ in outcomes)
        self._alerts["resolved"] += sum(not alert.is_firing for alert in asked.alerts)
        self._alerts["truncated"] += asked.truncated
        if asked.truncated:
            log.warning(
                "Alertmanager left off %d alerts: raise max_alerts in its webhook_config", asked.truncated
            )

    def _said_of(self, outcomes: list[tuple[Outcome, str]]) -> HttpResponse:
        for outcome, status in ((Outcome.FAILED, 503), (Outcome.REFUSED, 400)):
            reasons = [why for found, why in outcomes if found is outcome]
            if reasons:
                message = (
                    f"the sink has {outcome.value} {len(reasons)} of {len(outcomes)} events: {reasons[0]}"
                )
                log.warning("%s", message)
                return _said(status, message)
        return HttpResponse(200, b"")

    def _metrics(self) -> str:
        lines = ["# TYPE glowplug_alerts_total counter"]
        lines += [f'glowplug_alerts_total{{outcome="{name}"}} {self._alerts[name]}' for name in _COUNTED]
        lines += ["# TYPE glowplug_alert_webhooks_malformed_total counter"]
        lines += [f"glowplug_alert_webhooks_malformed_total {self._malformed}"]
        return "\n".join(lines) + "\n"


def _said(status: int, message: str) -> HttpResponse:
    return HttpResponse(status, orjson.dumps({"error": message}), {"content-type": "application/json"})
