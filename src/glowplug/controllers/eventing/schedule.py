"""When each PingSource fires next. What was missed while nobody looked is not made up for, as in Knative."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.spec.pings import PingSpec

# A computer that sleeps stops the timer and not the time of day: it is looked at again this often.
_LOOK_S = 60.0


@dataclass(frozen=True)
class Tick:
    """Whether to fire now, and when to look again; None: never."""

    is_due: bool
    look_at: float | None


@dataclass(frozen=True)
class _Planned:
    timing: tuple[str, str]
    due: float | None


class Schedules:
    """The next time of every PingSource, by namespace and name."""

    def __init__(self) -> None:
        self._planned: dict[tuple[str, str], _Planned] = {}

    def tick(self, spec: PingSpec, now: float) -> Tick:
        """What to do at `now`; a schedule that is new or has changed begins now."""
        key, timing = (spec.namespace, spec.name), (spec.cron, str(spec.zone))
        planned = self._planned.get(key)
        is_known = planned is not None and planned.timing == timing
        due = planned.due if planned is not None and is_known else spec.after(now)
        is_due = due is not None and now >= due
        if is_due:
            due = spec.after(now)
        self._planned[key] = _Planned(timing, due)
        return Tick(is_due, None if due is None else min(due, now + _LOOK_S))

    def drop(self, namespace: str, name: str) -> None:
        """That one is gone, or fires no more."""
        self._planned.pop((namespace, name), None)
