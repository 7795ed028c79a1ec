"""What an InferenceService asks of the warm floor: annotations under `glowplug.dev/warm-floor`, read and checked.

Values only. Without `glowplug.dev/warm-floor: "true"` nothing is asked. Where a value is wrong nothing is changed, so a
service keeps the floor that it has.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from glowplug.errors import ConfigError
from glowplug.spec.gonumbers import SECOND_NS, GoValueError, parse_duration

from .schedule import Schedule

T = TypeVar("T")

ENABLED = "glowplug.dev/warm-floor"
MIN = "glowplug.dev/warm-floor-min"
MAX = "glowplug.dev/warm-floor-max"
SCHEDULE = "glowplug.dev/warm-floor-schedule"
TIME_ZONE = "glowplug.dev/warm-floor-time-zone"
SEASON = "glowplug.dev/warm-floor-season"
QUANTILE = "glowplug.dev/warm-floor-quantile"
KEYS = (ENABLED, MIN, MAX, SCHEDULE, TIME_ZONE, SEASON, QUANTILE)

_MAX_REPLICAS = 1000
_SEASON_S = (60.0, 31 * 86400.0)
_QUANTILE = (0.5, 0.999)
_WHOLE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Settings:
    """`minimum` and `maximum` bound the floor, both in replicas. `season_s` is what the demand repeats itself in.

    `quantile` is the part of the demand that the forecast is to cover: the larger, the fewer misses at more cost.
    """

    minimum: int = 0
    maximum: int = 10
    schedule: Schedule = field(default_factory=Schedule)
    season_s: float = 86400.0
    quantile: float = 0.9


def parse(annotations: Mapping[str, str]) -> Settings | None:
    """What the annotations ask for; None where they do not ask. Raises ConfigError with all problems."""
    asked = annotations.get(ENABLED)
    problems: list[str] = []
    if asked not in (None, "true", "false"):
        problems.append(_wrong(ENABLED, str(asked), 'must be "true" or "false"'))
    elif asked != "true":
        return None

    def read(key: str, convert: Callable[[str], T], default: T) -> T:
        if key not in annotations:
            return default
        try:
            return convert(annotations[key])
        except ValueError as error:
            problems.append(_wrong(key, annotations[key], str(error)))
            return default

    default = Settings()
    minimum, maximum = read(MIN, _replicas, default.minimum), read(MAX, _replicas, default.maximum)
    if minimum > maximum:
        problems.append(f"{MIN} = {minimum}, must not be more than {MAX}, which is {maximum}")
    zone = read(TIME_ZONE, _zone, zoneinfo.ZoneInfo("UTC"))
    settings = Settings(
        minimum,
        maximum,
        read(SCHEDULE, lambda text: Schedule.parse(text, zone, _MAX_REPLICAS), default.schedule),
        read(SEASON, _season, default.season_s),
        read(QUANTILE, _quantile, default.quantile),
    )
    problems += [
        f"{key} is no setting of the warm floor; these are: {', '.join(KEYS)}"
        for key in sorted(annotations)
        if key.startswith(f"{ENABLED}-") and key not in KEYS
    ]
    if problems:
        raise ConfigError("; ".join(problems))
    return settings


def _wrong(key: str, found: str, expected: str) -> str:
    shown = found if len(found) <= 80 else f"{found[:80]}…"
    return f'{key} = "{shown}", {expected}'


def _replicas(text: str) -> int:
    if not _WHOLE.fullmatch(text) or int(text) > _MAX_REPLICAS:
        raise ValueError(f"must be a whole number from 0 to {_MAX_REPLICAS}")
    return int(text)


def _zone(text: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(text)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise ValueError("must be a time zone's name, as Europe/Berlin") from error


def _season(text: str) -> float:
    try:
        season_s = parse_duration(text) / SECOND_NS
    except GoValueError:
        season_s = 0.0
    if not _SEASON_S[0] <= season_s <= _SEASON_S[1]:
        raise ValueError("must be a duration from 1m to 744h, as 24h")
    return season_s


def _quantile(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not _QUANTILE[0] <= found <= _QUANTILE[1]:
        raise ValueError(f"must be a number from {_QUANTILE[0]} to {_QUANTILE[1]}")
    return found
