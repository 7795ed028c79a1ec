"""How the dead-letter sink is set: flag > environment > default, read once at the edge."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glowplug.errors import ConfigError

_MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """`folder` holds the letters; past `max_letters`, or `max_bytes` of events, the oldest go."""

    folder: Path
    port: int = 8080
    host: str = "0.0.0.0"
    max_letters: int = 100_000
    max_bytes: int = 200 * _MIB
    max_event_bytes: int = 2 * _MIB


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """From a command line. Raises ConfigError; a flag that is none ends the process with 2."""
    parser = argparse.ArgumentParser(prog="python -m glowplug_dead_letters", description=__doc__)
    parser.add_argument("--folder", type=Path, default=environment.get("DEAD_LETTERS_DIR", "/data"))
    parser.add_argument("--http_port", type=int, default=environment.get("PORT", Settings.port))
    parser.add_argument("--host", default=environment.get("HOST", Settings.host))
    parser.add_argument("--max_letters", type=int, default=Settings.max_letters)
    parser.add_argument("--max_mib", type=int, default=Settings.max_bytes // _MIB, help="of events kept")
    parser.add_argument("--max_event_mib", type=int, default=Settings.max_event_bytes // _MIB)
    given = parser.parse_args(argv)
    for name in ("max_letters", "max_mib", "max_event_mib"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name}={getattr(given, name)}, must be 1 or more")
    if given.max_event_mib > given.max_mib:
        raise ConfigError(
            f"--max_event_mib={given.max_event_mib} is more than --max_mib={given.max_mib}, expected at most it"
        )
    return Settings(
        Path(given.folder),
        given.http_port,
        given.host,
        given.max_letters,
        given.max_mib * _MIB,
        given.max_event_mib * _MIB,
    )
