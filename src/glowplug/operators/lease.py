"""Who of several controllers acts: the holder of a Lease. Pure.

As in Kubernetes' leader election: the holder renews it with every tick; somebody else takes it when it was not
renewed for its duration, by the clock of whoever waits, or when it was given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any


@dataclass(frozen=True)
class Seen:
    """A lease as somebody who does not hold it saw it: its last renewal, and when that was first seen."""

    renewed: str = ""
    at: float = 0.0


def claim(
    spec: Mapping[str, Any], identity: str, duration_s: int, seen: Seen, now: float
) -> tuple[dict[str, Any] | None, Seen]:
    """The lease's next spec if it can be taken or renewed now, else None."""
    holder, renewed = spec.get("holderIdentity") or "", str(spec.get("renewTime") or "")
    if renewed != seen.renewed:
        seen = Seen(renewed, now)
    is_ours = holder == identity
    if holder and not is_ours and now < seen.at + float(spec.get("leaseDurationSeconds") or duration_s):
        return None, seen
    moment = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="microseconds")
    moment = moment.replace("+00:00", "Z")
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": duration_s,
        "acquireTime": spec.get("acquireTime") if is_ours else moment,
        "renewTime": moment,
        "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (not is_ours),
    }, seen


def released(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a lease that nobody holds."""
    return {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
