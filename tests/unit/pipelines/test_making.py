"""Up to where a trigger's window goes."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from glowplug_pipelines.making import window_end
from glowplug_pipelines.triggering.trigger import ALERT, DATA, DRIFT, REQUESTED, Trigger

_SENT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
_TOLD = datetime(2026, 2, 28, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("type", "data", "expected"),
    [
        (DATA, {"from": "2026-02-01T00:00:00Z", "to": "2026-02-28T00:00:00Z"}, _TOLD),
        (REQUESTED, {"to": "2026-02-28T00:00:00Z"}, _TOLD),
        (
            DRIFT,
            {"window": {"to": "2026-02-28T00:00:00Z"}, "reference": {"to": "2026-01-01T00:00:00Z"}},
            _TOLD,
        ),
        (REQUESTED, {}, _SENT),
        (ALERT, {"to": "2026-02-28T00:00:00Z"}, _SENT),
        (DATA, {"to": "soon"}, _SENT),
        (DATA, {"to": 7}, _SENT),
        (DRIFT, {"window": None}, _SENT),
    ],
)
def test_the_window_ends_where_the_data_do(type: str, data: dict[str, Any], expected: datetime) -> None:
    trigger = Trigger(type, "1", "/test", "e", _SENT.timestamp(), data=data)
    assert window_end(trigger) == expected
