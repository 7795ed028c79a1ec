"""The drift detector: how often it is wrong, how long it takes, and what it makes of a real year.

False alarms are counted on streams whose days differ and in which nothing changes, beside what is usually done: a
Kolmogorov-Smirnov test of each feature every day. Delays are from a change on a known day to the event.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

from benchmarks import drift_plot
from benchmarks.drift_flights import rejudged, replayed, year
from benchmarks.drift_streams import ROWS_A_DAY, Change, textbook, watch
from benchmarks.results import DOCS, Result, Table, percentile, summarise
from glowplug.drift.config import DriftConfig
from glowplug.drift.detector import Judged

COMMAND = "make bench-drift"
CONFIG = DriftConfig()
SPREADS = (0.0, 0.25, 0.5, 1.0)
STREAMS, DAYS, TEXTBOOK_DAYS = 12, 180, 60
CHANGE_DAY, PATIENCE_DAYS = 30, 60
ERRORS, SHIFTS = (1.5, 2.0, 3.0, 4.0), (0.5, 1.0, 1.5, 2.0)
USUAL_SPREAD = 0.5
_COLUMNS = ("what", "at", "ours a day", "textbook a day", "delay rows", "low", "high", "detected %", "days")
# Windows and limits of the flights' replay beside the defaults.
_OTHERS = {
    "defaults": CONFIG,
    "windows of 7 days": replace(CONFIG, window_s=CONFIG.window_s / 2, slots=7),
    "windows of 21 days": replace(CONFIG, window_s=CONFIG.window_s * 1.5, slots=21),
    "error 1.3 times": replace(CONFIG, min_error_ratio=1.3),
    "error 1.7 times": replace(CONFIG, min_error_ratio=1.7),
}


def run() -> list[Result | Table]:
    """The curves, the metrics and the flights; draws docs/plots/drift_flights.png itself."""
    rows, results = _false_alarms()
    for what, values in (("error", ERRORS), ("features", SHIFTS)):
        more, measured = _delays(what, values)
        rows += more
        results += measured
    curves = Table(
        "drift", "Drift: false alarms and detection delay on made-up streams", _COLUMNS, rows,
        notes=(
            f"{STREAMS} streams a point, {ROWS_A_DAY} rows a day, 10 features, 90 days of training; windows of 14 days,"
            " judged daily, three of five to open an episode.",
            "Days have an effect of their own on each feature, in row's standard deviations, that fades by 0.6 a day.",
            f"Delays at a spread of {USUAL_SPREAD}; low and high are the 10th and 90th percentile.",
        ),
        plots=("plots/drift.png",),
    )  # fmt: skip
    return [*results, curves, *_flights()]


def _false_alarms() -> tuple[list[list[str | int | float | None]], list[Result]]:
    rows: list[list[str | int | float | None]] = []
    results = []
    for spread in SPREADS:
        watched = [watch(spread, seed, DAYS, CONFIG) for seed in range(STREAMS)]
        days = sum(each.days for each in watched)
        ours = sum(len(each.opened) for each in watched) / days
        alarms = [alarm for seed in range(STREAMS // 4) for alarm in textbook(spread, seed, TEXTBOOK_DAYS)]
        rows.append(["false alarms", spread, ours, statistics.mean(alarms), None, None, None, None, days])
        if spread == USUAL_SPREAD:
            samples = [len(each.opened) / each.days for each in watched]
            results.append(
                Result(
                    "drift.false_alarms_per_day", ours, "1/d", percentile(samples, 10), percentile(samples, 90),
                    len(samples), COMMAND, "< 0.01",
                    f"{days} days of {STREAMS} streams whose days differ by {spread:g} of a row's standard deviation;"
                    f" a KS test of each feature every day alarms on {100 * statistics.mean(alarms):.0f} % of the days",
                )
            )  # fmt: skip
    return rows, results


def _delays(what: str, values: Sequence[float]) -> tuple[list[list[str | int | float | None]], list[Result]]:
    rows: list[list[str | int | float | None]] = []
    results = []
    for value in values:
        change = Change(
            CHANGE_DAY,
            shift=value if what == "features" else 0.0,
            error_ratio=value if what == "error" else 1.0,
        )
        watched = [
            watch(USUAL_SPREAD, 100 + seed, CHANGE_DAY + PATIENCE_DAYS, CONFIG, change)
            for seed in range(STREAMS)
        ]
        delays = [
            float((each.opened[-1] - CHANGE_DAY + 1) * ROWS_A_DAY)
            for each in watched
            if each.opened and each.opened[-1] >= CHANGE_DAY
        ]
        found = 100 * len(delays) / len(watched)
        middle = statistics.median(delays) if delays else None
        spread = [percentile(delays, 10), percentile(delays, 90)] if delays else [None, None]
        rows.append([what, value, None, None, middle, *spread, found, None])
        if delays and value == 2.0:
            name = "drift.delay.rows" if what == "error" else "drift.delay.rows.features"
            changed = (
                "errors twice as large" if what == "error" else "all features moved by 2 standard deviations"
            )
            results.append(
                summarise(
                    name, delays, "rows", command=COMMAND,
                    note=f"{changed}, at {ROWS_A_DAY} rows a day and windows of 14 days; detected in {found:.0f} % of"
                    f" {len(watched)} streams",
                )
            )  # fmt: skip
    return rows, results


def _flights() -> list[Result | Table]:
    flights = year()
    whole, slots = replayed(flights, CONFIG)
    rows: list[list[str | int | float | None]] = []
    results: list[Result | Table] = []
    for name, config in _OTHERS.items():
        judged = whole if config is CONFIG else rejudged(flights, slots, config)
        opened = [_day(each) for each in judged if each.decision.opened]
        before = [day for day in opened if day < datetime(2013, 6, 1, tzinfo=timezone.utc)]
        largest = max(
            each.verdict.error.ratio
            for each in judged
            if each.verdict.error and _day(each) < datetime(2013, 6, 1, tzinfo=timezone.utc)
        )
        reason = next((each.verdict.reason for each in judged if each.decision.opened), "")
        rows.append(
            [name, f"{opened[0]:%Y-%m-%d}" if opened else None, len(before), len(opened), largest, reason]
        )
        if config is CONFIG:
            drift_plot.draw_flights(judged, config, DOCS / "plots" / "drift_flights.png")
            start = datetime(2013, 4, 1, tzinfo=timezone.utc)
            results.append(
                summarise(
                    "drift.flights.days_to_event", [float((opened[0] - start).days)], "d", command=COMMAND,
                    note=f"after 1 April 2013: {opened[0]:%d %B}; {len(before)} events in April and May; {reason}",
                )
            )  # fmt: skip
    table = Table(
        "drift_flights", "Drift: the flights of 2013 after a training on January to March",
        ("settings", "first event", "events before June", "events in the year", "largest error ratio before June",
         "why the first"),
        rows,
        notes=("Replayed event by event through the whole detector; labels come a day late.",),
        plots=("plots/drift_flights.png",),
    )  # fmt: skip
    return [*results, table]


def _day(judged: Judged) -> datetime:
    return datetime.fromtimestamp(judged.window.last, timezone.utc)
