"""A new layout of the features, rolled out under load: no request meets the wrong version, and none fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from local.machine_lab import MachineLab
from local.pairs_lab import COMPONENTS, Meetings, paired, wait_shares

OLD, NEW = 50, 51


PROTOCOLS = {"rest": "v2", "grpc": "grpc-v2"}


@pytest.fixture
def names(machine: MachineLab, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Of two InferenceServices of the test's own, by the protocol between their components."""
    stem = request.node.name.partition("[")[0].replace("test_", "")[:20].replace("_", "-").strip("-")
    found = {kind: f"{stem}-{kind}" for kind in PROTOCOLS}
    yield found
    for name in found.values():
        machine.delete(name)


def apply(
    machine: MachineLab, names: dict[str, str], features: int, percent: int | None, **more: Any
) -> None:
    machine.apply(
        *(paired(name, features, percent, protocol=PROTOCOLS[kind], **more) for kind, name in names.items())
    )


def set_percent(machine: MachineLab, names: dict[str, str], percent: int | None) -> None:
    """Of both components, in one write."""
    patch = json.dumps({"spec": {role: {"canaryTrafficPercent": percent} for role in COMPONENTS}})
    for name in names.values():
        machine.kubectl("patch", "isvc", name, "--type=merge", "-p", patch)
    share = 100 if percent is None else percent
    for name in names.values():
        wait_shares(machine, name, {number: part for number, part in ((1, 100 - share), (2, share)) if part})


@contextmanager
def meeting(machine: MachineLab, names: dict[str, str]) -> Iterator[list[Meetings]]:
    """Load on both; at the end nothing may have failed. Mismatches are the test's business."""
    found = [Meetings(machine, name, rest=2, grpc=1) for name in names.values()]
    with found[0], found[1]:
        yield found
    for meetings in found:
        print(meetings.told())
        assert not meetings.failures, meetings.told()


def wait_for_more(found: list[Meetings], count: int = 60, of: int | None = None) -> None:
    for meetings in found:
        meetings.wait_for_more(count, of)


def mismatches(found: list[Meetings]) -> list[int]:
    return [meetings.mismatches for meetings in found]


def test_a_rollout_and_the_way_back(machine: MachineLab, names: dict[str, str]) -> None:
    apply(machine, names, OLD, None)
    for name in names.values():
        machine.wait_ready(name)
    with meeting(machine, names) as found:
        wait_for_more(found)
        # One component is ready before the other.
        apply(machine, names, NEW, 0, load_s={"predictor": 1})
        for percent in (10, 50):
            set_percent(machine, names, percent)
            wait_for_more(found, 30, of=NEW)
            wait_for_more(found, 30, of=OLD)
        set_percent(machine, names, 0)
        wait_for_more(found, of=OLD)
        for percent in (10, 50, 100, None):
            set_percent(machine, names, percent)
            wait_for_more(found, of=NEW)
    assert mismatches(found) == [0, 0]


@pytest.mark.parametrize("late", COMPONENTS)
def test_all_at_once(machine: MachineLab, names: dict[str, str], late: str) -> None:
    """Without a canary the new version takes everything as soon as it is ready, each component by itself."""
    apply(machine, names, OLD, None)
    for name in names.values():
        machine.wait_ready(name)
    with meeting(machine, names) as found:
        wait_for_more(found)
        apply(machine, names, NEW, None, load_s={late: 1.5})
        for name in names.values():
            wait_shares(machine, name, {2: 100})
        wait_for_more(found, of=NEW)
    assert mismatches(found) == [0, 0]


@pytest.fixture
def from_zero(machine: MachineLab) -> Iterator[dict[str, str]]:
    """The annotation of a revision that begins without a pod."""
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
        "data": {"allow-zero-initial-scale": "true"},
    }
    machine.kubectl("create", "namespace", "knative-serving", check=False)
    machine.apply(config)
    yield {"autoscaling.knative.dev/initial-scale": "0"}
    machine.kubectl("delete", "configmap", "-n", "knative-serving", "config-autoscaler")


def test_out_of_zero_in_the_middle_of_a_rollout(
    machine: MachineLab, names: dict[str, str], from_zero: dict[str, str]
) -> None:
    zero = {"minReplicas": 0, "annotations": from_zero}
    apply(machine, names, OLD, None, **zero)
    for name in names.values():
        machine.wait_ready(name)
    apply(machine, names, NEW, 50, **zero)
    for name in names.values():
        wait_shares(machine, name, {1: 50, 2: 50})
        assert not machine.get("pods", "", f"-lserving.kserve.io/inferenceservice={name}")["items"]
    with meeting(machine, names) as found:
        wait_for_more(found, of=NEW)
        wait_for_more(found, of=OLD)
    assert mismatches(found) == [0, 0]


def test_without_the_lock_versions_mix(machine: MachineLab, names: dict[str, str]) -> None:
    """What the tests above would see."""
    apply(machine, names, OLD, None, is_locked=False)
    for name in names.values():
        machine.wait_ready(name)
    with meeting(machine, names) as found:
        apply(machine, names, NEW, 50, is_locked=False)
        for name in names.values():
            wait_shares(machine, name, {1: 50, 2: 50})
        wait_for_more(found, 200)
    assert min(mismatches(found)) > 20
