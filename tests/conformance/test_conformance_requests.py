"""One model by every protocol, and a share of its requests for a new version."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from conformance.target import READY_TIMEOUT_S, ROW, Object, Target, service
from local.machine_lab import wait_for

Served = Callable[[Object], str]
# The model has learned the sum of a row.
EXPECTED = pytest.approx([0.6], abs=0.3)
H2C = {"ports": [{"name": "h2c", "containerPort": 8081, "protocol": "TCP"}]}


def test_v1_and_v2(target: Target, served: Served) -> None:
    name = served(service(target, "rest", minReplicas=1))
    answer = target.infer(name)
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    assert (output["datatype"], output["shape"], output["data"]) == ("FP32", [1], EXPECTED)

    url, host = target.address(name)
    headers = {"Host": host}
    old = target.http.post(f"{url}/v1/models/{name}:predict", json={"instances": ROW}, headers=headers)
    assert (old.status_code, old.json()) == (200, {"predictions": EXPECTED})
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{name}", f"/v2/models/{name}/ready"):
        assert target.http.get(url + path, headers=headers).status_code == 200, path

    wrong = target.http.post(f"{url}/v2/models/{name}/infer", json={"inputs": []}, headers=headers)
    assert wrong.status_code == 400
    unknown = target.http.get(f"{url}/v2/models/nobody", headers=headers)
    assert unknown.status_code == 404


def test_grpc(target: Target, served: Served) -> None:
    """Through Knative a pod has one port; for gRPC it is named h2c, and is the one of gRPC."""
    name = served(service(target, "grpc", minReplicas=1, model=H2C))
    assert target.infer_grpc(name) == EXPECTED


def traffic(target: Target, name: str) -> dict[str, Any]:
    """Revision → percent, of the Knative Service and of the InferenceService; the two must agree."""
    listed = target.get("ksvc", f"{name}-predictor")["status"].get("traffic", [])
    found = {each["revisionName"]: each.get("percent", 0) for each in listed}
    told = target.get("isvc", name)["status"]["components"]["predictor"].get("traffic", [])
    told = {each["revisionName"]: each.get("percent", 0) for each in told}
    return found if found == told else {}


def test_a_canary_has_its_share_until_it_is_promoted(target: Target, served: Served) -> None:
    first, second = "canary-predictor-00001", "canary-predictor-00002"
    name = served(service(target, "canary", minReplicas=1))
    assert traffic(target, name) == {first: 100}

    newer = {"env": [{"name": "VERSION", "value": "2"}]}
    with target.load(name, 2) as failures:
        target.apply(service(target, name, minReplicas=1, model=newer, canaryTrafficPercent=20))
        split = {first: 80, second: 20}
        wait_for(lambda: traffic(target, name) == split, "the canary's share", READY_TIMEOUT_S)
        target.wait_ready(name)
        # Long enough for every controller to have had its turn again.
        for _ in range(10):
            assert traffic(target, name) == split
            time.sleep(0.2)
        component = target.get("isvc", name)["status"]["components"]["predictor"]
        assert component["latestReadyRevision"] == second
        assert component["latestRolledoutRevision"] == first

        target.apply(service(target, name, minReplicas=1, model=newer))
        wait_for(lambda: traffic(target, name) == {second: 100}, "the promotion", READY_TIMEOUT_S)
    assert failures == []
    component = target.get("isvc", name)["status"]["components"]["predictor"]
    assert component["latestRolledoutRevision"] == second
