"""Rows: shapes, parts by time, the digest, and the files that they are kept in."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import FeatureError
from glowplug_pipelines.rows import Rows, read_rows, write_rows
from glowplug_pipelines.settings import Span, WindowSettings
from glowplug_pipelines.steps.dataset import Dataset, Split

_START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def rows(count: int, hours_apart: float = 1.0) -> Rows:
    event_ms = int(_START.timestamp() * 1000) + (np.arange(count) * hours_apart * 3_600_000).astype(np.int64)
    labels = np.arange(count, dtype=np.float64)
    labels[::5] = np.nan
    features = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    return Rows(features, ("a", "b"), labels, event_ms, {"kind": np.array(["x", "yy"])[np.arange(count) % 2]})


def test_rows_come_back_from_their_files(tmp_path: Path) -> None:
    made = rows(50)
    write_rows(made, tmp_path)
    read = read_rows(tmp_path)
    assert read.digest() == made.digest()
    assert (read.names, list(read.slices)) == (made.names, ["kind"])
    np.testing.assert_array_equal(read.labels, made.labels)
    (tmp_path / "labels.npy").write_bytes(b"no array")
    with pytest.raises(FeatureError, match="cannot be read"):
        read_rows(tmp_path)


def test_the_digest_sees_every_value() -> None:
    made = rows(20)
    features = made.features.copy()
    features[3, 1] += 1
    others = [
        replace(made, features=features),
        replace(made, names=("b", "a")),
        replace(made, labels=made.labels + 1),
        replace(made, event_ms=made.event_ms + 1),
        replace(made, slices={"kind": np.flip(made.slices["kind"])}),
        replace(made, slices={}),
    ]
    assert len({made.digest(), *(other.digest() for other in others)}) == 7
    assert rows(20).digest() == made.digest()


def test_columns_must_fit() -> None:
    with pytest.raises(FeatureError, match=r"features has the shape \(20, 2\), must be \(20, 1\)"):
        replace(rows(20), names=("a",))
    with pytest.raises(FeatureError, match=r"labels has the shape"):
        replace(rows(20), labels=np.zeros(3))


@given(days=st.floats(5, 60), holdout=st.floats(0.5, 2), validation=st.floats(0.5, 1), gap=st.floats(0, 36))
def test_no_row_is_in_two_parts_and_the_gap_keeps_them_apart(
    days: float, holdout: float, validation: float, gap: float
) -> None:
    made = rows(int(days * 24))
    span = Span(_START, _START + timedelta(days=days))
    window = WindowSettings(days=days, holdout_days=holdout, validation_days=validation, gap_hours=gap)
    data = Dataset(made, Split.of(span, window))
    fit, validated, held_out = data.fit, data.validation, data.held_out
    parts = [set(part.event_ms.tolist()) for part in (fit, validated, held_out)]
    assert len(set.union(*parts)) == sum(len(part) for part in parts)
    assert len(data.training) == len(fit) + len(validated)
    assert int(data.is_held_out.sum()) == len(held_out)
    if len(data.training) and len(held_out):
        assert held_out.event_ms.min() - data.training.event_ms.max() >= gap * 3_600_000 - 1
