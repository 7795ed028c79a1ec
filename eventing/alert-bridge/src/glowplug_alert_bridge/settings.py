"""How the bridge is set: flag > environment > default, read once at the edge."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from glowplug.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """`sink` is where events go. A webhook may have so many bytes and alerts, and takes so long at the most."""

    sink: SplitResult
    port: int = 8080
    host: str = "0.0.0.0"
    max_body_bytes: int = 2**20
    max_alerts: int = 500
    send_timeout_s: float = 10.0
    concurrency: int = 8


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """From a command line. Raises ConfigError; a flag that is none ends the process with 2."""
    parser = argparse.ArgumentParser(prog="python -m glowplug_alert_bridge", description=__doc__)
    parser.add_argument("--sink", default=environment.get("K_SINK", ""), help="default: $K_SINK")
    parser.add_argument("--http_port", type=int, default=environment.get("PORT", Settings.port))
    parser.add_argument("--host", default=environment.get("HOST", Settings.host))
    parser.add_argument("--max_alerts", type=int, default=Settings.max_alerts)
    parser.add_argument("--send_timeout_s", type=float, default=Settings.send_timeout_s)
    given = parser.parse_args(argv)
    if given.max_alerts < 1:
        raise ConfigError(f"--max_alerts={given.max_alerts}, must be 1 or more")
    if given.send_timeout_s <= 0:
        raise ConfigError(f"--send_timeout_s={given.send_timeout_s:g}, must be more than 0")
    return Settings(
        _sink(given.sink),
        given.http_port,
        given.host,
        max_alerts=given.max_alerts,
        send_timeout_s=given.send_timeout_s,
    )


def _sink(text: str) -> SplitResult:
    hint = "a Broker's address, e.g. http://broker-ingress.knative-eventing/serving/default"
    if not text:
        raise ConfigError("neither --sink nor $K_SINK says where events go", hint=hint)
    try:
        found = urlsplit(text)
        is_url = found.scheme in ("http", "https") and bool(found.hostname)
        found.port  # noqa: B018 - reading it checks it
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigError(f"K_SINK = {text!r}, expected an http or https URL", hint=hint)
    return found
