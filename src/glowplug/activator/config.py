"""The activator's configuration: every default of it is here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ActivatorConfig:
    """Bounds of what waits; times are in seconds."""

    # Requests that wait, of all revisions together. Each costs Envoy some 80 KB and the activator below 2 KB.
    max_held: int = 10_000
    # A hold ends within this part of the revision's timeout, so that its answer is ours and not the ingress's 504.
    part_of_timeout: float = 0.9
    # What Envoy says: a question is some 300 bytes, its first access log entry names its extensions, 60 KB.
    max_message_bytes: int = 256 * 1024
