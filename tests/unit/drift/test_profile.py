"""The profile's file: what is written is what is read, and what is none says so."""

from __future__ import annotations

import base64
import datetime
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.drift.streams import DAYS, NAMES, START, predicted, profile, rows

from glowplug.drift.profile import Profile
from glowplug.errors import FeatureError

ENDED = START + datetime.timedelta(days=DAYS)


def test_it_is_read_as_it_was_written() -> None:
    made = profile(importance=[1.0, 2.0, 1.0])
    found = Profile.from_json(made.to_json())
    assert (found.blocks == made.blocks).all()
    assert found.names == NAMES
    assert found.digest == made.digest
    assert found.shares.tolist() == [0.25, 0.5, 0.25]
    assert found.rows == 20_000
    assert (found.started, found.ended, found.block_s) == (START, ENDED, 86400.0)
    assert found.errors is not None
    assert made.errors is not None
    assert found.errors.level == made.errors.level
    assert (found.errors.absolute == made.errors.absolute).all()


def test_blocks_are_days_by_the_rows_own_times_or_by_their_order() -> None:
    random = np.random.default_rng(3)
    features = rows(random, 4000)
    at_ms = (START.timestamp() * 1000 + random.uniform(0, DAYS * 86_400_000, 4000)).astype(np.int64)
    by_time = Profile.of(features, NAMES, predicted(features), started=START, ended=ENDED, at_ms=at_ms)
    days = ((at_ms / 1000 - START.timestamp()) // 86400).astype(int)
    assert by_time.blocks[:, -1].sum(axis=-1).tolist() == np.bincount(days, minlength=DAYS).tolist()
    by_order = Profile.of(features, NAMES, predicted(features), started=START, ended=ENDED)
    assert by_order.blocks[:, -1].sum(axis=-1).tolist() == [100] * DAYS
    assert by_time.errors is None


def test_the_level_of_the_error_is_that_of_the_held_out_rows() -> None:
    features = rows(np.random.default_rng(4), 2000)
    answers = predicted(features)
    held_out = np.arange(2000) >= 1500
    labels = answers + np.where(held_out, 3, 1).astype(np.float32)
    found = Profile.of(features, NAMES, answers, labels, started=START, ended=ENDED, held_out=held_out)
    assert found.errors is not None
    assert found.errors.level == pytest.approx(3)
    assert found.errors.rows.sum() == 2000
    labels[held_out] = np.nan
    without = Profile.of(features, NAMES, answers, labels, started=START, ended=ENDED, held_out=held_out)
    assert without.errors is not None
    assert without.errors.level == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": ("a", "b")}, "expected [rows, 2]"),
        ({"names": ("a", "b", "b")}, "each once"),
        ({"predictions": np.zeros(3, np.float32)}, "predictions have shape [3], expected [10]"),
        ({"labels": np.zeros((10, 1), np.float32)}, "labels have shape [10, 1]"),
        ({"importance": [1.0, -1.0, 2.0]}, "each 0 or more"),
        ({"ended": START}, "expected a later end"),
        ({"features": np.zeros((0, 3), np.float32), "predictions": np.zeros(0, np.float32)}, "shape [0, 3]"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, said) -> None:
    given = {
        "features": np.zeros((10, 3), np.float32), "names": NAMES, "predictions": np.zeros(10, np.float32),
        "started": START, "ended": ENDED, **changes,
    }  # fmt: skip
    with pytest.raises(FeatureError) as caught:
        Profile.of(given.pop("features"), given.pop("names"), given.pop("predictions"), **given)
    assert said in caught.value.message


def _changed(**changes: object) -> bytes:
    return json.dumps({**json.loads(profile(500).to_json()), **changes}).encode()


BAD = {
    "no JSON": b"{",
    "no object": b"[]",
    "another version": b'{"version": 2}',
    "nothing in it": b'{"version": 1}',
    "no base64": _changed(counts="%%%"),
    "no zlib": _changed(counts="AAAA"),
    "counts too short": _changed(counts=base64.b64encode(zlib.compress(b"\0" * 8)).decode()),
    "a bomb": _changed(counts=base64.b64encode(zlib.compress(b"\0" * 50_000_000, 9)).decode()),
    "edges that fall": _changed(prediction={"edges": [2, 1]}),
    "edges that are none": _changed(prediction={"edges": [1e39]}),
    "too many edges": _changed(prediction={"edges": list(range(100))}),
    "no blocks": _changed(blocks=0),
    "blocks of no time": _changed(block_s=0),
    "a name twice": _changed(features=[{"name": "a", "edges": [1]}] * 3),
    "an importance of words": _changed(importance=["x", "y", "z"]),
    "errors that are none": _changed(errors={"rows": [1], "absolute": [1], "squares": [1], "level": 1}),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_profile_is_an_error_that_says_so(content) -> None:
    with pytest.raises(FeatureError):
        Profile.from_json(content)


@given(st.binary(max_size=200))
def test_nothing_else_is_ever_raised(content) -> None:
    with pytest.raises(FeatureError):
        Profile.from_json(content)
