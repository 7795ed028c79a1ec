"""The reference profile: what a model's training data were like, in a file beside the model.

It has counts and no rows: a grid for each feature and for the prediction, and how the rows of each block (a day of
training, as a rule) fell into it. The blocks are what false alarms are kept down with: days differ, and by how much
they do among themselves is the scale on which later days are judged. `nulls` reads that off them.

A file of 90 days and 50 features is about 150 KB.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from glowplug.drift.grid import MAX_EDGES, Counts, Floats, Grid, Table
from glowplug.errors import FeatureError

PROFILE_FILE = "profile.json"
VERSION = 1
MAX_BLOCKS = 182
MAX_FEATURES = 4096
# Below that a block's own distribution says little, and blocks are made longer.
MIN_BLOCK_ROWS = 50
_DAY_S = 86400.0
_LARGEST = float(np.finfo(np.float32).max)
_HINT = "profiles are written at training, by glowplug.drift.profile.Profile"

Bools: TypeAlias = npt.NDArray[np.bool_]
Doubles: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Errors:
    """The model's errors by block: `rows` with a label, sums of absolute errors and of squares, [blocks] each.

    `level` is the mean absolute error to expect: of the rows that the model was not fitted to, where they were named.
    """

    rows: Counts
    absolute: Doubles
    squares: Doubles
    level: float


@dataclass(frozen=True)
class Profile:
    """What training was like. `blocks` are int64 [blocks, features + 1, cells]: the prediction is the last feature."""

    names: tuple[str, ...]
    table: Table = field(repr=False)
    blocks: Counts = field(repr=False)
    block_s: float
    started: datetime
    ended: datetime
    errors: Errors | None = None
    weights: Doubles | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        features: Floats,
        names: Sequence[str],
        predictions: Floats,
        labels: Floats | None = None,
        *,
        started: datetime,
        ended: datetime,
        at_ms: npt.NDArray[np.int64] | None = None,
        held_out: Bools | None = None,
        importance: Sequence[float] | None = None,
    ) -> Profile:
        """The profile of the training rows: `features` [n, f], `predictions` and `labels` [n]; NaN is missing.

        Rows are in time's order, unless `at_ms` (UTC, epoch) says when each was. `held_out` marks the rows that the
        model was not fitted to: errors on the others are too small to compare with. `importance` of each feature
        weighs it where shares of drifted features are asked; default: all alike. Raises FeatureError.
        """
        given = _checked(features, names, predictions, labels, started, ended, held_out, importance)
        matrix, predicted, actual = given
        place, count, block_s = _blocks(len(matrix), started, ended, at_ms)
        columns = [*matrix.T, predicted]
        table = Table(tuple(Grid.of(column) for column in columns))
        order = np.argsort(place, kind="stable")
        parts = np.split(order, np.searchsorted(place[order], np.arange(1, count)))
        blocks: Counts = np.zeros((count, len(columns), table.width), dtype=np.int64)
        for block, rows in enumerate(parts):
            blocks[block] = table.count([column[rows] for column in columns])
        errors = None if actual is None else _errors(actual - predicted, place, count, held_out)
        weights = None if importance is None else np.asarray(importance, dtype=np.float64)
        return cls(tuple(names), table, blocks, block_s, _utc(started), _utc(ended), errors, weights)

    @property
    def rows(self) -> int:
        return int(self.blocks[:, -1, :].sum())

    @cached_property
    def shares(self) -> Doubles:
        """[features] that sum to 1: what each counts for among the drifted ones."""
        if self.weights is None or not self.weights.sum():
            return np.full(len(self.names), 1 / max(1, len(self.names)))
        return np.asarray(self.weights / self.weights.sum())

    @cached_property
    def digest(self) -> str:
        """Tells profiles apart; what was counted against another one is of no use."""
        document = orjson.dumps(self._document())
        return hashlib.sha256(document + self.blocks.astype("<u4").tobytes()).hexdigest()[:16]

    def to_json(self) -> bytes:
        """The file's content."""
        counts = base64.b64encode(zlib.compress(self.blocks.astype("<u4").tobytes(), 6)).decode()
        return orjson.dumps({**self._document(), "counts": counts})

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "version": VERSION,
            "rows": self.rows,
            "from": self.started.isoformat(),
            "to": self.ended.isoformat(),
            "block_s": self.block_s,
            "features": [
                {"name": name, "edges": _numbers(grid.edges)}
                for name, grid in zip(self.names, self.table.grids[:-1], strict=True)
            ],
            "prediction": {"edges": _numbers(self.table.grids[-1].edges)},
            "blocks": len(self.blocks),
        }
        if self.weights is not None:
            document["importance"] = self.weights.tolist()
        if self.errors is not None:
            document["errors"] = {
                "rows": self.errors.rows.tolist(),
                "absolute": self.errors.absolute.tolist(),
                "squares": self.errors.squares.tolist(),
                "level": self.errors.level,
            }
        return document

    @classmethod
    def from_json(cls, content: bytes) -> Profile:
        """The profile in a file. Raises FeatureError."""
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise FeatureError(f"the profile is not JSON: {error}", hint=_HINT) from None
        if type(document) is not dict or document.get("version") != VERSION:
            found = document.get("version") if type(document) is dict else type(document).__name__
            raise FeatureError(f"the profile's version is {found!r}, expected {VERSION}", hint=_HINT)
        try:
            return _read(document)
        except (KeyError, TypeError, ValueError, OverflowError, zlib.error, binascii.Error) as error:
            raise FeatureError(
                f"the profile cannot be read: {type(error).__name__}: {error}", hint=_HINT
            ) from error


