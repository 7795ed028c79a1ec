"""What a server tells of its start."""

from __future__ import annotations

import os

from glowplug.serving.timeline import TimedMetrics, Timeline


def clock(*moments: float):
    left = list(moments)
    return lambda: left.pop(0)


def test_phases_go_to_the_file_that_is_named_and_out_of_the_environment(tmp_path):
    path = tmp_path / "timeline"
    path.touch()
    env = {"GLOWPLUG_TIMELINE": str(path), "A": "b"}
    timeline = Timeline.from_environment(env)
    assert env == {"A": "b"}
    timeline.mark("imported")
    timeline.mark("imported")
    timeline.mark("loaded")
    timeline.close()
    timeline.mark("warmed")
    lines = path.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["imported", "loaded"]
    assert float(lines[1].split()[1]) == round(timeline.moments["loaded"], 6)


def test_without_a_reader_nothing_fails(tmp_path):
    missing = tmp_path / "missing"
    Timeline(str(missing)).mark("imported")
    assert not missing.exists(), "nothing is made"
    os.mkfifo(tmp_path / "pipe")
    Timeline(str(tmp_path / "pipe")).mark("imported")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    timeline = Timeline(str(tmp_path / "pipe"))
    os.close(reader)
    timeline.mark("imported")
    timeline.close()


def test_metrics_show_each_phase_and_the_first_success_ends_the_watch():
    timeline = Timeline(clock=clock(1e12, 1e12 + 0.25, 1e12 + 1))
    metrics = TimedMetrics(timeline)
    assert b"glowplug_start_phase_seconds" not in metrics.render()
    timeline.mark("imported")
    timeline.mark("loaded")
    metrics.watch_first_answer()
    metrics.count("m", "v2", "500")
    metrics.count("", "v2", "200")
    assert "first_byte" not in timeline.moments
    metrics.count("m", "grpc", "OK")
    metrics.count("m", "v2", "200")
    assert timeline.moments["first_byte"] == 1e12 + 1
    assert "count" not in vars(metrics), "the hot path is the plain method again"
    page = metrics.render().decode()
    assert 'glowplug_start_phase_seconds{phase="loaded"} 0.250000' in page
    assert 'glowplug_start_phase_seconds{phase="first_byte"} 0.750000' in page
    assert 'glowplug_requests_total{model_name="m",protocol="v2",code="200"} 1' in page
