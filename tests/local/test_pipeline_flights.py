"""The flights pipeline on some weeks of real flights, step by step by its commands, and a source that has changed."""

from __future__ import annotations

import itertools
import json
import shutil
from datetime import datetime, timezone
from pathlib import Path

import duckdb
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result
from unit.features.lab import FLIGHTS_VIEW
from unit.registry.lab import with_tables

from glowplug.cli.pipelines import app
from glowplug.errors import FeatureError
from glowplug.features import offline
from glowplug.features.parse import parse_view, read_view
from glowplug.registry.models import download
from glowplug_flights.tables import build_tables
from glowplug_flights.workload import Flights
from glowplug_pipelines.run import read_status
from glowplug_pipelines.settings import Settings, read_settings
from glowplug_pipelines.workload import silent
from glowplug_xgboost.files import read_model

# MLflow's own imports warn of what its dependencies deprecate.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Seconds on a quiet computer; the time is for one that many others use.
    pytest.mark.timeout(600),
]
_START, _STOP = "2013-03-01", "2013-04-01"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The offline tables of March, and settings for a month."""
    place = tmp_path_factory.mktemp("flights")
    registry = with_tables(place / "mlflow", tmp_path_factory)
    (place / "pipeline.yaml").write_text(
        yaml.safe_dump(
            {
                "model": "flights",
                "workload": "glowplug_flights.workload:Flights",
                "workDir": str(place / "work"),
                "offline": {"url": str(place / "offline")},
                "registry": {"uri": registry.uri, "artifacts": registry.artifacts},
                "window": {"days": 31, "holdoutDays": 7, "validationDays": 4, "minTrainingRows": 5000},
                "options": {"rounds": 40, "featureView": str(FLIGHTS_VIEW)},
            }
        )
    )
    view = read_view(FLIGHTS_VIEW)
    with offline.connect() as connection, offline.open_store(view, str(place / "offline")) as store:
        build_tables(connection, store, _START, _STOP, silent)
    return place


@pytest.fixture(scope="module")
def settings(place: Path) -> Settings:
    return read_settings(place / "pipeline.yaml", {})


def command(place: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--settings", str(place / "pipeline.yaml")])


def test_step_by_step(place: Path, settings: Settings) -> None:
    done = command(place, "dataset", "--run", "march", "--to", _STOP)
    assert done.exit_code == 0, done.output
    assert "rows to train with" in done.output
    steps = ("train", "evaluate", "profile", "gate", "register", "promote")
    for step, following in itertools.pairwise(steps):
        # Three weeks to train with are not enough to be sure.
        force = ["--force"] if step == "register" else []
        done = command(place, step, "--run", "march", *force)
        assert done.exit_code == 0, done.output
        assert f"pipelines {following} " in done.output
    verdict = json.loads((place / "work/flights/march/gate.json").read_text())["values"]
    assert f"run march: {verdict['verdict']}: {verdict['reason']}" in done.output
    assert "the naive baseline" in verdict["reason"]
    again = command(place, "train", "--run", "march")
    assert "(as before)" in again.output
    shown = command(place, "status")
    assert shown.stdout.startswith(f"march  finished  {verdict['verdict']}  better: ")
    promoted = command(place, "promote", "1")
    assert promoted.exit_code == 0, promoted.output
    version = download(settings.registry, "flights", "champion", place / "champion")
    assert version.tags["glowplug.dev/schema-hash"] == read_view(FLIGHTS_VIEW).schema_hash
    names = {path.name for path in (place / "champion").iterdir()}
    assert names == {"MLmodel", "card", "feature_view.yaml", "model.ubj", "profile.json"}
    outcome = json.loads((place / "work/flights/march/dataset.json").read_text())["values"]
    # What landed after the window's end is not known yet.
    assert 0 < outcome["rows"] - outcome["labelled"] < 1000


def test_the_predictor_takes_what_was_registered(place: Path, settings: Settings) -> None:
    """The other files beside the model are not taken for one."""
    folder = place / "served"
    download(settings.registry, "flights", "1", folder)
    assert read_model(str(folder))[0].name == "model.ubj"


def test_the_same_window_gives_the_same_rows_and_model(
    place: Path, settings: Settings, tmp_path: Path
) -> None:
    workload = Flights(settings)
    span = settings.window.before(datetime(2013, 4, 1, tzinfo=timezone.utc))
    one, two = workload.rows(span, silent), workload.rows(span, silent)
    assert one.digest() == two.digest()
    known = one.where(one.is_labelled)
    assert np.all(np.diff(known.event_ms) >= 0)
    fit, validation = known.where(np.arange(len(known)) % 4 > 0), known.where(np.arange(len(known)) % 4 == 0)
    for name in ("one", "two"):
        workload.train(fit, validation, tmp_path / name, silent)
    assert (tmp_path / "one/model.ubj").read_bytes() == (tmp_path / "two/model.ubj").read_bytes()


def test_a_source_that_has_changed_ends_the_run_and_says_where(place: Path, settings: Settings) -> None:
    """A feature is added to the view, and the tables do not have it yet."""
    text = FLIGHTS_VIEW.read_text().replace(
        "- {name: hour_sin,", "- {name: hour_tan, dtype: float32, default: 0}\n        - {name: hour_sin,"
    )
    assert parse_view(text).schema_hash != read_view(FLIGHTS_VIEW).schema_hash
    changed = place / "changed"
    changed.mkdir()
    (changed / "feature_view.yaml").write_text(text)
    written = yaml.safe_load((place / "pipeline.yaml").read_text())
    written["options"]["featureView"] = str(changed / "feature_view.yaml")
    (changed / "pipeline.yaml").write_text(yaml.safe_dump(written))
    done = command(changed, "run", "--run", "changed", "--to", _STOP)
    assert isinstance(done.exception, FeatureError)
    assert "route_hour" in done.exception.message
    status = read_status(place / "work/flights/changed")
    assert status is not None
    assert (status.state, status.step, status.reason) == ("failed", "dataset", done.exception.message)


def test_a_column_that_went_away_ends_the_run(place: Path, settings: Settings, tmp_path: Path) -> None:
    shutil.copytree(place / "offline", tmp_path / "offline")
    for path in (tmp_path / "offline").rglob("carrier_hour/*.parquet"):
        draft = path.with_suffix(".draft")
        duckdb.execute(
            f"COPY (SELECT * EXCLUDE (carrier_late_share_7d) FROM read_parquet('{path}')) TO '{draft}' (FORMAT parquet)"
        )
        draft.replace(path)
    written = yaml.safe_load((place / "pipeline.yaml").read_text())
    written["offline"]["url"] = str(tmp_path / "offline")
    written["workDir"] = str(tmp_path / "work")
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(written))
    done = command(tmp_path, "run", "--run", "gone", "--to", _STOP)
    assert isinstance(done.exception, FeatureError), done.output
    assert "carrier_hour" in done.exception.message
    status = read_status(tmp_path / "work/flights/gone")
    assert status is not None
    assert status.state == "failed"


def test_a_window_without_flights(place: Path) -> None:
    done = command(place, "run", "--run", "empty", "--to", "2012-01-01")
    assert isinstance(done.exception, FeatureError)
    assert "has no rows" in done.exception.message


def test_help_has_examples() -> None:
    names = [
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    ]
    assert {"dataset", "train", "evaluate", "profile", "gate", "register", "deploy", "run", "retrain"} <= set(
        names
    )
    for name in names:
        shown = CliRunner().invoke(app, [name, "--help"])
        assert f"Example: glowplug pipelines {name}" in shown.output
