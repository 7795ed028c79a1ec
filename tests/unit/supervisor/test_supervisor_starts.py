"""The timeline of a start, and who may be forked: values and decisions."""

from __future__ import annotations

import importlib
import json
import math
import os
import wsgiref.handlers
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug.spec import names
from glowplug.supervisor.cold_start import PHASES, ColdStart, annotation, decided_at
from glowplug.supervisor.forkable import EVERYTHING, Imports, module_of, why_not
from glowplug.supervisor.images import discover
from glowplug.supervisor.start_metrics import StartMetrics
from glowplug.supervisor.start_pipe import parse
from glowplug.supervisor.zygote import _recorded


def a_start(**moments: float) -> ColdStart:
    start = ColdStart("main", "glowplug/xgboost", 1000.0, "fork", moments={})
    for phase, moment in moments.items():
        start.mark(phase, moment)
    return start


def test_a_phase_lasts_from_the_end_of_the_one_before():
    start = a_start(decided=1000.001, started=1000.005, imported=1000.015, ready=1000.03, first_byte=1000.034)
    assert start.as_object() == {
        "at": "1970-01-01T00:16:40.000Z", "how": "fork", "restart": 0,
        "ms": {"decided": 1.0, "started": 4.0, "imported": 10.0, "ready": 15.0, "first_byte": 4.0},
    }  # fmt: skip
    assert start.in_words() == (
        "Container main ready in 30 ms, started from the warm pool: "
        "seen 1 ms, process 4 ms, imported 10 ms, ready 15 ms, first answer 4 ms"
    )
    assert json.loads(annotation([start])) == {"main": start.as_object()}


def test_the_first_time_counts():
    start = a_start(ready=1001.0)
    start.mark("ready", 1009.0)
    assert start.total_s() == 1.0


@given(st.dictionaries(st.sampled_from(PHASES), st.floats(900, 1100)))
def test_durations_are_never_negative_and_add_up_to_the_last_moment(moments):
    durations = a_start(**moments).durations_s()
    assert list(durations) == [phase for phase in PHASES if phase in moments]
    assert all(value >= 0 for value in durations.values())
    assert sum(durations.values()) == pytest.approx(max([1000.0, *moments.values()]) - 1000.0, abs=1e-6)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("999.5", 999.5), ("", 1000.0), ("soon", 1000.0), ("nan", 1000.0), ("1000.5", 1000.0), ("-inf", 1000.0),
        ("1", 1000.0),
    ],
)  # fmt: skip
def test_a_decision_is_believed_where_it_can_be(written, expected):
    assert decided_at({names.DECIDED_AT: written}, 1000.0) == expected
    assert decided_at({}, 1000.0) == 1000.0


@given(st.binary(max_size=60))
def test_whatever_is_written_to_the_pipe_is_no_error(line):
    phase, moment = parse(line)
    assert not phase or (math.isfinite(moment) and moment > 0)


def test_lines_of_a_pipe():
    assert parse(b"loaded 1735689600.25") == ("loaded", 1735689600.25)
    for line in (b"loaded nan", b"loaded inf", b"ready 1", b"loaded", b"loaded -4", b""):
        assert parse(line) == ("", 0.0)


def test_histograms_by_image_kind_and_phase():
    metrics = StartMetrics()
    assert metrics.render() == ""
    start = a_start(started=1000.004, ready=1000.2, first_byte=1000.3)
    metrics.ready(start)
    metrics.ready(a_start(started=1000.004, ready=1000.04))
    metrics.first_byte(start)
    lines = metrics.render().splitlines()
    assert 'glowplug_cold_start_seconds_bucket{image="glowplug/xgboost",how="fork",le="0.05"} 1' in lines
    assert 'glowplug_cold_start_seconds_count{image="glowplug/xgboost",how="fork"} 2' in lines
    phase = 'image="glowplug/xgboost",how="fork",phase='
    assert f'glowplug_cold_start_phase_seconds_bucket{{{phase}"started",le="0.005"}} 2' in lines
    assert f'glowplug_cold_start_phase_seconds_count{{{phase}"first_byte"}} 1' in lines
    assert lines.count("# TYPE glowplug_cold_start_phase_seconds histogram") == 1


IMPORTS = Imports({"PATH": "/bin", "PYTHONPATH": "/src", "OPENBLAS_NUM_THREADS": "1"}, frozenset({"MODE"}))


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({}, ""),
        ({"PORT": "1", "GRPC_PORT": "2", "OMP_NUM_THREADS": "2", "PATH": "/usr/bin"}, ""),
        ({"MODE": "x"}, "MODE"),
        ({"PYTHONPATH": "/other"}, "PYTHONPATH"),
        ({"PYTHONHASHSEED": "0"}, "PYTHONHASHSEED"),
        ({"LD_PRELOAD": "x.so", "GRPC_VERBOSITY": "debug"}, "GRPC_VERBOSITY, LD_PRELOAD"),
    ],
)
def test_who_may_be_forked(env, names):
    reason = why_not({"PATH": "/bin", "PYTHONPATH": "/src", **env}, IMPORTS)
    assert reason.removesuffix(" differ, which its modules read while they are imported") == names


def test_openmp_that_is_loaded_has_read_its_variable():
    env = {**IMPORTS.env, "OMP_NUM_THREADS": "2"}
    assert why_not(env, IMPORTS) == ""
    assert "OMP_NUM_THREADS" in why_not(env, Imports(IMPORTS.env, frozenset(), has_openmp=True))


def test_who_reads_the_whole_environment_is_never_forked():
    assert "whole environment" in why_not(IMPORTS.env, Imports(IMPORTS.env, frozenset({EVERYTHING})))


def test_the_copy_that_the_standard_library_keeps_for_cgi_is_no_reading():
    with _recorded() as names:
        importlib.reload(wsgiref.handlers)
    assert EVERYTHING not in names
    with _recorded() as names:
        dict(os.environ)
    assert EVERYTHING in names


@pytest.mark.parametrize(
    ("argv", "module"),
    [
        (("/py", "-m", "unit", "--x"), "unit"), (("/py", "-m"), None), (("/py", "unit.py", "a"), None),
        (("sh", "-m", "unit"), None), (("/py", "-m", "--help"), None), ((), None),
    ],
)  # fmt: skip
def test_the_module_of_a_command(argv, module):
    assert module_of(argv, "/py") == module


def write_unit(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f'[tool.glowplug.unit]\nimage = "a/b"\nrun = "python -m b"\n{text}'
    )


def test_a_unit_says_what_the_pool_imports(tmp_path):
    write_unit(tmp_path / "b", 'preload = ["heavy", "heavy.more:rehearse"]\npool = false\ncopies = true')
    (unit,) = discover([tmp_path]).units
    assert (unit.preload, unit.is_pooled, unit.copies) == (("heavy", "heavy.more:rehearse"), False, True)


@pytest.mark.parametrize(
    "text", ['preload = "heavy"', "preload = [1]", 'preload = [""]', 'pool = "no"', "copies = 1", "pools = 1"]
)
def test_a_unit_that_says_it_wrong(tmp_path, text):
    write_unit(tmp_path / "b", text)
    with pytest.raises(ConfigError, match=text.split()[0]):
        discover([tmp_path])


def test_replicas_do_not_share_numpys_random_numbers():
    import numpy as np

    from glowplug.supervisor.zygote_replica import _reseed

    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    _reseed()
    assert np.random.random() != expected
