"""What a retraining costs beside the training that it is for, and what a registry looks like after 50 kills.

Overhead: a whole run (training set, training, champion fetched and asked, profile, gate, card, registered) against
the plain calls that a notebook would make of the same rows: the training set, the same split, the training, the model
written. Each in a process of its own, by turns, with the workload's modules imported and the registry's tables made;
to import MLflow and matplotlib is a part of the run.

What bounds the overhead is fixed, and so is large beside a training of four seconds: about 2.4 s of processor time to
import MLflow, SQLAlchemy and matplotlib, in a thread while rows are read and the model is trained, but on the same
interpreter and cores; then 1.2 s of profile, pictures, evaluation and registration. Of a training of 36 s that would
be 10 %.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

from benchmarks.results import Result
from benchmarks.rounds import Options

COMMAND = "make bench-pipelines"
KILLS = 50
_ROUNDS, _QUICK_ROUNDS = 5, 2
_ROOT = pathlib.Path(__file__).parent.parent
_SETTINGS = _ROOT / "pipelines/flights/pipeline.yaml"
_FIRST, _NOW = datetime(2013, 4, 1, tzinfo=timezone.utc), datetime(2013, 7, 1, tzinfo=timezone.utc)


def run(options: Options) -> list[Result]:
    """Both measurements; `--quick` takes 2 rounds and 10 kills."""
    with tempfile.TemporaryDirectory(prefix="glowplug-pipelines-") as folder:
        place = pathlib.Path(folder)
        overheads = _overheads(place / "flights", _QUICK_ROUNDS if options.quick else _ROUNDS)
        killed = _child("kills", place / "kills", 10 if options.quick else KILLS)
    return [
        Result(
            "loop.overhead.percent", statistics.median(overheads), "%", min(overheads), max(overheads),
            len(overheads), COMMAND, "< 10",
            "a whole run's wall time above that of the training set, training and writing of the model alone, flights",
        ),
        Result(
            "registry.half_registered", len(killed["half"]), "versions", len(killed["half"]), len(killed["half"]),
            killed["hits"], COMMAND, "0", f"{killed['hits']} kill -9 at random moments of {killed['runs']} runs, "
            f"{killed['registering']} while they registered",
        ),
    ]  # fmt: skip


def _overheads(place: pathlib.Path, rounds: int) -> list[float]:
    _child("prepare", place, 0)
    overheads = []
    for number in range(rounds):
        seconds: dict[str, float] = {}
        for what in ("plain", "whole") if number % 2 else ("whole", "plain"):
            seconds[what] = _child(what, place, number)["seconds"]
        overheads.append(100 * (seconds["whole"] / seconds["plain"] - 1))
        print(f"  plain {seconds['plain']:.2f} s, whole {seconds['whole']:.2f} s", file=sys.stderr)
    return overheads


def _child(what: str, place: pathlib.Path, number: int) -> dict[str, Any]:
    paths = os.pathsep.join(str(_ROOT / each) for each in ("", "src", "pipelines/src", "tests"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.pipelines", what, str(place), str(number)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        check=True,
        cwd=_ROOT,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _settings(place: pathlib.Path) -> Any:
    from glowplug.registry.models import RegistryConfig
    from glowplug_pipelines.settings import read_settings

    return replace(
        read_settings(_SETTINGS, {}),
        offline_url=str(place / "offline"),
        registry=RegistryConfig.local(place / "mlflow"),
        work_dir=place / "work",
    )


def _prepare(place: pathlib.Path) -> dict[str, Any]:
    """The offline tables, and a champion to compare with."""
    from glowplug.features import offline
    from glowplug.registry.aliases import promote
    from glowplug_flights.tables import build_tables
    from glowplug_flights.workload import Flights
    from glowplug_pipelines.execution import execute
    from glowplug_pipelines.run import Request
    from glowplug_pipelines.workload import silent

    settings = _settings(place)
    view = Flights(settings).view
    with offline.connect() as connection, offline.open_store(view, settings.offline_url) as store:
        build_tables(connection, store, "2013-01-01", "2013-07-01", silent)
    request = Request("first", "flights", settings.window.before(_FIRST))
    version = execute(settings, request, is_forced=True).version
    assert version is not None
    promote(settings.registry, "flights", version.version)
    return {}


def _plain(place: pathlib.Path, number: int) -> dict[str, Any]:
    from glowplug_flights.workload import Flights
    from glowplug_pipelines.steps.dataset import Dataset, Split
    from glowplug_pipelines.workload import silent

    settings = _settings(place)
    model = place / "plain" / str(number)
    started = time.perf_counter()
    workload = Flights(settings)
    span = settings.window.before(_NOW)
    rows = workload.rows(span, silent)
    data = Dataset(rows.where(rows.is_labelled), Split.of(span, settings.window))
    workload.train(data.fit, data.validation, model, silent)
    return {"seconds": time.perf_counter() - started}


def _whole(place: pathlib.Path, number: int) -> dict[str, Any]:
    import glowplug_flights.workload  # noqa: F401 - as the plain call has it imported
    from glowplug_pipelines.execution import execute
    from glowplug_pipelines.run import Request

    settings = _settings(place)
    started = time.perf_counter()
    finished = execute(
        settings, Request(f"r-{number}", "flights", settings.window.before(_NOW)), is_forced=True
    )
    seconds = time.perf_counter() - started
    assert finished.version is not None
    return {"seconds": seconds}


def _kills(place: pathlib.Path, number: int) -> dict[str, Any]:
    from local.pipeline_kills import kill_again_and_again, make_registry

    killed = kill_again_and_again(
        place / "work", make_registry(place / "mlflow"), "toy", number, seed=int(time.time())
    )
    for each in killed.half:
        print(each, file=sys.stderr)
    return asdict(killed)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("prepare", "plain", "whole", "kills"))
    parser.add_argument("place", type=pathlib.Path)
    parser.add_argument("number", type=int)
    asked = parser.parse_args()
    if asked.what == "prepare":
        answer = _prepare(asked.place)
    else:
        answer = {"plain": _plain, "whole": _whole, "kills": _kills}[asked.what](asked.place, asked.number)
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
