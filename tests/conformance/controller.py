"""Our controllers as processes of this computer, for the namespace of the cases, on either target."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from conformance.target import READY_TIMEOUT_S, Object, Target
from local.machine_lab import wait_for

PROMETHEUS = "CONFORMANCE_PROMETHEUS"
IMAGE = "CONFORMANCE_IMAGE"
RUNTIME = "glowplug-xgboost"
# Another controller may look after other namespaces.
WEBHOOK = "rollout-conformance"
FLOOR_LEASE = "glowplug-warm-floor"
CONFIGURATION = "mutatingwebhookconfigurations"


@contextmanager
def controller(target: Target) -> Iterator[subprocess.Popen[bytes]]:
    """Started, and asked about every write of an InferenceService; skips where a cluster cannot be measured."""
    prometheus = os.environ.get(PROMETHEUS, "")
    if not target.is_local and not prometheus:
        pytest.skip(f"${PROMETHEUS} names no Prometheus that scrapes Knative's queue-proxies")
    command = [
        *("rollout", "run", "--lease-duration", "5", "--webhook-name", WEBHOOK),
        *(() if target.is_local else ("--prometheus-url", prometheus)),
    ]
    with _process(target, command, lambda: has_webhook(target), "the webhook") as process:
        yield process


@contextmanager
def warm_floor(target: Target) -> Iterator[subprocess.Popen[bytes]]:
    """Started, and in possession of its lease. It is asked for no forecast, so it need not measure."""
    command = ["warmfloor", "run", "--interval", "1", "--lease-duration", "5"]

    def is_up() -> bool:
        path = "jsonpath={.spec.holderIdentity}"
        return (
            f"_{process.pid}_" in target.kubectl("get", "lease", FLOOR_LEASE, "-o", path, check=False).stdout
        )

    with _process(target, command, lambda: True, "the controller") as process:
        wait_for(is_up, "the controller to act")
        yield process


@contextmanager
def _process(
    target: Target, arguments: list[str], is_up: Callable[[], bool], what: str
) -> Iterator[subprocess.Popen[bytes]]:
    """One of our controllers, for the namespace of the cases; its last lines are shown with a failed case."""
    command = [
        *(sys.executable, "-m", "glowplug.cli.main", *arguments),
        *("--kubeconfig", str(target.kubeconfig), "--only", target.namespace),
        *("--lease-namespace", target.namespace),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(lambda: is_up() or process.poll() is not None, what)
            yield process
        finally:
            process.terminate()
            status = process.wait(30)
            log.seek(0)
            text = log.read().decode(errors="replace")
            print(text[-8000:])
    assert status in (0, -signal.SIGKILL), text[-4000:]
    assert "Traceback" not in text, text[-4000:]


def has_webhook(target: Target) -> bool:
    return (
        target.kubectl("get", CONFIGURATION, f"{WEBHOOK}.glowplug.dev", "-o", "name", check=False).returncode
        == 0
    )


def program(target: Target, path: pathlib.Path, *arguments: str, **env: str) -> Object:
    """A container that runs a program of ours. On a cluster in the image of the XGBoost runtime, which has Python
    and the serving library; $CONFORMANCE_IMAGE names another one."""
    variables = [{"name": name, "value": value} for name, value in env.items()]
    if target.is_local:
        where = {"image": "example/program", "command": ["python", str(path)]}
    else:
        where = {"image": image(target), "command": ["python3", "-c", path.read_text()]}
    return {"name": "kserve-container", **where, "args": list(arguments), "env": variables}


def image(target: Target) -> str:
    given = os.environ.get(IMAGE)
    if given:
        return given
    found: str = target.get("clusterservingruntimes", RUNTIME)["spec"]["containers"][0]["image"]
    return found


def settle(target: Target, name: str, shares: dict[int, int], component: str = "predictor") -> None:
    """Waits until the ingress is said to run these percents, by number of the revision."""

    def is_so() -> bool:
        route = target.get("routes.serving.knative.dev", f"{name}-{component}")
        status = route.get("status") or {}
        found: dict[int, int] = {}
        for each in status.get("traffic") or ():
            number = int(each["revisionName"].rpartition("-")[2])
            found[number] = found.get(number, 0) + (each.get("percent") or 0)
        is_observed = status.get("observedGeneration") == route["metadata"]["generation"]
        is_ready = all(each["status"] == "True" for each in status.get("conditions") or ())
        return is_observed and is_ready and {n: share for n, share in found.items() if share} == shares

    wait_for(is_so, f"the shares {shares} of {name}-{component}", READY_TIMEOUT_S)
