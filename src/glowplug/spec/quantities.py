"""Kubernetes quantities: `500m`, `2`, `1.5Gi`, `1e3`.

Kept as text in objects; a value is needed only to compare requests with limits.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

# Kubernetes' own message, so that a search for it finds Kubernetes' documentation.
SYNTAX = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"

_QUANTITY = re.compile(
    r"^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]{1,3})$", re.ASCII
)
_FACTORS = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}
_MAX_LENGTH = 64  # longer ones are no amounts; Decimal arithmetic on them would only cost time


def parse(value: object) -> Decimal | None:
    """The amount, or None when `value` (text, or a number as JSON has it) is no quantity."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = str(value)
    match = _QUANTITY.match(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    number, suffix = match.groups()
    try:
        if suffix in _FACTORS:
            return Decimal(number) * _FACTORS[suffix]
        return Decimal(number + suffix)
    except InvalidOperation:
        return None