def _checked(
    features: Floats,
    names: Sequence[str],
    predictions: Floats,
    labels: Floats | None,
    started: datetime,
    ended: datetime,
    held_out: Bools | None,
    importance: Sequence[float] | None,
) -> tuple[Floats, Floats, Floats | None]:
    matrix = np.asarray(features, dtype=np.float32)
    predicted = np.asarray(predictions, dtype=np.float32)
    actual = None if labels is None else np.asarray(labels, dtype=np.float32)
    problems = []
    if matrix.ndim != 2 or matrix.shape[1] != len(names) or not matrix.size:
        problems.append(f"features have shape {list(matrix.shape)}, expected [rows, {len(names)}]")
    if len(names) > MAX_FEATURES or len(set(names)) != len(names):
        problems.append(f"{len(names)} names, expected at most {MAX_FEATURES}, each once")
    rows = (len(matrix),)
    for what, found in (("predictions", predicted), ("labels", actual), ("held_out", held_out)):
        if found is not None and found.shape != rows:
            problems.append(f"{what} have shape {list(found.shape)}, expected {list(rows)}")
    if importance is not None and (
        len(importance) != len(names) or not all(0 <= value < math.inf for value in importance)
    ):
        problems.append(f"importance: {len(importance)} numbers, expected {len(names)}, each 0 or more")
    if not _utc(started) < _utc(ended):
        problems.append(f"the rows are from {started} to {ended}, expected a later end")
    if problems:
        raise FeatureError("; ".join(problems), hint="one row a training row, one name a feature")
    return matrix, predicted, actual


def _blocks(
    rows: int, started: datetime, ended: datetime, at_ms: npt.NDArray[np.int64] | None
) -> tuple[npt.NDArray[np.intp], int, float]:
    """Each row's block, how many blocks there are, and a block's seconds."""
    span_s = (_utc(ended) - _utc(started)).total_seconds()
    # Whole days where the rows allow: hours of a day differ more than days do.
    most = max(2, min(MAX_BLOCKS, rows // MIN_BLOCK_ROWS))
    block_s = _DAY_S * math.ceil(span_s / _DAY_S / most) if span_s >= 8 * _DAY_S else span_s / min(32, most)
    count = max(1, math.ceil(span_s / block_s))
    if at_ms is None:
        position = np.arange(rows) * (span_s / rows / block_s)
    else:
        at = np.asarray(at_ms, dtype=np.float64) / 1000 - _utc(started).timestamp()
        position = at / block_s
    return np.clip(position.astype(np.intp), 0, count - 1), count, block_s


def _errors(
    differences: Floats, place: npt.NDArray[np.intp], count: int, held_out: Bools | None
) -> Errors | None:
    absolute = np.abs(np.asarray(differences, dtype=np.float64))
    is_known = np.isfinite(absolute)
    if not is_known.any():
        return None
    judged = is_known if held_out is None else is_known & held_out
    level = float(absolute[judged if judged.any() else is_known].mean())
    place, absolute = place[is_known], absolute[is_known]
    return Errors(
        rows=np.bincount(place, minlength=count).astype(np.int64),
        absolute=np.bincount(place, weights=absolute, minlength=count),
        squares=np.bincount(place, weights=absolute**2, minlength=count),
        level=level,
    )


def _read(document: Mapping[str, Any]) -> Profile:
    columns = [*document["features"], document["prediction"]]
    table = Table(tuple(Grid(_edges(column["edges"])) for column in columns))
    names = tuple(str(column["name"]) for column in document["features"])
    if len(names) > MAX_FEATURES or len(set(names)) != len(names):
        raise ValueError(f"{len(names)} features, expected at most {MAX_FEATURES}, each once")
    count = int(document["blocks"])
    if not 1 <= count <= 2 * MAX_BLOCKS:
        raise ValueError(f"{count} blocks")
    shape = (count, len(columns), table.width)
    size = 4 * math.prod(shape)
    unpacker = zlib.decompressobj()
    # A byte more than there should be, so that a longer one is noticed and never unpacked.
    packed = unpacker.decompress(base64.b64decode(document["counts"], validate=True), size + 1)
    if len(packed) != size:
        raise ValueError(f"the counts have not the {size} bytes of {shape}")
    blocks = np.frombuffer(packed, dtype="<u4").astype(np.int64).reshape(shape)
    errors = document.get("errors")
    weights = document.get("importance")
    return Profile(
        names=names,
        table=table,
        blocks=blocks,
        block_s=_positive(document["block_s"]),
        started=datetime.fromisoformat(document["from"]),
        ended=datetime.fromisoformat(document["to"]),
        errors=None if errors is None else _read_errors(errors, count),
        weights=None if weights is None else _row(weights, len(names)),
    )


def _read_errors(errors: Mapping[str, Any], count: int) -> Errors:
    rows, absolute, squares = (_row(errors[key], count) for key in ("rows", "absolute", "squares"))
    return Errors(rows.astype(np.int64), absolute, squares, _positive(errors["level"], zero=True))


def _row(values: Any, count: int) -> Doubles:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (count,) or not np.isfinite(found).all() or (found < 0).any():
        raise ValueError(f"{count} numbers expected, each 0 or more")
    return found


def _positive(value: Any, *, zero: bool = False) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{number}, expected more than 0")
    return number


def _edges(values: Any) -> npt.NDArray[np.float32]:
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or len(given) > MAX_EDGES + 1:
        raise ValueError(f"{given.size} edges, expected at most {MAX_EDGES + 1}")
    edges = np.clip(given, -_LARGEST, _LARGEST).astype(np.float32)
    if not (np.isfinite(given).all() and (edges == given).all() and (np.diff(edges) > 0).all()):
        raise ValueError("edges must ascend and be finite")
    return edges


def _numbers(values: npt.NDArray[np.float32]) -> list[float]:
    return [float(value) for value in values]


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
