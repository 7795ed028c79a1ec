"""What a machine can be told, with every default."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field

DEFAULT_DATA_DIR = pathlib.Path(".glowplug")


@dataclass(frozen=True)
class MachineConfig:
    """One machine. Every port is on 127.0.0.1; 0 takes a free one."""

    data_dir: pathlib.Path = DEFAULT_DATA_DIR
    ingress_port: int = 8080
    api_port: int = 8081
    broker_port: int = 8082
    # Without it kubectl cannot log in: it sends no token over plain HTTP. Python clients do.
    is_tls: bool = True
    # `<name>.<namespace>.<domain>`: curl and browsers resolve *.localhost to this computer by themselves.
    domain: str = "localhost"
    # Folders of units beside the shipped ones.
    unit_dirs: tuple[pathlib.Path, ...] = field(default=())
    # Replicas are forked from processes that have imported what they need.
    has_warm_pool: bool = True
    # How long requests in flight may go on when the machine stops.
    shutdown_timeout_s: float = 30.0
