"""What Alertmanager posts, version 4 of its webhook, as values; every problem of it at once.

Source: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from glowplug.errors import GlowplugError

VERSION = "4"
FIRING, RESOLVED = "firing", "resolved"
_SHOWN = 20


class WebhookProblem(GlowplugError):
    """What came is no webhook of version 4; `status` is HTTP's word for it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Alert:
    """One alert. `document` is what came, as it came; `starts_at` is RFC 3339, `fingerprint` may be empty."""

    is_firing: bool
    labels: Mapping[str, str]
    starts_at: str
    fingerprint: str
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Webhook:
    """`truncated` is how many alerts Alertmanager has left off."""

    alerts: tuple[Alert, ...]
    truncated: int


def parse(body: bytes, max_alerts: int) -> Webhook:
    """Raises WebhookProblem, 413 where there are more alerts than `max_alerts`."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WebhookProblem(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise WebhookProblem("the body is no object, expected Alertmanager's webhook, version 4")
    if document.get("version") != VERSION:
        found = orjson.dumps(document.get("version")).decode()[:50]
        raise WebhookProblem(f'version = {found}, expected "{VERSION}"')
    alerts = document.get("alerts")
    if not isinstance(alerts, list):
        raise WebhookProblem("alerts is missing or no list, expected a list of alerts")
    if len(alerts) > max_alerts:
        raise WebhookProblem(
            f"{len(alerts)} alerts, expected at most {max_alerts}: set max_alerts in Alertmanager's webhook_config",
            413,
        )
    problems = [
        problem for index, alert in enumerate(alerts) for problem in _problems(alert, f"alerts[{index}]")
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise WebhookProblem("; ".join(problems[:_SHOWN]) + more)
    truncated = document.get("truncatedAlerts")
    return Webhook(
        tuple(_alert(alert) for alert in alerts),
        truncated if isinstance(truncated, int) and truncated > 0 else 0,
    )


def _alert(document: Mapping[str, Any]) -> Alert:
    return Alert(
        document["status"] == FIRING,
        document["labels"],
        document["startsAt"],
        document.get("fingerprint") or "",
        document,
    )


def _problems(alert: Any, where: str) -> Iterator[str]:
    if not isinstance(alert, dict):
        yield f"{where} is no object"
        return
    if alert.get("status") not in (FIRING, RESOLVED):
        yield f"{where}.status = {_shown(alert.get('status'))}, expected {FIRING} or {RESOLVED}"
    labels = alert.get("labels")
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        yield f"{where}.labels = {_shown(labels)}, expected an object of strings"
    if not isinstance(alert.get("startsAt"), str) or not alert["startsAt"]:
        yield f"{where}.startsAt = {_shown(alert.get('startsAt'))}, expected a time"
    if not isinstance(alert.get("fingerprint", ""), str):
        yield f"{where}.fingerprint = {_shown(alert['fingerprint'])}, expected a string"


def _shown(value: object) -> str:
    return orjson.dumps(value).decode()[:50]
