"""Which setting is measured next and which is chosen, without a server; and what reports say of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import GlowplugError
from glowplug.triton.home import Triton
from glowplug.triton.perf import Load, command, measure, parse_table
from glowplug.triton.report import markdown, plot, table_csv
from glowplug.triton.search import Choose, Level, Measure, NoneFits, Space, Trial, candidates, decide
from glowplug.triton.settings import Setting
from glowplug.triton.sweep import Sweep

A, B, C = Setting(32, 5000, 1), Setting(8, 0, 1), Setting(8, 0, 2)


def trial(
    setting: Setting, throughput: float, p99_ms: float, concurrency: int = 32, took_s: float = 5.0
) -> Trial:
    return Trial(setting, (Level(concurrency, throughput, p99_ms / 2, p99_ms),), took_s)


def test_candidates_change_one_thing_first() -> None:
    found = candidates(Space((8, 32), (0, 5000), (1, 2)), A)
    assert found[0] == A
    assert len(found) == len(set(found)) == 8
    changes = [
        sum((each.max_batch_size != 32, each.max_queue_delay_us != 5000, each.instances != 1))
        for each in found
    ]
    assert changes == [0, 1, 1, 1, 2, 2, 2, 3]
    assert candidates(Space((8,), (0,), (1,)), A) == (A, B), "the present setting is always measured"


def test_all_are_measured_then_the_best_once_more() -> None:
    trials = [trial(A, 1000, 10), trial(B, 2000, 30)]
    assert decide([A, B, C], trials, slo_p99_ms=20, left_s=60) == Measure(C, "3 of 3")
    trials.append(trial(C, 1500, 12))
    assert decide([A, B, C], trials, slo_p99_ms=20, left_s=60) == Measure(C, "the best so far, once more")
    trials.append(trial(C, 900, 15))
    # It was luck: the other one is better than C's worse run, and is measured once more itself.
    assert decide([A, B, C], trials, slo_p99_ms=20, left_s=60) == Measure(A, "the best so far, once more")
    trials.append(trial(A, 950, 11))
    found = decide([A, B, C], trials, slo_p99_ms=20, left_s=60)
    assert isinstance(found, Choose)
    assert (found.setting, found.level.throughput) == (A, 950)
    assert "most throughput of all settings with p99 within 20 ms: 950/s" in found.reason


def test_the_time_bounds_it() -> None:
    trials = [trial(A, 1000, 10, took_s=5)]
    found = decide([A, B, C], trials, slo_p99_ms=20, left_s=4)
    assert isinstance(found, Choose)
    assert "1 of 3, the time being up" in found.reason and "measured once only" in found.reason
    assert isinstance(decide([A], [], slo_p99_ms=20, left_s=0), Measure), "one at least"


def test_nothing_fits() -> None:
    found = decide([A, B], [trial(A, 1000, 30), trial(B, 900, 25)], slo_p99_ms=20, left_s=60)
    assert found == NoneFits("no setting has p99 within 20 ms; the lowest was 25.0 ms at concurrency 32")
    failed = Trial(A, (), 1, "it is broken")
    assert decide([A], [failed], slo_p99_ms=20, left_s=60) == NoneFits(
        "no setting could be measured: it is broken"
    )


def test_of_several_concurrencies_the_best_within_the_limit_counts() -> None:
    both = Trial(A, (Level(8, 500, 1, 5), Level(64, 5000, 20, 90)), 1)
    found = decide([A], [both, both], slo_p99_ms=20, left_s=60)
    assert isinstance(found, Choose)
    assert found.level.concurrency == 8


measured = st.tuples(st.sampled_from([A, B, C]), st.floats(1, 1e5), st.floats(0.1, 100))


@given(st.lists(measured, max_size=12), st.floats(0.1, 100), st.floats(-10, 100))
def test_what_is_chosen_was_within_the_limit_in_every_run(
    runs: list[tuple[Setting, float, float]], slo: float, left_s: float
) -> None:
    trials = [trial(*run) for run in runs]
    found = decide([A, B, C], trials, slo_p99_ms=slo, left_s=left_s)
    if isinstance(found, Choose):
        assert all(
            level.p99_ms <= slo for each in trials if each.setting == found.setting for level in each.levels
        )
    elif isinstance(found, Measure):
        assert not trials or left_s > 5
    else:
        assert not any(
            all(level.p99_ms <= slo for each in trials if each.setting == setting for level in each.levels)
            for setting in {each.setting for each in trials}
        )


def sweep() -> Sweep:
    trials = (trial(A, 1000, 30), trial(B, 2000, 10), Trial(C, (), 1, "no such thing"), trial(B, 1900, 11))
    return Sweep(A, trials, Choose(B, trials[3].levels[0], "it is best"))


def test_the_tables() -> None:
    text = markdown(sweep(), 20, "m: settings")
    lines = [line for line in text.splitlines() if line.startswith("| ") and "batch" not in line]
    assert lines[1] == "| 8 | 0 | 1 | 32 | 2000 | 5.0 | 10.0 | chosen |"
    assert lines[3] == "| 32 | 5000 | 1 | 32 | 1000 | 15.0 | 30.0 | before, p99 too long |"
    assert "Chosen: **batch 8, delay 0 us, 1 instance**, it is best." in text
    assert "- batch 8, delay 0 us, 2 instances: no such thing" in text
    rows = list(csv.DictReader(io.StringIO(table_csv(sweep(), 20))))
    assert [row["is_within_slo"] for row in rows] == ["false", "true", "true"]
    assert rows[0]["max_queue_delay_us"] == "5000"


def test_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot(sweep(), 20, "m", tmp_path / "plot.png")
    plot(Sweep(A, (trial(A, 100, 5000),), NoneFits("none")), 20, "m", tmp_path / "log.png")
    for name in ("plot.png", "log.png"):
        content = (tmp_path / name).read_bytes()
        assert content[:4] == b"\x89PNG" and len(content) > 5000


def test_perf_analyzers_words_and_table() -> None:
    load = Load("m", "127.0.0.1:1", "http", 500, ("x:3,224",), "zero", ("Host: a",))
    words = command(Triton("", perf_analyzer="/p"), load, 8, Path("/t.csv"))
    assert words[:5] == ["/p", "-m", "m", "-u", "127.0.0.1:1"]
    for pair in (
        ("--shape", "x:3,224"),
        ("-H", "Host: a"),
        ("--input-data", "zero"),
        ("--concurrency-range", "8"),
    ):
        assert words[words.index(pair[0]) + 1] == pair[1]
    assert "--async" not in words
    text = (
        "Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency,p95 latency,p99 latency\n"
        "8,1243.17,2,6297,6681,6834,7546\n"
    )
    assert parse_table(text) == Level(8, 1243.17, 6.297, 7.546)
    for broken in ("", "Concurrency\n8\n", text + "9,1,1,1,1,1,1\n"):
        with pytest.raises(GlowplugError, match="a table that is not understood"):
            parse_table(broken)


FAKE = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in *"--measurement-interval 200"*) echo "Failed to obtain stable measurement."; exit 99;; esac
case "$*" in *"-m shaky"*) echo "Failed to obtain stable measurement."; exit 99;; esac
case "$*" in *"-m nope"*) echo "error: unknown model"; exit 99;; esac
for last; do :; done
printf 'Concurrency,Inferences/Second,p50 latency,p99 latency\\n8,100,1000,2000\\n' > "$last"
"""


def test_a_run_without_answers_is_tried_again_with_longer_windows(tmp_path: Path) -> None:
    program, calls = tmp_path / "perf", tmp_path / "calls"
    program.write_text(FAKE)
    program.chmod(0o755)
    fake, env = Triton("", perf_analyzer=str(program)), {"CALLS": str(calls), "PATH": "/usr/bin:/bin"}
    assert measure(fake, Load("m", "h:1", "http", window_ms=200), 8, env) == Level(8, 100, 1, 2)
    assert len(calls.read_text().splitlines()) == 2
    with pytest.raises(GlowplugError, match="perf_analyzer: error: unknown model"):
        measure(fake, Load("nope", "h:1", "http"), 8, env)
    assert len(calls.read_text().splitlines()) == 3
    with pytest.raises(GlowplugError, match="Failed to obtain stable measurement"):
        measure(fake, Load("shaky", "h:1", "http"), 8, env)
    assert len(calls.read_text().splitlines()) == 5
