"""What the payload logger's process tells the machine, a line of JSON at a time; and as Prometheus' text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from glowplug.payloads.tally import Component, Notice, Tally
from glowplug.payloads.waiting import Lines

Object = dict[str, Any]

_EVENTS = "glowplug_payload_events_total"
UNCOPIED = "uncopied"
_EVENTS_HELP = f"Payload events, by what came of them; {UNCOPIED}: requests that could not be handed over."
_GAUGES = (
    ("glowplug_payload_events_waiting", "events", "Payload events that wait for their sink."),
    ("glowplug_payload_bytes_waiting", "bytes", "What the waiting payload events take."),
)


def report_line(tally: Tally, lines: Lines, notices: Iterable[Notice]) -> bytes:
    """Everything as it is now, and the notices since the last line."""
    components = [
        {
            **asdict(key),
            "outcomes": {outcome.value: n for outcome, n in counts.outcomes.items()},
            "open": counts.open,
        }
        for key, counts in tally.counts.items()
    ]
    report = {
        "components": components,
        "waiting": {"events": len(lines), "bytes": lines.bytes},
        "notices": [asdict(notice) for notice in notices],
    }
    return orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE)


def notices_of(report: Object) -> Iterator[Notice]:
    """The news in it."""
    return (Notice(**notice) for notice in report.get("notices", ()))


def metrics(
    counts: Mapping[Component, Mapping[str, int]], waiting: Mapping[str, int], uncopied: int | None
) -> str:
    """In Prometheus' text format. `waiting` is empty while no process runs; `uncopied` None: not known."""
    lines = [f"# HELP {_EVENTS} {_EVENTS_HELP}", f"# TYPE {_EVENTS} counter"]
    for key, outcomes in counts.items():
        labels = f'namespace="{key.namespace}",inferenceservice="{key.service}",component="{key.component}"'
        for outcome, count in sorted(outcomes.items()):
            lines.append(f'{_EVENTS}{{{labels},outcome="{outcome}"}} {count}')
    if uncopied is not None:
        lines.append(f'{_EVENTS}{{outcome="{UNCOPIED}"}} {uncopied}')
    for name, what, words in _GAUGES if waiting else ():
        lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge", f"{name} {waiting[what]}"]
    return "".join(f"{line}\n" for line in lines)
