"""How soon a bad version is rolled back, whom it hurt by then, and how long a good one takes to reach everybody.

The controller is a process of its own, the models are small programs that answer with their version, the requests come
at a steady rate and are never tried again. On the local machine, or on a cluster:

    python -m benchmarks.rollout --kubeconfig FILE --gateway 127.0.0.1:31080 --image IMAGE --prometheus-url URL

whose image runs `tests/local/pods/model.py`, and whose controller this starts for the namespace that it makes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.lab import lab, wait_for
from benchmarks.results import DOCS, Result, record, summarise
from benchmarks.rounds import Options
from benchmarks.steady import Address, Steady
from glowplug.cli.kube import Cluster, connect
from glowplug.errors import AlreadyExists, NotFound
from glowplug.spec import names

COMMAND = "make bench-rollout"
CLUSTER_COMMAND = "python -m benchmarks.rollout --kubeconfig … --gateway … --image … --prometheus-url …"
NAME = "rollout"
STEPS = "10,25,50,100"
# What a rollout is held to where nothing is said, but for the tail: at these rates that takes minutes.
GATES = "errors<=+0.5%, p50<=1.1x"
_RATE, _CLUSTER_RATE = 500.0, 100.0
_INTERVAL_S, _CLUSTER_INTERVAL_S = 6, 20
_ROUNDS, _QUICK, _GOOD_ROUNDS = 5, 1, 2
_ENOUGH = 200
_PROMOTED_S, _ROLLED_BACK_S = 600.0, 300.0
_POD = pathlib.Path(__file__).parent.parent / "tests" / "local" / "pods" / "model.py"
_ISVCS = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"
_WEBHOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{}.glowplug.dev"
_JSON = {"Content-Type": "application/json"}
_MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True)
class Place:
    """Where it is measured. `container` is what runs a version; `gateway` answers for the hosts of services, None:
    they answer themselves. `options` are the controller's."""

    cluster: Cluster
    kubeconfig: pathlib.Path
    namespace: str
    container: Mapping[str, Any]
    rate: float
    interval_s: int
    gateway: str | None = None
    options: tuple[str, ...] = ()
    webhook: str = "rollout"


@dataclass
class Bad:
    """Of rollouts of bad versions, one number each: from a version's first request to its last, how many it had, how
    long the last came after the first 200, and what share of all requests failed until then, and in its interval."""

    rollback_s: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    errors_percent: list[float] = field(default_factory=list)
    interval_errors_percent: list[float] = field(default_factory=list)


def run(options: Options | None = None) -> list[Result]:
    """On a machine of its own; under four minutes, one with `quick`."""
    rounds = _QUICK if options is not None and options.quick else _ROUNDS
    with lab() as found:
        container = {"image": "example/model", "command": ["python", str(_POD)]}
        kubeconfig = pathlib.Path(found.cluster.kubeconfig)
        place = Place(found.cluster, kubeconfig, "default", container, _RATE, _INTERVAL_S)
        return measure(place, rounds, rounds)


def measure(place: Place, rounds: int, good_rounds: int, prefix: str = "canary") -> list[Result]:
    """Bad versions, then good ones, each beside the one before."""
    bad, promoted = Bad(), list[float]()
    with _controller(place), _service(place) as address, Steady(address, place.rate) as load:
        for number in range(rounds):
            _roll_back(place, load, f"bad-{number}", bad)
        for number in range(good_rounds):
            promoted.append(_promote(place, load, f"good-{number}"))
    lost = sum(answer.status not in (200, 500) or answer.version == "" for answer in load.answers)
    return _results(place, prefix, bad, promoted, lost)


