"""Rollouts on a whole machine, with the controller as a process of its own and models that are small programs."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from local.machine_lab import MachineLab, Object, wait_for
from local.rollout_load import Steady

from glowplug.cli import kube
from glowplug.errors import NotFound

POD = pathlib.Path(__file__).parent / "pods" / "model.py"
WEBHOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/rollout.glowplug.dev"
ACTION = "glowplug.dev/rollout-action"
STATE = "glowplug.dev/rollout-state"
RATE = 200.0
Start = Callable[..., subprocess.Popen[bytes]]


CLUSTERS: dict[pathlib.Path, kube.Cluster] = {}


@pytest.fixture(scope="module", autouse=True)
def connections() -> Iterator[None]:
    """Lets the connections go that `get` keeps."""
    yield
    while CLUSTERS:
        CLUSTERS.popitem()[1]._http.close()


@pytest.fixture
def start(machine: MachineLab, tmp_path: pathlib.Path) -> Iterator[Start]:
    """Starts controllers that are asked about every write; those that still run at the end are stopped."""
    started: list[subprocess.Popen[bytes]] = []
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:

        def run(*options: str, waits: bool = True) -> subprocess.Popen[bytes]:
            command = [
                *(sys.executable, "-m", "glowplug.cli.main", "rollout", "run", "--lease-duration", "2"),
                *options,
            ]
            environment = {**os.environ, "KUBECONFIG": str(machine.directory.kubeconfig)}
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            if waits:
                wait_for(lambda: has_webhook(machine), "the controller to be asked about writes")
            return started[-1]

        yield run
        for process in started:
            process.terminate()
        try:
            for process in started:
                process.wait(20)
        finally:
            # What does not stop must not outlive the test either.
            for process in started:
                process.kill()
                process.wait()
    text = log_path.read_text()
    assert "Traceback" not in text, text[-4000:]
    wait_for(lambda: not has_webhook(machine) or any_killed(started), "the webhook to be taken away")
    machine.kubectl("delete", "mutatingwebhookconfiguration", "rollout.glowplug.dev", "--ignore-not-found")


def has_webhook(machine: MachineLab) -> bool:
    try:
        get(machine, WEBHOOK)
    except NotFound:
        return False
    return True


def any_killed(processes: list[subprocess.Popen[bytes]]) -> bool:
    return any(process.returncode == -signal.SIGKILL for process in processes)


def service(name: str, version: str, env: dict[str, str] | None = None, **asked: str) -> Object:
    """An InferenceService of a small program that answers with `version`."""
    variables = {"VERSION": version, **(env or {})}
    asked = {"steps": "40,70", "interval": "1s", "gates": "errors<=+3%", **asked}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Knative",
                **{f"glowplug.dev/rollout-{key}": value for key, value in asked.items()},
            },
        },
        "spec": {
            "predictor": {
                "containers": [
                    {
                        "name": "kserve-container",
                        "image": "example/model",
                        "command": ["python", str(POD)],
                        "env": [{"name": key, "value": value} for key, value in variables.items()],
                    }
                ]
            }
        },
    }


def first_version(machine: MachineLab, name: str, **asked: str) -> None:
    machine.apply(service(name, "one", **asked))
    machine.wait_ready(name)
    wait_for(lambda: component(machine, name).get("latestRolledoutRevision"), f"{name} to be rolled out")


def get(machine: MachineLab, path: str, **params: str) -> Object:
    """As `machine.get`, without a process for each look."""
    kubeconfig = machine.directory.kubeconfig
    if kubeconfig not in CLUSTERS:
        CLUSTERS[kubeconfig] = kube.connect(kubeconfig, None, None)
    return CLUSTERS[kubeconfig].get(path, **params)


def isvc(machine: MachineLab, name: str) -> Object:
    return get(machine, f"/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/{name}")


def component(machine: MachineLab, name: str) -> Object:
    found: Object = isvc(machine, name)["status"]["components"]["predictor"]
    return found


def shares(machine: MachineLab, name: str) -> dict[str, int]:
    """Percent by number of the revision."""
    found: dict[str, int] = {}
    for target in component(machine, name).get("traffic") or ():
        number = target["revisionName"].rpartition("-")[2].lstrip("0")
        found[number] = found.get(number, 0) + target.get("percent", 0)
    return {number: percent for number, percent in found.items() if percent}


def state(machine: MachineLab, name: str) -> Object:
    found = isvc(machine, name)["metadata"]["annotations"].get(STATE)
    read: Object = json.loads(found) if found else {"phase": "Idle"}
    return read


def reasons(machine: MachineLab, name: str) -> list[str]:
    selector = f"involvedObject.name={name}"
    events = get(machine, "/api/v1/namespaces/default/events", fieldSelector=selector)["items"]
    events.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
    return [event["reason"] for event in events if event["reason"].startswith("Rollout")]


def until(machine: MachineLab, name: str, phase: str, deadline_s: float = 60.0) -> Object:
    def reached() -> Object | None:
        found = state(machine, name)
        return found if found["phase"] == phase and not found.get("news") else None

    try:
        found: Object = wait_for(reached, f"the rollout of {name} to be {phase}", deadline_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{state(machine, name)}\n{reasons(machine, name)}") from error
    return found


def condition(machine: MachineLab, name: str, type: str) -> Object:
    found = isvc(machine, name)["status"]["conditions"]
    return next((each for each in found if each["type"] == type), {})


class Sink(http.server.ThreadingHTTPServer):
    """Takes CloudEvents; the very first attempt is refused."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Object]] = []
        self.seen: set[str] = set()
        super().__init__(("127.0.0.1", 0), Taker)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def types(self) -> list[str]:
        return [type.rpartition(".")[2] for type, _ in self.events]


