"""What the broker counts, and its page of metrics in Prometheus' text form. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from glowplug.broker.records import BrokerKey, TriggerKey

_HELP = {
    "glowplug_broker_requests_total": (
        "counter",
        "Requests to a Broker's ingress, by the status of the answer.",
    ),
    "glowplug_broker_events_accepted_total": ("counter", "Events written to the log, replies among them."),
    "glowplug_broker_events_delivered_total": ("counter", "Events that a Trigger's subscriber took."),
    "glowplug_broker_events_retried_total": ("counter", "Deliveries that are to be tried again."),
    "glowplug_broker_events_dead_lettered_total": (
        "counter",
        "Events that a Trigger's subscriber is not to get.",
    ),
    "glowplug_broker_events_undeliverable_total": (
        "counter",
        "Dead letters that no sink took; kept in the log.",
    ),
    "glowplug_broker_replies_total": ("counter", "Events with which a Trigger's subscriber answered."),
    "glowplug_broker_backlog_events": ("gauge", "Events that a Trigger has still to look at or to deliver."),
    "glowplug_broker_oldest_undelivered_seconds": (
        "gauge",
        "Age of the oldest event that a Trigger has to deliver.",
    ),
    "glowplug_broker_in_flight_events": ("gauge", "Events that are being delivered."),
}


@dataclass(slots=True)
class TriggerCounts:
    """Of one trigger since the start."""

    delivered: int = 0
    retried: int = 0
    dead_lettered: int = 0
    undeliverable: int = 0
    replies: int = 0


@dataclass(slots=True)
class BrokerCounts:
    """Of one Broker since the start."""

    accepted: int = 0
    answers: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class TriggerGauges:
    """Of one trigger now."""

    backlog: int
    oldest_s: float
    in_flight: int


def page(
    brokers: Iterable[tuple[BrokerKey, BrokerCounts]],
    triggers: Iterable[tuple[TriggerKey, TriggerCounts, TriggerGauges]],
) -> str:
    """The metrics' text."""
    lines: dict[str, list[str]] = {name: [] for name in _HELP}

    def add(name: str, labels: str, value: float) -> None:
        lines[name].append(f"{name}{{{labels}}} {value:.15g}")

    for (namespace, broker), counts in brokers:
        labels = f'namespace="{namespace}",broker="{broker}"'
        add("glowplug_broker_events_accepted_total", labels, counts.accepted)
        for status, count in sorted(counts.answers.items()):
            add("glowplug_broker_requests_total", f'{labels},code="{status}"', count)
    for (namespace, broker, name), own, gauges in triggers:
        labels = f'namespace="{namespace}",broker="{broker}",trigger="{name}"'
        add("glowplug_broker_events_delivered_total", labels, own.delivered)
        add("glowplug_broker_events_retried_total", labels, own.retried)
        add("glowplug_broker_events_dead_lettered_total", labels, own.dead_lettered)
        add("glowplug_broker_events_undeliverable_total", labels, own.undeliverable)
        add("glowplug_broker_replies_total", labels, own.replies)
        add("glowplug_broker_backlog_events", labels, gauges.backlog)
        add("glowplug_broker_oldest_undelivered_seconds", labels, gauges.oldest_s)
        add("glowplug_broker_in_flight_events", labels, gauges.in_flight)
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n" + "\n".join(lines[name]) + "\n"
        for name, (kind, text) in _HELP.items()
        if lines[name]
    )