def _roll_back(place: Place, load: Steady, version: str, found: Bad) -> None:
    begun = len(load.answers)
    _change(place, version, {"FAIL_EVERY": "10"})
    wait_for(lambda: load.of(version), f"a request of {version}")
    _wait_phase(place, "RolledBack", _ROLLED_BACK_S)
    first = load.of(version)[0].at
    wait_for(lambda: time.monotonic() > first + place.interval_s, "the planned interval to be over")
    canary, answers = load.of(version), load.answers[begun:]
    last = canary[-1].at
    found.rollback_s.append(last - first)
    found.requests.append(len(canary))
    found.late_s.append(max(0.0, last - canary[min(len(canary), _ENOUGH) - 1].at))
    for until, percents in (
        (last, found.errors_percent),
        (max(last, first + place.interval_s), found.interval_errors_percent),
    ):
        those = [answer for answer in answers if first <= answer.at <= until]
        percents.append(100 * sum(answer.status != 200 for answer in those) / len(those))
    _say(
        f"{version}: {found.rollback_s[-1]:.2f} s, {len(canary)} of its requests, {found.late_s[-1]:.2f} s after the"
        f" first {_ENOUGH}; failed {found.errors_percent[-1]:.2f} % until then,"
        f" {found.interval_errors_percent[-1]:.2f} % of the interval's; {_verdict(place)}"
    )


def _promote(place: Place, load: Steady, version: str) -> float:
    """Seconds from the first canary request until it has all of them."""
    _change(place, version, {})
    wait_for(lambda: load.of(version), f"a request of {version}")
    _wait_phase(place, "Promoted", _PROMOTED_S)
    answers = tuple(load.answers)
    first = next(answer.at for answer in answers if answer.version == version)
    last = max(answer.at for answer in answers if answer.version != version)
    _say(f"{version}: promoted after {last - first:.2f} s")
    return last - first


def _results(place: Place, prefix: str, bad: Bad, promoted: list[float], lost: int) -> list[Result]:
    command = COMMAND if prefix == "canary" else CLUSTER_COMMAND
    under = f"{place.rate:.0f} requests/s, steps {STEPS}, interval {place.interval_s} s, gates {GATES}"
    of = f"a version that fails one request in ten, at its first step of 10 %; {under}"
    rollback = (
        f"from its first request to its last, {summarise('', bad.requests, '', command='').value:.0f} requests in"
        f" the median; {of}"
    )
    late = f"from the first {_ENOUGH} requests of the bad version to its last, 0 where it has not had so many; {of}"
    errors = f"failed of all requests of both versions while the bad one had some; {of}"
    whole = f"failed of all requests in the first step's {place.interval_s} s, had it lasted so long; {of}"
    good = f"from a good version's first request to the old one's last; lost: {lost} requests in all; {under}"
    values = (
        (
            f"{prefix}.bad.rollback.s" if prefix == "canary" else f"{prefix}.rollback.s",
            bad.rollback_s,
            "s",
            "",
            rollback,
        ),
        (f"{prefix}.bad.rollback.late.s", bad.late_s, "s", "<= 5", late),
        (f"{prefix}.bad.requests", bad.requests, "requests", "", f"that the bad version had; {of}"),
        (f"{prefix}.bad.errors.percent", bad.interval_errors_percent, "%", "<= 0.5", whole),
        (f"{prefix}.bad.errors.until_rollback.percent", bad.errors_percent, "%", "", errors),
        (f"{prefix}.good.promoted.s", promoted, "s", "", good),
    )
    return [
        summarise(metric, samples, unit, command=command, goal=goal, note=note)
        for metric, samples, unit, goal, note in values
    ]  # fmt: skip


@contextlib.contextmanager
def _controller(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """`glowplug rollout run`, once the API asks it about writes."""
    command = [
        sys.executable,
        "-m",
        "glowplug.cli.main",
        "rollout",
        "run",
        "--kubeconfig",
        str(place.kubeconfig),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, *place.options], env={**os.environ}, stdout=log, stderr=log)
        try:
            wait_for(lambda: _has_webhook(place), "the controller to be asked about writes")
            yield process
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            process.terminate()
            process.wait(30)


def _has_webhook(place: Place) -> bool:
    try:
        place.cluster.get(_WEBHOOK.format(place.webhook))
    except NotFound:
        return False
    return True


