"""What is sent: V2 JSON bodies, from a file or from the real flights of April 2013."""

from __future__ import annotations

import csv
import json
import math
import pathlib
from typing import Any

from glowplug.errors import ConfigError

Body = dict[str, Any]
MAX_BODIES = 200
_FORMS = "a .csv of numbers, a .jsonl with a row (an array of numbers) or a V2 body on each line, or a .json V2 body"


def from_file(path: pathlib.Path) -> list[Body]:
    """The first MAX_BODIES of the file. A row of numbers becomes an FP32 tensor `input-0` [1, n].

    Raises ConfigError, with the line, for what is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}", hint=_FORMS) from error
    if path.suffix == ".csv":
        found = _from_csv(text, path)
    elif path.suffix == ".json":
        found = [_body(text, str(path))]
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        found = [_body(line, f"{path}:{number}") for number, line in lines[:MAX_BODIES]]
    if not found:
        raise ConfigError(f"{path} holds no request", hint=_FORMS)
    return found


def flights(count: int) -> list[Body]:
    """`count` real flights by their entity ids (origin, dest, scheduled_hour, carrier, tailnum; BYTES [1] each).

    Raises ConfigError where the demo's packages are not installed.
    """
    try:
        from glowplug.features import offline
        from glowplug_flights.dataset import load
        from glowplug_flights.tables import spine
    except ImportError as error:
        raise ConfigError(
            f"the flights need the package {error.name}",
            hint="pip install 'glowplug[pipelines]', or name a file with --data",
        ) from error
    connection = offline.connect()
    try:
        load(connection, "2013-04-01", "2013-05-01")
        rows = connection.execute(
            "SELECT origin, dest, scheduled_hour, carrier, tailnum "
            f"FROM ({spine('2013-04-01', '2013-05-01')}) ORDER BY hash(flight, event_timestamp), origin LIMIT ?",
            [count],
        ).fetchall()
    finally:
        connection.close()
    names = ("origin", "dest", "scheduled_hour", "carrier", "tailnum")
    return [
        {"inputs": [_bytes_tensor(name, value) for name, value in zip(names, row, strict=True)]}
        for row in rows
    ]


def _bytes_tensor(name: str, value: str) -> Body:
    return {"name": name, "datatype": "BYTES", "shape": [1], "data": [value]}


def _from_csv(text: str, path: pathlib.Path) -> list[Body]:
    found: list[Body] = []
    for number, cells in enumerate(csv.reader(text.splitlines()), 1):
        if not cells or len(found) == MAX_BODIES:
            continue
        try:
            found.append(_row([float(cell) for cell in cells], f"{path}:{number}"))
        except ValueError:
            # The first line may name the columns.
            if number > 1:
                raise ConfigError(f"{path}:{number} is not a row of numbers", hint=_FORMS) from None
    return found


def _body(text: str, where: str) -> Body:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}", hint=_FORMS) from error
    if isinstance(value, dict) and isinstance(value.get("inputs"), list):
        return value
    if isinstance(value, list) and value and all(type(each) in (int, float) for each in value):
        return _row([float(each) for each in value], where)
    raise ConfigError(f"{where} is neither a V2 body nor a row of numbers", hint=_FORMS)


def _row(values: list[float], where: str) -> Body:
    if not all(map(math.isfinite, values)):
        raise ConfigError(f"{where} holds a number that is not finite")
    return {"inputs": [{"name": "input-0", "datatype": "FP32", "shape": [1, len(values)], "data": values}]}
