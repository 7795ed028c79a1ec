"""Events of a file through the detector, as fast as it goes: what it would have said, window by window.

A line is a structured CloudEvent, or what `glowplug events tail` prints around one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from glowplug.drift.detector import Detector, Judged, moment
from glowplug.drift.store import Store
from glowplug.errors import BadRequest
from glowplug.wire.events import CloudEvent, EventProblem, decode

_STRUCTURED = {"content-type": "application/cloudevents+json"}
_BATCH = 500
# Events of a file are as late as they say.
_RECEIVED_AT = 2.0**40
_MOST_NAMES = 6


def events_of(lines: Iterable[bytes], file: str) -> Iterator[CloudEvent]:
    """The events. Raises BadRequest with the line."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document = orjson.loads(line)
            if type(document) is dict and type(document.get("event")) is dict:
                line = orjson.dumps(document["event"])
            yield from decode(_STRUCTURED, line)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"{file}:{number}: not JSON: {error}", hint="one event a line") from None
        except EventProblem as error:
            raise BadRequest(f"{file}:{number}: {error.message}", hint="one event a line") from None


def replay(detector: Detector, store: Store, events: Iterable[CloudEvent]) -> None:
    """Raises EventProblem for labels that are none."""
    batch: list[CloudEvent] = []
    for event in events:
        batch.append(event)
        if len(batch) == _BATCH:
            _take(detector, store, batch)
            batch = []
    _take(detector, store, batch)


def _take(detector: Detector, store: Store, batch: Iterable[CloudEvent]) -> None:
    with store.transaction():
        for event in batch:
            detector.take(event, _RECEIVED_AT)
        detector.save()


def explained(judged: Judged) -> list[str]:
    """A window in words: a line with the decision, and one for each thing that was found."""
    window, verdict, decision = judged.window, judged.verdict, judged.decision
    sign = "DETECTED" if decision.opened else "over" if decision.closed else _state(verdict.is_drifted)
    span = f"{moment(window.first)[:16]} to {moment(window.last)[:16]}"
    lines = [f"{span}  {window.size:>7} rows  {sign:<8}  {decision.reason}"]
    lines += [f"    {reason}" for reason in verdict.reasons]
    if verdict.features:
        names = dict.fromkeys(found.name for found in verdict.features)
        shown = ", ".join(list(names)[:_MOST_NAMES])
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        lines.append(f"    drifted, {100 * verdict.share:.0f} %: {shown}{more}")
    if verdict.error is not None and not verdict.error.is_drifted:
        error = verdict.error
        lines.append(
            f"    error {error.mae:.4g}, {error.ratio:.2f} times the reference's, p = {error.p_value:.2g}"
        )
    return lines


def _state(is_drifted: bool | None) -> str:
    return "unknown" if is_drifted is None else "drifted" if is_drifted else "quiet"
