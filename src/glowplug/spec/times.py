"""Times as Kubernetes objects and requests write them (RFC 3339), read alike by every supported Python."""

from __future__ import annotations

from datetime import datetime, timezone


def parse_time(text: object) -> datetime | None:
    """A Kubernetes timestamp (RFC 3339, with or without microseconds) as an aware UTC time; None if it is none."""
    if not isinstance(text, str) or not text:
        return None
    try:
        moment = datetime.fromisoformat(_python_310_form(text))
        # Beyond the first and the last year of the calendar there is no UTC of it.
        return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        return None


def _python_310_form(text: str) -> str:
    """Python 3.10 reads `+00:00` but not `Z`, and only 3 or 6 digits of a second."""
    if text[-1] in "zZ":
        text = text[:-1] + "+00:00"
    if len(text) > 19 and text[19] == ".":
        end = 20
        while end < len(text) and text[end].isdigit():
            end += 1
        text = f"{text[:20]}{text[20:end][:6]:0<6}{text[end:]}"
    return text
