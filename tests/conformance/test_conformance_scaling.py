"""Scaling on load: to zero and back, up under a burst, the floor of a live revision, and no request lost over it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from urllib.parse import urlsplit

import httpx2
from conformance.target import AUTOSCALING, POD_AUTOSCALER, READY_TIMEOUT_S, ROW, Object, Target, service
from local.machine_lab import v2_body, wait_for

Served = Callable[[Object], str]
# A request that is not answered by then waits: it is computed in a few milliseconds.
UNANSWERED_S = 1.5


def wait_scale(target: Target, revision: str, scale: int) -> None:
    """Until as many pods are wanted as are there, and the service knows of no failure."""
    wait_for(
        lambda: target.scale(revision) == (scale, scale), f"a scale of {scale} of {revision}", READY_TIMEOUT_S
    )


def conditions(target: Target, revision: str) -> dict[str, tuple[str, str]]:
    """Who says what of being active and ready."""
    return {
        "autoscaler active": target.condition(POD_AUTOSCALER, revision, "Active"),
        "autoscaler ready": target.condition(POD_AUTOSCALER, revision, "Ready"),
        "autoscaler target": target.condition(POD_AUTOSCALER, revision, "ScaleTargetInitialized"),
        "revision active": target.condition("revision", revision, "Active"),
        "revision ready": target.condition("revision", revision, "Ready"),
    }


RUNNING = {
    "autoscaler active": ("True", ""),
    "autoscaler ready": ("True", ""),
    "autoscaler target": ("True", ""),
    "revision active": ("True", ""),
    "revision ready": ("True", ""),
}
IDLE = {
    **RUNNING,
    "autoscaler active": ("False", "NoTraffic"),
    "autoscaler ready": ("False", "NoTraffic"),
    "revision active": ("False", "NoTraffic"),
}


def test_zero_one_many_zero_without_a_failed_request(target: Target, served: Served) -> None:
    name = served(
        service(target, "scaled", minReplicas=0, maxReplicas=3, scaleTarget=1, scaleMetric="concurrency")
    )
    revision = f"{name}-predictor-00001"
    # A new revision starts with one, to show that it can; where that takes long, it is at zero before anybody looks.
    with target.load(name, 1) as failures:
        wait_scale(target, revision, 1)
        assert conditions(target, revision) == RUNNING
    assert failures == []

    wait_scale(target, revision, 0)
    wait_for(lambda: not target.pods(name), "the last pod to go", READY_TIMEOUT_S)
    assert conditions(target, revision) == IDLE
    # Nobody would call that broken.
    assert target.condition("isvc", name, "Ready")[0] == "True"

    # Ten requests at a service without pods wait for the first one.
    assert target.at_once(name, 10) == [200] * 10
    wait_for(lambda: conditions(target, revision) == RUNNING, "the revision to be active", READY_TIMEOUT_S)

    with target.load(name, 12) as failures:
        wait_scale(target, revision, 3)
        assert len(target.pods(name)) == 3
    assert failures == []

    wait_scale(target, revision, 0)
    assert conditions(target, revision) == IDLE
    assert target.revisions(name) == [revision]


def test_a_burst_on_one_pod_costs_no_request(target: Target, served: Served) -> None:
    name = served(
        service(target, "burst", minReplicas=1, maxReplicas=3, scaleTarget=2, scaleMetric="concurrency")
    )
    revision = f"{name}-predictor-00001"
    assert target.infer(name).status_code == 200
    wait_scale(target, revision, 1)
    with target.load(name, 20) as failures:
        wait_scale(target, revision, 3)
    assert failures == []
    wait_scale(target, revision, 1)
    assert conditions(target, revision) == RUNNING


def test_the_floor_of_a_live_revision_goes_up_and_down(target: Target, served: Served) -> None:
    name = served(service(target, "floor", minReplicas=1, maxReplicas=3))
    revision = f"{name}-predictor-00001"
    target.kubectl("annotate", "revision", revision, f"{AUTOSCALING}/min-scale=2", "--overwrite")
    wait_scale(target, revision, 2)
    assert target.infer(name).status_code == 200
    target.kubectl("annotate", "revision", revision, f"{AUTOSCALING}/min-scale=1", "--overwrite")
    wait_scale(target, revision, 1)
    assert target.infer(name).status_code == 200
    # The revision is told; what it was made from is not, so nobody makes another.
    assert target.revisions(name) == [revision]


def test_a_request_over_the_container_concurrency_waits(target: Target, served: Served) -> None:
    """A request whose body is still on its way has the one place; the next one waits for it, however long that is."""
    name = served(service(target, "narrow", minReplicas=1, maxReplicas=1, containerConcurrency=1))
    assert target.get(POD_AUTOSCALER, f"{name}-predictor-00001")["spec"]["containerConcurrency"] == 1
    assert target.infer(name).status_code == 200
    url, host = target.address(name)
    parts = urlsplit(url)
    body = json.dumps(v2_body(ROW)).encode()
    slow = http.client.HTTPConnection(parts.netloc, timeout=READY_TIMEOUT_S)
    with closing(slow), ThreadPoolExecutor(1) as executor:
        slow.putrequest("POST", f"{parts.path}/v2/models/{name}/infer", skip_host=True)
        for key, value in {
            "Host": host,
            "Content-Type": "application/json",
            "Content-Length": len(body),
        }.items():
            slow.putheader(key, str(value))
        slow.endheaders(body[:10])

        def waits() -> Future[httpx2.Response] | None:
            asked = executor.submit(target.infer, name)
            return asked if wait([asked], timeout=UNANSWERED_S).not_done else None

        # Once the slow one has the place, that is: until then others are answered.
        waiting = wait_for(waits, "a request that has to wait")
        slow.send(body[10:])
        assert slow.getresponse().status == 200
        assert waiting.result().status_code == 200
