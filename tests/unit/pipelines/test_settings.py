"""Settings: the shipped file, the environment, and every problem at once with its line."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from glowplug.errors import ConfigError
from glowplug_pipelines.settings import GateSettings, WindowSettings, parse_settings, read_settings

_ROOT = Path(__file__).parents[3]
_LEAST = "model: flights\nworkload: glowplug_flights.workload:Flights\n"


@pytest.mark.parametrize("file", ["flights/pipeline.yaml", "job/pipeline.yaml"])
def test_the_shipped_files_are_read(file: str) -> None:
    settings = read_settings(_ROOT / "pipelines" / file, {})
    assert (settings.model, settings.workload) == ("flights", "glowplug_flights.workload:Flights")


def test_the_documented_file_shows_the_defaults() -> None:
    settings = read_settings(_ROOT / "pipelines/flights/pipeline.yaml", {})
    changed = {"min_training_rows": 5000, "min_holdout_rows": 2000}
    assert settings.window == WindowSettings(**changed)
    assert settings.gate == GateSettings(max_bias=10, max_latency_ms=5, max_size_mb=20)
    assert settings.registry.uri == f"sqlite:///{Path.cwd()}/.glowplug/mlflow/mlflow.db"
    assert settings.registry.artifacts == (Path.cwd() / ".glowplug/mlflow/artifacts").as_uri()


def test_everything_may_be_left_out_but_model_and_workload() -> None:
    settings = parse_settings(_LEAST, "p.yaml", {})
    assert (settings.window, settings.gate) == (WindowSettings(), GateSettings())
    with pytest.raises(ConfigError) as caught:
        parse_settings("namespace: default\n", "p.yaml", {})
    assert "model is absent" in caught.value.message
    assert "workload is absent" in caught.value.message


def test_the_environment_wins() -> None:
    settings = parse_settings(
        _LEAST + "offline: {url: here}\nregistry: {uri: 'http://file', artifacts: here}\nworkDir: here\n",
        "p.yaml",
        {
            "GLOWPLUG_OFFLINE_URL": "postgresql://db/flights",
            "MLFLOW_TRACKING_URI": "http://mlflow",
            "GLOWPLUG_REGISTRY_ARTIFACTS": "s3://models",
            "GLOWPLUG_PIPELINES_WORK_DIR": "/work",
        },
    )
    assert settings.offline_url == "postgresql://db/flights"
    assert (settings.registry.uri, settings.registry.artifacts) == ("http://mlflow", "s3://models")
    assert settings.work_dir == Path("/work")


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    text = """\
model: Flights!
workload: nothing
workDir: 3
window:
  days: 10
  holdoutDays: -1
  validationDays: soon
gate:
  alpha: 0.7
  alfa: 0.05
colour: red
"""
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, "p.yaml", {})
    lines = caught.value.message.splitlines()
    for expected in (
        "p.yaml:1 model = 'Flights!', must be lower-case",
        "p.yaml:2 workload = 'nothing', must be module:Class",
        "p.yaml:3 workDir = 3, must be text",
        "p.yaml:5 window.days = 10, must be more than 22",
        "p.yaml:6 window.holdoutDays = -1, must be above 0",
        "p.yaml:7 window.validationDays = 'soon', must be a number",
        "p.yaml:9 gate.alpha = 0.7, must be below 0.5",
        "p.yaml:10 gate.alfa is unknown",
        "p.yaml:11 colour is unknown",
    ):
        assert [line for line in lines if line.startswith(expected)], (expected, lines)
    assert len(lines) == 9


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "a: 1\n---\nb: 2\n"])
def test_what_is_no_mapping(text: str) -> None:
    with pytest.raises(ConfigError, match=r"p\.yaml"):
        parse_settings(text, "p.yaml", {})


def test_a_window_ends_at_its_moment() -> None:
    moment = datetime(2013, 4, 1, tzinfo=timezone.utc)
    span = WindowSettings(days=31).before(moment)
    assert (span.start, span.stop) == (datetime(2013, 3, 1, tzinfo=timezone.utc), moment)
