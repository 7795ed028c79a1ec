"""What the payload logger's process tells the machine, a line of JSON at a time; and as Prometheus' text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from glowplug.payloads.tally import Notice, Tally
from glowplug.payloads.waiting import Lines

Object = dict[str, Any]

_EVENTS = "glowplug_payload_events_total"
_GAUGES = (
    ("glowplug_payload_events_waiting", "events", "Payload events that wait for their sink."),
    ("glowplug_payload_bytes_waiting", "bytes", "What the waiting payload events take."),
)


def report_line(tally: Tally, lines: Lines, notices: Iterable[Notice]) -> bytes:
    """Everything as it is now, and the notices since the last line."""
    components = [
        {**asdict(key), "outcomes": {outcome.value: n for outcome, n in counts.outcomes.items()}}
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


def metrics(report: Mapping[str, Any]) -> str:
    """In Prometheus' text format; empty before the first report."""
    if not report:
        return ""
    lines = [f"# HELP {_EVENTS} Payload events, by what came of them.", f"# TYPE {_EVENTS} counter"]
    for each in report["components"]:
        labels = f'namespace="{each["namespace"]}",inferenceservice="{each["service"]}",component="{each["component"]}"'
        for outcome, count in sorted(each["outcomes"].items()):
            lines.append(f'{_EVENTS}{{{labels},outcome="{outcome}"}} {count}')
    for name, key, words in _GAUGES:
        lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge", f"{name} {report['waiting'][key]}"]
    return "".join(f"{line}\n" for line in lines)
