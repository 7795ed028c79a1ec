from __future__ import annotations

from glowplug.autoscaler.collector import Collector
from glowplug.autoscaler.decider import NoData, Observation
from glowplug.autoscaler.parameters import Windows
from glowplug.spec.load import Report

S = 10**9
EDGE = 1_000_000_000 * S
WINDOWS = Windows(60 * S, 6 * S, is_weighted=False, is_scraped=True)


def test_what_several_say_of_a_second_adds_up() -> None:
    collector = Collector(WINDOWS)
    collector.record(EDGE, Report(concurrency=5, requests=50))
    collector.record(EDGE, Report(concurrency=7, requests=70))
    assert collector.observe("concurrency", 2, EDGE) == Observation(2, 12, 12)
    assert collector.observe("rps", 2, EDGE) == Observation(2, 120, 120)


def test_the_panic_window_is_the_shorter_one() -> None:
    collector = Collector(WINDOWS)
    for at in range(60):
        collector.record(EDGE + at * S, Report(10 if at < 54 else 100, 0))
    assert collector.observe("concurrency", 1, EDGE + 59 * S) == Observation(1, 19, 100)


def test_silence_is_no_data_where_pods_are_asked() -> None:
    silent = Collector(WINDOWS).observe("concurrency", 1, EDGE)
    assert isinstance(silent, NoData)
    behind = Collector(Windows(60 * S, 6 * S, is_weighted=False, is_scraped=False))
    assert behind.observe("concurrency", 1, EDGE) == Observation(1, 0, 0)
    assert isinstance(behind.observe("concurrency", None, EDGE), NoData)


def test_new_windows_keep_what_was_measured() -> None:
    collector = Collector(WINDOWS)
    for at in range(10):
        collector.record(EDGE + at * S, Report(at, 0))
    collector.resize(Windows(4 * S, 2 * S, is_weighted=False, is_scraped=True), EDGE + 9 * S)
    assert collector.observe("concurrency", 1, EDGE + 9 * S) == Observation(1, 7.5, 8.5)