@contextlib.contextmanager
def _service(place: Place) -> Iterator[Address]:
    """The first version, and where it answers."""
    path = _ISVCS.format(place.namespace)
    annotations = {
        "serving.kserve.io/deploymentMode": "Knative",
        names.ROLLOUT_STEPS: STEPS,
        names.ROLLOUT_INTERVAL: f"{place.interval_s}s",
        names.ROLLOUT_GATES: GATES,
    }
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": NAME, "annotations": annotations},
        "spec": {"predictor": {"minReplicas": 1, "containers": [_container(place, "first", {})]}},
    }
    place.cluster.request("POST", path, body=json.dumps(document).encode(), headers=_JSON)
    try:
        wait_for(lambda: _component(place).get("latestRolledoutRevision"), "the first version")
        wait_for(lambda: _is_ready(place), "the first version to be ready")
        url = urlsplit(str(_isvc(place)["status"]["url"]))
        yield Address(
            place.gateway or url.netloc, url.netloc, f"{url.path.rstrip('/')}/v1/models/{NAME}:predict"
        )
    finally:
        place.cluster.request("DELETE", f"{path}/{NAME}")


def _container(place: Place, version: str, env: Mapping[str, str]) -> dict[str, Any]:
    variables = [{"name": key, "value": value} for key, value in {"VERSION": version, **env}.items()]
    return {"name": "kserve-container", **place.container, "env": variables}


def _change(place: Place, version: str, env: Mapping[str, str]) -> None:
    content = json.dumps({"spec": {"predictor": {"containers": [_container(place, version, env)]}}}).encode()
    path = f"{_ISVCS.format(place.namespace)}/{NAME}"
    place.cluster.request("PATCH", path, body=content, headers=_MERGE)


def _wait_phase(place: Place, phase: str, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while _state(place).get("phase") != phase:
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s:.0f} s for {phase}, it is {_state(place)}")
        time.sleep(0.05)


def _isvc(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = place.cluster.get(f"{_ISVCS.format(place.namespace)}/{NAME}")
    return found


def _component(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = (_isvc(place).get("status") or {}).get("components", {}).get("predictor", {})
    return found


def _is_ready(place: Place) -> bool:
    conditions = (_isvc(place).get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _state(place: Place) -> dict[str, Any]:
    text = (_isvc(place)["metadata"].get("annotations") or {}).get(names.ROLLOUT_STATE)
    found: dict[str, Any] = json.loads(text or "{}")
    return found


def _verdict(place: Place) -> str:
    return str((_state(place).get("verdict") or {}).get("reason", ""))


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr)


def main(argv: list[str]) -> int:
    """On a cluster of this computer."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rollout", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--kubeconfig", type=pathlib.Path, required=True)
    parser.add_argument(
        "--gateway", required=True, metavar="HOST:PORT", help="answers for the services' hosts"
    )
    parser.add_argument("--image", required=True, help="runs tests/local/pods/model.py")
    parser.add_argument("--prometheus-url", required=True, help="scrapes Knative's queue-proxies")
    parser.add_argument("--namespace", default="rollout-bench")
    parser.add_argument("--rate", type=float, default=_CLUSTER_RATE, help="requests a second")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="bad versions")
    parser.add_argument("--good-rounds", type=int, default=_GOOD_ROUNDS, help="good versions, minutes each")
    parser.add_argument("--out", type=pathlib.Path, default=DOCS, help="where the results go (default: docs)")
    given = parser.parse_args(argv)
    cluster = connect(given.kubeconfig, None, given.namespace)
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": given.namespace}}
    with contextlib.suppress(AlreadyExists):
        cluster.request("POST", "/api/v1/namespaces", body=json.dumps(space).encode(), headers=_JSON)
    webhook = f"rollout-{given.namespace}"
    place = Place(
        cluster,
        given.kubeconfig,
        given.namespace,
        {"image": given.image},
        given.rate,
        _CLUSTER_INTERVAL_S,
        given.gateway,
        (
            *("--only", given.namespace, "--lease-namespace", given.namespace, "--webhook-name", webhook),
            *("--prometheus-url", given.prometheus_url),
        ),
        webhook,
    )
    results = measure(place, given.rounds, given.good_rounds, "canary.cluster")
    record(results, (), given.out)
    for result in results:
        print(f"{result.metric} = {result.value:.4g} {result.unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
