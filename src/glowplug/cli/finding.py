"""What one check of `doctor` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One check's outcome; an optional part that is missing is told, but fails nothing."""

    is_ok: bool
    text: str
    hint: str = ""
    is_optional: bool = False
