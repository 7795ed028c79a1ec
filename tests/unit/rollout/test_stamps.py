"""The id of the predictor's version, in the write that makes it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from unit.rollout.rollout_lab import KServe, container, service

from glowplug.rollout.admission import admit
from glowplug.spec import names, pairs

Object = dict[str, Any]
METRICS = frozenset({"errors", "latency", "loss"})
ASKED = {"rollout_steps": "10,50", "rollout_gates": "loss<=1.1x"}


def written(old: Object | None, new: Object) -> Object:
    """What is stored; asked a second time, as the API may, it stays so."""
    found = admit(old, copy.deepcopy(new), METRICS, 1000.0) or new
    assert admit(old, copy.deepcopy(found), METRICS, 1001.0) is None
    return found


def asking(version: str = "one", **asked: str) -> Object:
    isvc = service(**(asked or ASKED))
    isvc["spec"]["predictor"] = {**container(version), "logger": {"mode": "all"}}
    return isvc


def first(isvc: Object | None = None) -> Object:
    """The first version, rolled out."""
    return KServe(written(None, isvc or asking())).isvc


def version(isvc: Object) -> str | None:
    found: str | None = (isvc["spec"]["predictor"].get("annotations") or {}).get(names.VERSION)
    return found


def changed(old: Object, **more: Any) -> Object:
    new = copy.deepcopy(old)
    new["spec"]["predictor"].update(more)
    return new


def test_each_version_has_an_id_of_its_own_and_the_logger_tells_it() -> None:
    one = first(changed(asking(), logger={"mode": "all", "metadataAnnotations": ["example.com/team"]}))
    assert one["spec"]["predictor"]["logger"]["metadataAnnotations"] == ["example.com/team", names.VERSION]
    two = written(one, changed(one, **container("two")))
    back = written(two, changed(two, **container("one")))
    assert len({version(one), version(two), version(back), None}) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"minReplicas": 3},
        {"labels": {"team": "a"}},
        {"logger": {"mode": "response"}},
        {"annotations": {"example.com/note": "x"}},
        {"canaryTrafficPercent": 20},
    ],
)
def test_what_is_no_new_version_keeps_its_id(change: Object) -> None:
    one = first()
    found = written(one, changed(one, **change))
    assert version(found) == version(one) is not None
    assert found["spec"]["predictor"]["logger"]["metadataAnnotations"] == [names.VERSION]


def test_who_replaces_the_object_makes_no_revision_by_it() -> None:
    one = first()
    assert written(one, {**asking(), "status": one["status"]})["spec"] == one["spec"]


def test_it_is_stamped_where_losses_are_asked_for_and_told_of() -> None:
    silent = asking()
    del silent["spec"]["predictor"]["logger"]
    for isvc in (silent, asking(rollout_steps="10"), asking(rollout_gates="loss<=1.1x")):
        assert written(None, isvc) == isvc


def test_to_ask_for_the_gate_stamps_what_runs_and_to_drop_it_changes_nothing() -> None:
    plain = first(asking(rollout_steps="10,50"))
    new = copy.deepcopy(plain)
    new["metadata"]["annotations"][names.ROLLOUT_GATES] = "loss<=1.1x"
    asked = written(plain, new)
    assert version(asked)
    dropped = copy.deepcopy(asked)
    del dropped["metadata"]["annotations"][names.ROLLOUT_GATES]
    assert written(asked, dropped)["spec"] == asked["spec"]
    other = changed(dropped, **container("two"))
    assert version(written(asked, other)) is None


def test_what_was_there_before_its_controller_is_not_stamped_by_a_write_about_something_else() -> None:
    """It would make a revision, in the middle of a rollout perhaps."""
    unseen = KServe(asking()).isvc
    new = copy.deepcopy(unseen)
    new["metadata"]["annotations"]["example.com/note"] = "x"
    assert written(unseen, new) == new


def test_a_locked_pair_is_the_same_pair_with_it() -> None:
    plain = service("predictor", "transformer", pair_lock="true", **ASKED)
    stamped = copy.deepcopy(plain)
    stamped["spec"]["predictor"].update(logger={"mode": "all"}, annotations={names.VERSION: "x"})
    assert pairs.pair_id(stamped) == pairs.pair_id(plain)