class Taker(http.server.BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        is_first = not self.server.seen
        self.server.seen.add(self.headers["ce-id"])
        if not is_first:
            self.server.events.append((self.headers["ce-type"], json.loads(body)))
        self.send_response(503 if is_first else 202)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def sink_for_events() -> Iterator[Sink]:
    with Sink() as sink:
        thread = threading.Thread(target=sink.serve_forever)
        thread.start()
        try:
            yield sink
        finally:
            sink.shutdown()
            thread.join()


def test_a_good_version_goes_to_everybody_and_a_bad_one_back_in_time(
    machine: MachineLab, start: Start
) -> None:
    with sink_for_events() as sink:
        start("--sink", sink.url)
        first_version(machine, "judged")
        with Steady(machine, "judged", RATE) as load:
            machine.apply(service("judged", "two"))
            until(machine, "judged", "Promoted")
            assert shares(machine, "judged") == {"2": 100}
            assert "canaryTrafficPercent" not in isvc(machine, "judged")["spec"]["predictor"]
            assert not load.failed

            begun = len(load.answers)
            machine.apply(service("judged", "bad", {"FAIL_EVERY": "10"}))
            until(machine, "judged", "RolledBack")
            assert shares(machine, "judged") == {"2": 100}
        bad = load.of("bad")
        # Who was rolled back before its 200th request was rolled back in time.
        late_s = bad[-1].at - bad[199].at if len(bad) > 200 else 0.0
        assert late_s < 5.0
        assert all(answer.version == "bad" for answer in load.failed)
        print(
            f"{len(bad)} canary requests, the last {bad[-1].at - bad[0].at:.1f} s after the first;"
            f" {len(load.failed)} of {len(load.answers) - begun} failed"
        )
        wait_for(lambda: "rolledback" in sink.types, "the CloudEvent of the rollback")
    assert [type for type in sink.types if type != "inconclusive"] == [
        "advanced", "advanced", "promoted", "advanced", "rolledback",
    ]  # fmt: skip
    data = sink.events[-1][1]
    assert data["verdict"]["outcome"] == "fail"
    assert data["verdict"]["gates"][0]["observed"] > 0.05
    assert (data["name"], data["stable"]) == ("judged", {"predictor": "judged-predictor-00002"})
    assert condition(machine, "judged", "RolloutHealthy")["status"] == "False"
    assert "errors" in condition(machine, "judged", "RolloutProgressing")["message"]
    machine.delete("judged")


def test_a_controller_that_is_killed_is_replaced_and_the_rollout_goes_on(
    machine: MachineLab, start: Start
) -> None:
    first = start()
    first_version(machine, "resumed")
    with Steady(machine, "resumed", RATE) as load:
        machine.apply(service("resumed", "two"))
        wait_for(lambda: state(machine, "resumed").get("weight") == 40, "the first step")
        first.send_signal(signal.SIGKILL)
        first.wait()
        # Nobody acts, and requests are split as before.
        assert shares(machine, "resumed") == {"1": 60, "2": 40}
        standby = start()
        until(machine, "resumed", "Promoted")
    assert not load.failed
    # On a busy computer it takes longer than the interval until there are enough requests.
    told = [reason for reason in reasons(machine, "resumed") if reason != "RolloutInconclusive"]
    assert told == ["RolloutStarted", *["RolloutAdvanced"] * 2, "RolloutPromoting", "RolloutPromoted"]
    assert standby.poll() is None
    machine.delete("resumed")


def test_a_person_pauses_resumes_aborts_and_promotes(machine: MachineLab, start: Start) -> None:
    start()
    # Without requests nothing is ever decided.
    first_version(machine, "manual")
    machine.apply(service("manual", "two"))
    wait_for(lambda: shares(machine, "manual") == {"1": 60, "2": 40}, "the first step")
    machine.kubectl("annotate", "isvc", "manual", f"{ACTION}=pause")
    wait_for(
        lambda: condition(machine, "manual", "RolloutProgressing").get("reason") == "Paused", "the pause"
    )
    assert "Progressing, paused" in machine.glowplug("rollout", "status", "manual").stdout
    resumed = machine.glowplug("rollout", "resume", "manual")
    assert "RolloutResumed: goes on from 40 %" in resumed.stdout
    assert "glowplug rollout pause manual" in resumed.stderr
    assert "the canary" in machine.glowplug("rollout", "status", "manual").stdout

    machine.glowplug("rollout", "abort", "manual")
    until(machine, "manual", "RolledBack")
    assert shares(machine, "manual") == {"1": 100}
    # Something else that makes a write, and no new version.
    machine.kubectl("label", "isvc", "manual", "team=a")
    machine.glowplug("rollout", "promote", "manual")
    until(machine, "manual", "Promoted")
    latest = component(machine, "manual")["latestCreatedRevision"].rpartition("-")[2].lstrip("0")
    assert shares(machine, "manual") == {latest: 100}
    refused = machine.glowplug("rollout", "abort", "manual", check=False)
    assert refused.returncode == 1
    assert "cannot abort: no rollout is in progress" in refused.stderr
    assert "no controller is at work" not in machine.glowplug("rollout", "status", "manual").stdout
    machine.delete("manual")


def test_a_revision_that_runs_the_same_is_no_new_version(machine: MachineLab, start: Start) -> None:
    def is_split(*wanted: tuple[str, int]) -> bool:
        return shares(machine, "labelled") == dict(wanted)

    start()
    first_version(machine, "labelled", steps="30")
    machine.kubectl("label", "isvc", "labelled", "team=a")
    wait_for(lambda: is_split(("2", 100)), "the second revision")
    assert (state(machine, "labelled")["phase"], reasons(machine, "labelled")) == ("Idle", [])
    machine.apply(service("labelled", "two", steps="30"))
    wait_for(lambda: is_split(("2", 70), ("3", 30)), "the first step")
    machine.kubectl("annotate", "isvc", "labelled", "example.com/note=x")
    wait_for(lambda: is_split(("2", 70), ("4", 30)), "the revision that takes over")
    members = {"predictor": [f"labelled-predictor-0000{number}" for number in (2, 2, 4)]}
    wait_for(lambda: state(machine, "labelled")["members"] == members, "the controller to know it")
    told = [reason for reason in reasons(machine, "labelled") if reason != "RolloutInconclusive"]
    assert told == ["RolloutStarted", "RolloutAdvanced"]
    assert state(machine, "labelled")["phase"] == "Progressing"
    machine.delete("labelled")


def test_a_version_that_never_starts_takes_nothing_and_an_edit_starts_over(
    machine: MachineLab, start: Start
) -> None:
    start()
    first_version(machine, "edited")
    with Steady(machine, "edited", 40) as load:
        machine.apply(service("edited", "broken", {"EXIT": "1"}))
        wait_for(lambda: "RolloutCanaryNotReady" in reasons(machine, "edited"), "the report")
        assert state(machine, "edited")["phase"] == "Starting"
        status = machine.glowplug("rollout", "status", "edited").stdout
        assert "edited-predictor-00002 is not ready, edited-predictor-00001 has all requests" in status

        machine.apply(service("edited", "three", steps="30"))
        wait_for(lambda: shares(machine, "edited") == {"1": 70, "3": 30}, "the version after it")
        machine.apply(service("edited", "four", steps="30"))
        wait_for(lambda: shares(machine, "edited") == {"1": 70, "4": 30}, "the version after that")
        assert state(machine, "edited")["members"]["predictor"][0] == "edited-predictor-00001"
        wait_for(lambda: load.of("four"), "requests of the last version")
    assert not load.failed
    assert not load.of("broken")
    machine.delete("edited")


def test_without_measurements_the_weight_holds(machine: MachineLab, start: Start) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        start("--prometheus-url", url, "--blind-after", "1")
        first_version(machine, "blind")
        with Steady(machine, "blind", 60):
            machine.apply(service("blind", "two"))
            wait_for(lambda: "RolloutUnmeasured" in reasons(machine, "blind"), "the report")
            began = state(machine, "blind")["since"]
            # Its interval is long over.
            wait_for(lambda: time.time() > began + 3, "some seconds to pass")
        assert shares(machine, "blind") == {"1": 60, "2": 40}
        found = condition(machine, "blind", "RolloutProgressing")
        assert (found["status"], found["reason"]) == ("True", "Held")
        assert "nothing can be measured" in found["message"]
        assert reasons(machine, "blind").count("RolloutUnmeasured") == 1
    machine.delete("blind")


def test_what_cannot_be_meant_is_refused(machine: MachineLab, start: Start) -> None:
    start()
    wrong = service("refused", "one", steps="50,10", interval="soon", gates="loss<=1.05x")
    applied = machine.kubectl("apply", "-f", "-", stdin=json.dumps(wrong), check=False)
    assert applied.returncode != 0
    for told in (
        "must rise, but 10 follows 50",
        "must be a duration from 1s",
        "gates without a metric source",
    ):
        assert told in applied.stderr
    assert "refused" not in machine.kubectl("get", "isvc", "-o", "name").stdout
