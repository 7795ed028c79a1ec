"""How the detector is set: flag > environment > default, read once at the edge."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from glowplug.drift.config import DriftConfig
from glowplug.drift.detector import Target
from glowplug.errors import ConfigError

PREFIX = "GLOWPLUG_DRIFT_"
STATE = "/var/lib/glowplug-drift"
MAX_BODY_BYTES = 16 * 2**20
_DAY_S = 86400.0
# The detector's numbers that are flags of the same name.
_LIMITS = (
    "slots", "needed", "of", "calm", "cool_down_s", "min_psi", "min_ks", "min_missing", "min_share", "min_error_ratio",
    "min_unfit", "min_rows", "min_labels", "feature_rate", "level",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """`volumes` is where `pvc://<claim>` is looked for; `sink` "" is none."""

    target: Target
    profile: str
    config: DriftConfig
    sink: str
    state: Path
    volumes: Path | None
    port: int
    host: str
    max_body_bytes: int
    send_timeout_s: float
    reload_s: float


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """From a command line. Raises ConfigError; a flag that is none ends the process with 2."""
    given = _parser(environment).parse_args(argv)
    if not given.inferenceservice or not given.profile:
        raise ConfigError(
            f"--inferenceservice={given.inferenceservice} --profile={given.profile}, both are needed",
            hint=f"also as {PREFIX}INFERENCESERVICE and {PREFIX}PROFILE",
        )
    limits = {name: getattr(given, name) for name in _LIMITS}
    config = DriftConfig(window_s=given.window_days * _DAY_S, window_rows=given.window_rows, **limits)
    return Settings(
        target=Target(
            given.namespace, given.inferenceservice, given.model or given.inferenceservice, given.component
        ),
        profile=given.profile,
        config=config.checked(),
        sink=_sink(given.sink),
        state=Path(given.state),
        volumes=Path(given.volumes) if given.volumes else None,
        port=given.http_port,
        host=given.host,
        max_body_bytes=given.max_body_bytes,
        send_timeout_s=given.send_timeout_s,
        reload_s=given.reload_s,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glowplug_drift_detector",
        description="Every flag is also a variable: --window_days is GLOWPLUG_DRIFT_WINDOW_DAYS.",
    )

    def add(name: str, default: object, help: str = "", variable: str = "") -> None:
        kind = type(default)
        found = environment.get(variable or PREFIX + name.upper())
        parser.add_argument(f"--{name}", type=kind, default=default if found is None else found, help=help)

    add("inferenceservice", "", "the InferenceService that is watched")
    add("namespace", "default", "its namespace")
    add("model", "", "its name in the registry; default: the InferenceService's")
    add("component", "predictor", "of which component the payloads are")
    add("profile", "", "the model's folder, or its profile.json: a path, file://, pvc://, http(s)://, s3://")
    add("volumes", "", "where the folders of pvc:// claims are")
    add("sink", "", "where drift.detected goes; default: $K_SINK, and the log alone without", "K_SINK")
    add("state", STATE, "a folder of its own")
    add("http_port", 8080, "0 takes a free one", "PORT")
    add("host", "0.0.0.0", "where to listen", "HOST")
    add("window_days", 14.0, "a window's days")
    add("window_rows", 0, "windows of so many rows instead")
    add("max_body_bytes", MAX_BODY_BYTES, "of a request")
    add("send_timeout_s", 10.0, "for one attempt")
    add("reload_s", 60.0, "how often to look for another profile; 0 never")
    defaults = {field.name: field.default for field in dataclasses.fields(DriftConfig)}
    for name in _LIMITS:
        add(name, defaults[name])
    return parser


def _sink(text: str) -> str:
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigError(f"K_SINK = {text!r}, expected an http or https URL", hint="a Broker's address")
    return text
