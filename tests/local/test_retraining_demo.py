"""The whole loop in a small form: a poor first model, a month of half of the flights, one mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from unit.features.lab import FLIGHTS_VIEW

from glowplug.cli import retraining_demo
from glowplug.cli.retraining_demo import Outcome
from glowplug_flights.retraining_demo import Plan

# MLflow's own imports warn of what its dependencies deprecate.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # A minute on a quiet computer; the time is for one that many others use.
    pytest.mark.timeout(600),
]
# A first model of two trees is so poor that a real one is better by any proof; so the detector may be told to fire at
# the first window whose error is above that of the training, and a month is enough for all of it.
PLAN = Plan(
    start="2013-03-01",
    serving="2013-04-01",
    mistake="2013-04-20",
    stop="2013-05-01",
    share=0.5,
    label_days=1,
    rows_in_rollout=8,
    tables=1,
    first_rounds=2,
    rounds=80,
    interval="1s",
    drift={
        "window_days": "3",
        "slots": "3",
        "needed": "1",
        "of": "1",
        "min_error_ratio": "1",
        "level": "0.5",
    },
    gate={"sliceMinRows": 1000},
    window={
        "days": 31,
        "holdoutDays": 7,
        "validationDays": 4,
        "minTrainingRows": 2000,
        "minHoldoutRows": 500,
    },
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    assert FLIGHTS_VIEW.exists()
    data_dir = tmp_path_factory.mktemp("loop") / "data"
    ended = retraining_demo.run(data_dir, keep=False, plan=PLAN)
    left = [
        each
        for each in psutil.process_iter(["cmdline"])
        if str(data_dir) in " ".join(each.info["cmdline"] or ())
    ]
    assert left == [], "nothing is left running"
    return ended


def test_drift_makes_a_better_model_that_gets_all_requests(outcome: Outcome) -> None:
    drift, promoted = outcome.happened("drift"), outcome.happened("promoted")
    assert drift and promoted
    assert drift[0].at_ms < promoted[0].at_ms
    assert outcome.drift_to_canary_s and min(outcome.drift_to_canary_s) > 0
    # Until the mistake, which a tenth of the requests has for some days.
    (stopped,) = outcome.happened("stopped by the gate")
    between = (outcome.event_ms > promoted[0].at_ms) & (outcome.event_ms < stopped.at_ms)
    assert between.sum() > 500
    with_it, without = (np.abs(each[between]).mean() for each in (outcome.errors, outcome.errors_without))
    assert with_it < 0.97 * without


def test_before_that_what_was_served_is_what_the_first_model_says_of_the_offline_rows(
    outcome: Outcome,
) -> None:
    before = outcome.event_ms < outcome.happened("drift")[0].at_ms
    assert before.sum() > 100
    np.testing.assert_allclose(outcome.errors[before], outcome.errors_without[before], atol=1e-4)


def test_a_mistake_is_stopped_by_the_gate_and_past_it_rolled_back_for_its_loss(outcome: Outcome) -> None:
    stopped, rolled_back = outcome.happened("stopped by the gate"), outcome.happened("rolled back")
    assert len(stopped) == 1 and outcome.gate_reason
    assert len(rolled_back) == 1 and "loss" in outcome.rollback_reason
    (version,) = outcome.rejected
    assert outcome.champion != version
    assert "loss" in outcome.rejected[version]
    # Nobody has it afterwards.
    after = outcome.event_ms > rolled_back[0].at_ms
    assert after.any()
    assert np.abs(outcome.errors[after]).mean() < 1.05 * np.abs(outcome.errors_without[after]).mean()


def test_the_picture_is_there(outcome: Outcome) -> None:
    assert Path(outcome.picture).read_bytes().startswith(b"\x89PNG")
