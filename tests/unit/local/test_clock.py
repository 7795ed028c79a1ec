from __future__ import annotations

import time

import pytest

from glowplug.local.clock import steady_clock


def test_a_clock_that_is_set_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = steady_clock()
    before = clock()
    assert before == pytest.approx(time.time(), abs=1)
    now = time.time()
    for jump_s in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda to=now + jump_s: to)
        assert clock() == pytest.approx(before, abs=1)
    assert clock() >= before
