"""Wrong autoscaling annotations are refused in Knative's words."""

from __future__ import annotations

import json

import pytest
from conformance.target import AUTOSCALING, READY_TIMEOUT_S, Object, Target, service
from local.machine_lab import wait_for


def knative_service(annotations: dict[str, str]) -> Object:
    container = {"image": "dev.local/glowplug/xgboost:0.1.0"}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "wrong"},
        "spec": {"template": {"metadata": {"annotations": annotations}, "spec": {"containers": [container]}}},
    }


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        ("min-scale", "-1", "expected 0 <= -1 <= 2147483647"),
        ("min-scale", "many", "invalid value: many"),
        ("max-scale", "-1", "expected 0 <= -1 <= 2147483647"),
        ("window", "1s", "expected 6s <= 1s <= 1h0m0s"),
        ("target", "nothing", "invalid value: nothing"),
        ("target-burst-capacity", "-2", "invalid value: -2"),
        ("metric", "weight", "invalid value: weight"),
        ("target-utilization-percentage", "0", "expected 1 <= 0 <= 100"),
        ("panic-threshold-percentage", "50", "expected 110 <= 50 <= 1000"),
        ("scale-down-delay", "2h", "expected 0s <= 2h <= 1h0m0s"),
        ("initial-scale", "-1", "invalid value: -1"),
        ("initial-scale", "0", "invalid value: 0"),
        ("class", "best.autoscaling.knative.dev", "invalid value: best.autoscaling.knative.dev"),
        ("panic-window-percentage", "0.5", "expected 1 <= 0.5 <= 100"),
        ("target", "0.001", "target 0.001 should be at least 0.01"),
        ("activation-scale", "1", "activation-scale=1 must be greater than 1"),
        ("scale-to-zero-pod-retention-period", "-1s", "expected 0s <= -1s <= 1h0m0s"),
        ("window", "6500ms", "must be specified with at most second precision"),
        ("/progress-deadline", "soon", "invalid value: soon"),
        ("/progress-deadline", "1500ms", "progress-deadline=1500ms is not at second precision"),
        ("/progress-deadline", "-1s", "progress-deadline=-1s must be positive"),
    ],
)
def test_a_knative_service_is_refused(target: Target, annotation: str, value: str, expected: str) -> None:
    key = f"serving.knative.dev{annotation}" if annotation[0] == "/" else f"{AUTOSCALING}/{annotation}"
    wrong = json.dumps(knative_service({key: value}))
    refused = target.kubectl("create", "--dry-run=server", "-f", "-", stdin=wrong, check=False)
    assert refused.returncode != 0
    # Knative names the field behind its words, the local machine before them, as it does in all its errors.
    assert expected in refused.stderr
    assert key in refused.stderr


def test_an_inference_service_says_what_knative_refused(target: Target) -> None:
    """A cluster's KServe takes it and says in its status what Knative said; the local machine refuses it at once."""
    name = "wrong"
    applied = target.apply(service(target, name, {f"{AUTOSCALING}/window": "1s"}), check=False)
    expected = "expected 6s <= 1s <= 1h0m0s"
    if target.is_local:
        assert applied.returncode != 0
        assert expected in applied.stderr
        return
    try:
        wait_for(
            lambda: target.condition("isvc", name, "Ready") == ("False", "ReconcileFailed"),
            "KServe to say that it failed",
            READY_TIMEOUT_S,
        )
        conditions = target.get("isvc", name)["status"]["conditions"]
        (ready,) = (each for each in conditions if each["type"] == "Ready")
        assert expected in ready["message"]
    finally:
        target.delete(name)
