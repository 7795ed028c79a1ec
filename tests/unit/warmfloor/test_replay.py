"""The simulation, and the promise: far fewer late requests than reactive scaling at little more cost."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from glowplug.cli import warmfloor
from glowplug.errors import ConfigError
from glowplug.warmfloor import replay, traces
from glowplug.warmfloor.settings import Settings
from glowplug.warmfloor.simulated import Queue, SimulatedRevision, Workload
from glowplug.warmfloor.traces import Demand


def test_a_queue_serves_what_came_first() -> None:
    queue = Queue(10.0, 0.1)
    assert queue.second(8.0, 1) == (0.0, 8.0)
    late, concurrency = queue.second(16.0, 1)
    assert late == 6.0 and concurrency == 10.0 + 60.0, "60 requests wait"
    late, _ = queue.second(8.0, 1)
    assert late == pytest.approx(4.0), "6 of the second before go first"
    assert queue.second(0.0, 1)[0] == 0.0


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 20)), max_size=50))
def test_no_work_is_lost(seconds: list[tuple[float, int]]) -> None:
    queue, given_work, late = Queue(10.0, 0.1), 0.0, 0.0
    for work, ready in seconds:
        given_work += work
        found, _ = queue.second(work, ready)
        assert 0 <= found <= work
        late += found
    assert late <= given_work and 0 <= queue.waiting <= late + 1e-6


def test_a_pod_takes_its_time_to_start() -> None:
    revision = SimulatedRevision(Workload(start_s=7.0), 1000)
    ready = []
    for now in range(1000, 1030):
        revision.step(now, 5.0, 0)
        ready.append(revision.ready)
    assert [count > 0 for count in ready].index(True) == 7
    assert revision.costs.late > 0 and revision.costs.replica_s >= 22


def test_a_floor_is_kept_from_the_start() -> None:
    revision = SimulatedRevision(Workload(start_s=3.0), 1000)
    for now in range(1000, 1300):
        revision.step(now, 0.0, 4)
    assert revision.ready == 4
    for now in range(1300, 1500):
        revision.step(now, 0.0, 0)
    assert revision.ready == 0, "nobody asks, so it goes to zero"


def test_on_a_morning_it_misses_a_fifth_at_most_for_little_more() -> None:
    workload = Workload()
    day = traces.diurnal(workload.service_s, seed=2, days=1)
    demand = Demand(day.name, day.work[1600:4600], day.season_s)
    reactive, warm = (
        replay.reactive(demand, workload),
        replay.warm_floor(demand, workload, Settings(maximum=20)),
    )
    assert reactive.late_requests > 100
    assert warm.late_requests <= reactive.late_requests / 5
    assert warm.replica_s <= 1.3 * reactive.replica_s
    assert warm.requests == reactive.requests


def test_generated_demands_are_the_same_every_time() -> None:
    for name, generator in traces.GENERATED.items():
        found = generator(0.1).work
        assert found == generator(0.1).work and found != generator(0.1, 5).work, name


def test_a_file_is_read_with_its_gaps() -> None:
    found = traces.parse(["seconds,demand", "0,1.5", "", "3,2"], "f")
    assert found == Demand("f", (1.5, 1.5, 1.5, 2.0), 86400.0)
    with pytest.raises(ConfigError) as raised:
        traces.parse(["0,1", "0,2", "x,3", "4,-1", "5"], "f.csv")
    assert raised.value.message.splitlines() == [
        "f.csv:2 seconds = 0, must be more than in the line before",
        'f.csv:3 "x,3", must be SECONDS,DEMAND, both 0 or more',
        'f.csv:4 "4,-1", must be SECONDS,DEMAND, both 0 or more',
        'f.csv:5 "5", must be SECONDS,DEMAND, both 0 or more',
    ]
    with pytest.raises(ConfigError, match="has 0 lines"):
        traces.parse([], "f")


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_file_is_read_or_refused(lines: list[str]) -> None:
    try:
        found = traces.parse(lines, "f")
    except ConfigError:
        return
    assert all(value >= 0 for value in found.work)


def test_the_command_prints_a_table(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("".join(f"{second},{5 if second % 200 < 100 else 60}\n" for second in range(0, 600, 10)))
    result = CliRunner().invoke(warmfloor.app, ["simulate", str(file), "--start-time", "5"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["policy", "reactive", "warm"]
    missing = CliRunner().invoke(warmfloor.app, ["simulate", str(tmp_path / "none")])
    assert isinstance(missing.exception, ConfigError)
