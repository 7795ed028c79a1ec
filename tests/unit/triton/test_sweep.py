"""The sweep on a server that only notes what it is told: what is loaded, measured, and left behind."""

from __future__ import annotations

from typing import Any

import pytest

from glowplug.errors import GlowplugError
from glowplug.triton import sweep as module
from glowplug.triton.home import Triton
from glowplug.triton.perf import Load
from glowplug.triton.search import Choose, Level, NoneFits, Space
from glowplug.triton.settings import Setting, setting_of
from glowplug.triton.sweep import SweepConfig, sweep

START: Any = {
    "name": ["m"],
    "max_batch_size": [32],
    "dynamic_batching": [{"max_queue_delay_microseconds": [5000]}],
}
SPACE = Space((8, 32), (0,), (1,))


class FakeControl:
    """Serves what was loaded last; `refused` batch sizes cannot be loaded."""

    def __init__(self, *refused: int) -> None:
        self.loaded: list[Setting] = []
        self._refused = refused

    def load(self, model: str, config: Any, timeout_s: float) -> None:
        assert (model, timeout_s > 0) == ("m", True)
        setting = setting_of(config)
        if setting.max_batch_size in self._refused:
            raise GlowplugError(f"batch {setting.max_batch_size} is refused")
        self.loaded.append(setting)


def run(
    control: FakeControl, monkeypatch: pytest.MonkeyPatch, *, slo: float = 20, budget_s: float = 60
) -> Any:
    def measure(triton: Triton, load: Load, concurrency: int, env: Any) -> Level:
        served = control.loaded[-1]
        delay_ms = (served.max_queue_delay_us or 0) / 1000
        return Level(concurrency, served.max_batch_size * concurrency, 1, 10 + delay_ms)

    monkeypatch.setattr(module, "measure", measure)
    config = SweepConfig(slo, SPACE, (4, 8), budget_s)
    fake: Any = control
    return sweep(fake, Triton(""), Load("m", "h:1"), START, config, {})


def test_the_chosen_one_is_left_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    control = FakeControl()
    found = run(control, monkeypatch)
    assert isinstance(found.outcome, Choose)
    assert found.outcome.setting == control.loaded[-1] == Setting(32, 0, 1)
    seen = list(dict.fromkeys(trial.setting for trial in found.trials))
    assert seen == [Setting(32, 5000, 1), Setting(32, 0, 1), Setting(8, 0, 1)]
    assert [level.concurrency for level in found.trials[0].levels] == [4, 8]


def test_what_was_there_is_loaded_again_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    control = FakeControl()
    assert isinstance(run(control, monkeypatch, slo=5).outcome, NoneFits)
    assert control.loaded[-1] == found_start()
    assert len(control.loaded) == 4


def test_what_was_there_is_loaded_again_on_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    control = FakeControl()

    def interrupted(*arguments: Any) -> Level:
        if control.loaded[-1] != found_start():
            raise KeyboardInterrupt
        return Level(8, 1, 1, 1)

    monkeypatch.setattr(module, "measure", interrupted)
    fake: Any = control
    with pytest.raises(KeyboardInterrupt):
        sweep(fake, Triton(""), Load("m", "h:1"), START, SweepConfig(20, SPACE), {})
    assert control.loaded[-1] == found_start()


def test_a_setting_that_is_refused_is_a_trial_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(FakeControl(8), monkeypatch)
    assert [trial.failure for trial in found.trials if trial.failure] == ["batch 8 is refused"]
    assert isinstance(found.outcome, Choose)
    with pytest.raises(GlowplugError, match="batch 32 is refused"):
        run(FakeControl(32), monkeypatch)


def found_start() -> Setting:
    return setting_of(START)
