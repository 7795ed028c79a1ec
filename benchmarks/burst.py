"""A tenfold burst: how long until the replicas can take it, and what it costs those who ask meanwhile.

The paper's bursty profile at a fifth of its rates: 20 requests a second, 200 from 60 to 120 s, then 20 again until
300 s. A replica takes `_CONCURRENCY` requests at a time, 50 ms each, so that one is enough before the burst and three
are needed in it. The whole profile runs once; further bursts are shorter ones, for the time alone.
"""

from __future__ import annotations

import json
import math
import pathlib
import sys
import tempfile
import time

import httpx2

from benchmarks import results
from benchmarks.lab import Lab, lab, wait_for
from benchmarks.results import Result, summarise
from benchmarks.rounds import Options
from glowplug.cli.kube import Cluster
from glowplug_loadtest.figures import LATE_MS, Figures
from glowplug_loadtest.plan import Plan
from glowplug_loadtest.plots import picture
from glowplug_loadtest.profiles import BURSTY
from glowplug_loadtest.replicas import scale_of_autoscalers, time_until_ready
from glowplug_loadtest.run import run as run_load

COMMAND = "make bench-burst"
NAME = "burst"
SERVICE_MS = 50
_CONCURRENCY = 4
_SCALE = 0.2
# Of the profile's durations: once in full, then twice with a burst of 12 s.
_ROUNDS, _QUICK = (1.0, 0.2, 0.2), (0.2,)
_SLOW_MS = "200"
_UNIT = pathlib.Path(__file__).parent / "burst_unit"
_IMAGE = "glowplug/burst-model"
_PICTURE = "benchmarks/burst.png"
_ISVC = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
_AUTOSCALERS = "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/podautoscalers"
_ANNOTATIONS = {
    "serving.kserve.io/deploymentMode": "Knative",
    # A panic window of one second: with the default of six, a burst is averaged with the calm before it.
    "autoscaling.knative.dev/panic-window-percentage": "1.7",
}
# The stable window has to pass before a burst's replicas go.
_QUIET_S = 150.0


def run(options: Options | None = None) -> list[Result]:
    """On a machine of its own; about 8 minutes, one with `quick`."""
    measured = []
    with lab("--units", str(_UNIT)) as found:
        _serve(found)
        for time_scale in _QUICK if options is not None and options.quick else _ROUNDS:
            _wait_quiet(found.cluster)
            measured.append(_burst(found, time_scale))
    whole = measured[0]
    path = results.DOCS / _PICTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(whole, "png"))
    return _results(whole, [_time_to_capacity(figures) for figures in measured])


def replicas_needed(rate_rps: float, service_ms: float, concurrency: int) -> int:
    """By Little's law: rate × service time requests are in service at a time, `concurrency` of them in each replica."""
    return math.ceil(rate_rps * service_ms / 1000 / concurrency)


def _results(whole: Figures, times: list[float]) -> list[Result]:
    total, profile = whole.total, whole.plan.profile
    failed, slow = total["failed_percent"], total["over_percent"][_SLOW_MS]
    low, high = (profile.rate_at(t) for t in (0, profile.steps_up()[0]))
    late = total["sender"]["late_percent"]
    what = (
        f"{low:g} → {high:g} requests a second, V2 REST, Poisson; {total['requests']} in {profile.duration_s:g} s, "
        f"{late:.2g} % of them sent more than {LATE_MS:g} ms late by the generator itself"
    )
    needed = replicas_needed(high, SERVICE_MS, _CONCURRENCY)
    capacity = (
        f"from the step until {needed} replicas of {_CONCURRENCY} × {SERVICE_MS} ms are ready, from one; "
        "the paper: 18 s"
    )
    return [
        summarise("burst.time_to_capacity.s", times, "s", command=COMMAND, goal="< 3", note=capacity),
        Result("burst.failed.percent", failed, "%", failed, failed, 1, COMMAND, "0", what),
        Result(
            "burst.over_200ms.percent", slow, "%", slow, slow, 1, COMMAND, "< 1",
            f"the same requests, from their due times; the paper: 4 %; [over time]({_PICTURE})",
        ),
    ]  # fmt: skip


def _burst(found: Lab, time_scale: float) -> Figures:
    profile = BURSTY.scaled(_SCALE, time_scale)
    rows = [[number / 100, 1.0, 2.0, 3.0] for number in range(20)]
    bodies = [
        {"inputs": [{"name": "input-0", "datatype": "FP32", "shape": [1, 4], "data": row}]} for row in rows
    ]
    plan = Plan(found.url(NAME), NAME, profile, seed=round(1000 * time_scale))
    with tempfile.TemporaryDirectory(prefix="glowplug-burst-") as folder:
        figures = run_load(plan, NAME, bodies, [], pathlib.Path(folder), api=found.cluster)
    for error, count in figures.total["errors"].items():
        print(f"  {count} × {error}", file=sys.stderr)
    return figures


def _time_to_capacity(figures: Figures) -> float:
    """Seconds, rough by the quarter of one between two samples. TimeoutError where it did not come."""
    profile = figures.plan.profile
    step_s = profile.steps_up()[0]
    needed = replicas_needed(profile.rate_at(step_s), SERVICE_MS, _CONCURRENCY)
    found = time_until_ready(figures.samples, step_s, needed)
    if found is None:
        raise TimeoutError(f"{needed} replicas were never ready")
    return found


def _serve(found: Lab) -> None:
    """Create the InferenceService; returns when it answers and its pool is warm."""
    container = {
        "name": "kserve-container",
        "image": f"{_IMAGE}:0.1.0",
        "args": [f"--model_name={NAME}", f"--service_ms={SERVICE_MS}"],
    }
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": NAME, "annotations": _ANNOTATIONS},
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 8,
                "containerConcurrency": _CONCURRENCY,
                "containers": [container],
            }
        },
    }
    body = json.dumps(service).encode()
    found.cluster.request("POST", _ISVC, body=body, headers={"Content-Type": "application/json"})
    asked = {"inputs": [{"name": "input-0", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}
    with httpx2.Client(trust_env=False, timeout=30) as client:
        wait_for(
            lambda: client.post(f"{found.url(NAME)}/v2/models/{NAME}/infer", json=asked).status_code == 200,
            f"{NAME} to answer",
        )
    zygote = f'glowplug_warm_pool_zygotes{{image="{_IMAGE}"}} 1'
    wait_for(lambda: zygote in found.cluster.request("GET", "/metrics").text, "the warm pool", every_s=0.2)


def _wait_quiet(cluster: Cluster) -> None:
    """Until one replica is left; TimeoutError where the burst's do not go."""
    deadline = time.monotonic() + _QUIET_S
    while scale_of_autoscalers(cluster.get(_AUTOSCALERS)["items"]) != (1, 1):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_QUIET_S:.0f} s for the last burst's replicas to go")
        time.sleep(0.5)
