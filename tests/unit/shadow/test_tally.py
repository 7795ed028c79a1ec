"""Counters, the last differences, and when somebody is told."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from glowplug.copies.child import parse_report
from glowplug.shadow.comparing import Comparison, Outcome
from glowplug.shadow.config import ShadowConfig
from glowplug.shadow.report import metrics, notices_of, report_line
from glowplug.shadow.tally import Pair, Tally, Times

PAIR = Pair("default/flights", "default/flights-00001", "default/flights-00002")
GOOD, BAD = Comparison(Outcome.EQUAL, distance=0.0), Comparison(Outcome.DIFFERENT, "y: 1 and 2", 0.5)
CONFIG = ShadowConfig(notice_window=10, notice_min_compared=4, notice_share=0.3, notice_interval_s=100.0)


def told(tally: Tally, *comparisons: Comparison, now: float = 0.0) -> list[str]:
    notices = [tally.add(PAIR, comparison, now=now) for comparison in comparisons]
    return [notice.text for notice in notices if notice is not None]


def test_nobody_is_told_of_a_small_share_or_of_few() -> None:
    assert told(Tally(CONFIG), BAD, BAD, BAD) == []
    assert told(Tally(CONFIG), *[GOOD, GOOD, GOOD, GOOD, BAD] * 10) == []


def test_a_notable_share_is_told_once_an_interval() -> None:
    tally = Tally(CONFIG)
    (text,) = told(tally, GOOD, GOOD, BAD, GOOD, BAD, BAD, BAD)
    assert text == (
        "Shadow flights-00002 differs from flights-00001 in 2 of the last 5 answers; the last one: y: 1 and 2"
    )
    assert told(tally, BAD, now=99.0) == []
    assert len(told(tally, BAD, BAD, now=100.0)) == 1


def test_what_was_not_compared_is_no_difference() -> None:
    others = [Comparison(o) for o in Outcome if not o.is_compared]
    assert told(Tally(CONFIG), *others * 10) == []


def test_another_revision_starts_anew() -> None:
    tally = Tally(CONFIG)
    assert told(tally, BAD, BAD, BAD, BAD)
    other = Pair(PAIR.service, PAIR.revision, "default/flights-00003")
    assert [tally.add(other, BAD, now=0.0) is not None for _ in range(5)] == [
        False,
        False,
        False,
        True,
        False,
    ]


def test_the_last_differences_are_kept() -> None:
    tally = Tally(ShadowConfig(kept_differences=2))
    for n in range(4):
        tally.add(PAIR, BAD, now=0.0, shown={"id": f"{n}"})
        tally.add(PAIR, GOOD, now=0.0, shown={"id": f"-{n}"})
    assert [difference["id"] for difference in tally.differences] == ["2", "3"]


def test_the_oldest_pairs_go() -> None:
    tally = Tally(ShadowConfig(kept_pairs=2))
    for n in range(5):
        tally.count(Pair("s", "r", str(n)), Outcome.EQUAL)
    assert [pair.shadow for pair in tally.counts] == ["3", "4"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Outcome),
            st.none() | st.just(math.inf) | st.floats(0, 2),
            st.none() | st.floats(0, 10),
        )
    )
)
def test_the_page_says_what_was_counted(found: list[tuple[Outcome, float | None, float | None]]) -> None:
    tally = Tally(CONFIG)
    notices = []
    for outcome, distance, seconds in found:
        times = None if seconds is None else Times(seconds, 2 * seconds)
        notice = tally.add(PAIR, Comparison(outcome, "x", distance), now=0.0, times=times)
        notices += [notice] if notice else []
    line = report_line(tally, notices)
    assert line.count(b"\n") == 1
    report = parse_report(line)
    assert list(notices_of(report)) == notices
    families = {family.name: family for family in text_string_to_metric_families(metrics(report))}
    if not found:
        assert families == {}
        return
    counted = {s.labels["outcome"]: s.value for s in families["glowplug_shadow_requests"].samples}
    outcomes = [outcome for outcome, _, _ in found]
    assert counted == {outcome.value: outcomes.count(outcome) for outcome in set(outcomes)}
    distances = [d for _, d, _ in found if d is not None]
    for sample in families["glowplug_shadow_distance"].samples:
        if sample.name.endswith("_bucket"):
            assert sample.value == sum(d <= float(sample.labels["le"]) for d in distances)
        elif sample.name.endswith("_sum"):
            assert sample.value == pytest.approx(sum(d for d in distances if not math.isinf(d)), rel=1e-4)


def test_a_report_is_json_whatever_differs() -> None:
    tally = Tally(CONFIG)
    tally.add(PAIR, Comparison(Outcome.DIFFERENT, "x", math.inf), now=0.0)
    assert orjson.loads(report_line(tally, []))["differences"][0]["distance"] is None


def test_a_report_is_short_whatever_differs() -> None:
    tally = Tally(CONFIG)
    long = "k" * 900_000
    notices = [
        tally.add(PAIR, Comparison(Outcome.DIFFERENT, long, 1.0), now=0.0, shown={"id": long, "path": long})
        for _ in range(2 * CONFIG.kept_differences)
    ]
    line = report_line(tally, filter(None, notices))
    assert len(line) < 1000 * (CONFIG.kept_differences + 10)
    assert [notice.example[-1] for notice in notices_of(parse_report(line))] == ["…"]


@pytest.mark.parametrize("line", [b"", b"1\n", b"[]", b"{"])
def test_what_is_no_report_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        parse_report(line)
