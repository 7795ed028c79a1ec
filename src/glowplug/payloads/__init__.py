"""KServe's payload logger: tells a sink of requests and answers as CloudEvents, and slows nobody down; see `engine`."""

from glowplug.payloads.config import PayloadsConfig
from glowplug.payloads.engine import Payloads
from glowplug.payloads.tally import Notice

__all__ = ["Notice", "Payloads", "PayloadsConfig"]
