"""Ages as the Kubernetes tables print them, and the timestamps that they are counted from.

Two or three significant figures, coarser with age: `45s`, `5m12s`, `47m`, `7h30m`, `40h`, `5d4h`, `90d`, `3y12d`.
Pure: the caller passes `now`.
"""

from __future__ import annotations

from datetime import datetime

from glowplug.spec.times import parse_time

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_YEAR = 365 * _DAY

# The clock of the writer may be ahead of the reader's by this much before an age counts as nonsense.
_TOLERATED_SKEW_S = 2


def human_duration(seconds: float) -> str:
    """An age in seconds as text; `<invalid>` for two seconds or more in the future.

    The steps are those of Kubernetes' `duration.HumanDuration`.
    """
    whole = int(seconds)
    if whole <= -_TOLERATED_SKEW_S:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _two_units(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two_units(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two_units(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    if whole < 8 * _YEAR:
        return _two_units(whole, _YEAR, "y", _DAY, "d")
    return f"{whole // _YEAR}y"


def _two_units(seconds: int, large_s: int, large: str, small_s: int, small: str) -> str:
    """`5m12s`, or `5m` when the rest is less than one of the small unit."""
    rest = seconds % large_s // small_s
    return f"{seconds // large_s}{large}{rest}{small}" if rest else f"{seconds // large_s}{large}"


def age(timestamp: object, now: datetime) -> str:
    """The time since a Kubernetes timestamp, or `<unknown>` where there is none."""
    moment = parse_time(timestamp)
    return "<unknown>" if moment is None else human_duration((now - moment).total_seconds())
