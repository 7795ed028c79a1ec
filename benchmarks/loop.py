"""The retraining loop on the flights of a year: how long from drift to a canary, and what it is worth.

The demo as it is, then the same flights offline: by the first model alone, and by an oracle that is trained anew every
day on everything before it. The oracle knows what the loop does: features as known then, delays two days later, the
same parameters; it has no gate and no canary. It is asked about every eighth day, so that weekdays take
turns: 35 trainings instead of 275. The loop is compared with it on those days.
"""

from __future__ import annotations

import multiprocessing
import pathlib
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np

from benchmarks.results import DOCS, Result, summarise
from glowplug.cli import retraining_demo
from glowplug.features import offline
from glowplug.features.offline import open_store
from glowplug.features.offline_training import training_set
from glowplug.features.parse import parse_view
from glowplug_flights.dataset import load
from glowplug_flights.retraining_demo import DAY_MS, Plan, days, midnight_ms
from glowplug_flights.retraining_demo_plot import draw
from glowplug_flights.tables import spine
from glowplug_flights.training import Part, fit

COMMAND = "make bench-loop"
_VIEW = pathlib.Path(__file__).parent.parent / "transformers/feature-lookup/feature_view.yaml"
_WORKERS = 2
# The oracle's days that stop a training early.
_VALIDATION_DAYS = 7
_EVERY_DAYS = 8


def run() -> list[Result]:
    """Some seven minutes, of which the demo is three; draws docs/plots/loop.png."""
    plan = Plan()
    with tempfile.TemporaryDirectory(prefix="glowplug-loop-") as folder:
        data_dir = pathlib.Path(folder) / "data"
        ended = retraining_demo.run(data_dir, keep=False, plan=plan)
        asked = list(days(plan.serving, plan.stop))[::_EVERY_DAYS]
        print(f"  the oracle: {len(asked)} trainings ...", file=sys.stderr)
        oracle, is_asked = _oracle(plan, data_dir / "offline" / "flights", ended, asked)
    curves = {
        "with the loop": (ended.event_ms, ended.errors),
        "without it": (ended.event_ms, ended.errors_without),
    }
    shown = [replace(mark, label="") for mark in ended.marks if mark.what != "deployed"]
    title = "Flights out of New York, April to December 2013: arrival delay"
    draw(curves, shown, title, DOCS / "plots" / "loop.png")
    beside = float(np.abs(ended.errors[is_asked]).mean())
    return _results(ended, float(np.abs(oracle).mean()), beside, len(asked))


def _results(ended: retraining_demo.Outcome, oracle: float, beside: float, asked: int) -> list[Result]:
    counts = ", ".join(
        f"{len(ended.happened(what))} {what}" for what in ("drift", "promoted", "kept", "rolled back")
    )
    found = [
        summarise(
            "loop.mae.ratio_to_no_retraining", [ended.mae / ended.mae_without], "x", command=COMMAND, goal="< 1",
            note=f"April to December, {len(ended.errors)} flights: {ended.mae:.2f} min with the loop, mistake included,"
            f" {ended.mae_without:.2f} with the first model; {counts}; [over time](plots/loop.png)",
        ),
        summarise(
            "loop.mae.ratio_to_daily_oracle", [beside / oracle], "x", command=COMMAND,
            note=f"{beside:.2f} min with the loop against {oracle:.2f} on {asked} days, every {_EVERY_DAYS}th: the"
            f" oracle is trained for each on all flights whose delay was known two days before, the last"
            f" {_VALIDATION_DAYS} days to stop early by; no gate, no canary",
        ),
        summarise("loop.demo.s", [ended.seconds], "s", command=COMMAND, goal="< 360", note="the whole demo"),
    ]  # fmt: skip
    if ended.drift_to_canary_s:
        note = "from the drift event's acceptance to the first request of the canary: Job, run, gate, registry, start"
        found.append(
            summarise("loop.drift_to_canary.s", ended.drift_to_canary_s, "s", command=COMMAND, note=note)
        )
    return found


def _oracle(
    plan: Plan, offline_url: pathlib.Path, ended: retraining_demo.Outcome, every: list[date]
) -> tuple[Any, Any]:
    """Errors of these days in the order of the replay, and which of the replay's flights they are of."""
    view = parse_view(_VIEW.read_text(), str(_VIEW))
    with offline.connect() as connection, open_store(view, offline_url) as store:
        load(connection, plan.start, plan.stop)
        made = training_set(connection, store, spine(plan.start, plan.stop))
    known = made.features, np.asarray(made.extras["arr_delay"], dtype=np.float64), made.event_ms
    asked = ended.features, ended.event_ms
    # Not forked: this process has DuckDB's and XGBoost's threads, whose locks a fork would keep for ever.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_WORKERS, fresh, _share, (known, asked)) as pool:
        parts = list(pool.map(_day, every, [plan.rounds] * len(every)))
    starts = [midnight_ms(day) for day in every]
    is_asked = np.any(
        [(ended.event_ms >= start) & (ended.event_ms < start + DAY_MS) for start in starts], axis=0
    )
    return np.concatenate(parts) - ended.delays[is_asked], is_asked


_SHARED: dict[str, Any] = {}


def _share(known: Any, asked: Any) -> None:
    _SHARED.update(known=known, asked=asked, view=parse_view(_VIEW.read_text(), str(_VIEW)))


def _day(day: date, rounds: int) -> Any:
    """Predictions for the flights of a day, by a model of what was known two days before."""
    features, delays, event_ms = _SHARED["known"]
    asked, asked_ms = _SHARED["asked"]
    stop = midnight_ms(day - timedelta(days=Plan().label_days))
    validation = stop - _VALIDATION_DAYS * DAY_MS
    fitted, held_out = event_ms < validation, (event_ms >= validation) & (event_ms < stop)
    routes = np.zeros(len(delays), dtype=np.int8)
    parts = [Part(features[mask], delays[mask], routes[mask]) for mask in (fitted, held_out)]
    booster = fit(_SHARED["view"], parts[0], parts[1], lambda what, done, total: None, rounds).booster
    start = midnight_ms(day)
    is_asked = (asked_ms >= start) & (asked_ms < start + DAY_MS)
    return booster.inplace_predict(asked[is_asked]) if is_asked.any() else np.zeros(0)
