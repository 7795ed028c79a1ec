"""The payload logger on a real machine: who is told of what, and that no caller notices where nobody listens."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import pathlib
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import httpx2
import numpy as np
import psutil
import pytest
import yaml
from local.machine_lab import MachineLab, Object, inference_service, v2_body, wait_for
from local.pairs_lab import paired
from prometheus_client.parser import text_string_to_metric_families

from glowplug.wire import v2_grpc, v2_json
from glowplug.wire.events import CloudEvent, decode
from glowplug.wire.tensors import InferRequest, Tensor

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
ROWS = [[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]]
REVISION = "Knative-Serving-Revision"


class Sink:
    """A real server that takes events; it may hang, or answer with another status."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []
        self.messages = 0
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                sink.open.wait()
                sink.messages += 1
                if sink.status == 200:
                    sink.events += decode({k.lower(): v for k, v in self.headers.items()}, body)
                self.send_response(sink.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/"

    def of(self, mark: str) -> list[CloudEvent]:
        """What came with this id."""
        return [event for event in list(self.events) if event.text("id") == mark]

    def close(self) -> None:
        self.open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineLab]:
    """A machine of this file's own, where services may start without a pod."""
    lab = MachineLab(tmp_path_factory.mktemp("machine") / "data")
    lab.up()
    config = {"allow-zero-initial-scale": "true"}
    metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
    lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "knative-serving"}})
    lab.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": config})
    yield lab
    lab.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    found = Sink()
    yield found
    found.close()


@pytest.fixture
def other_sink() -> Iterator[Sink]:
    found = Sink()
    yield found
    found.close()


@functools.cache
def api(machine: MachineLab) -> httpx2.Client:
    """The machine's API, faster asked than through kubectl."""
    config = yaml.safe_load(machine.directory.kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    trust = ssl.create_default_context(
        cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
    )
    headers = {"Authorization": f"Bearer {user['token']}"}
    return httpx2.Client(base_url=cluster["server"], headers=headers, verify=trust, trust_env=False)


def logger(url: str | None, **more: Any) -> Object:
    return {"mode": "all", "metadataHeaders": [REVISION], **({"url": url} if url else {}), **more}


def copied_by(by: str, service: Object) -> Object:
    """The same service, whose pods copy by themselves, or are anybody's program for all that the machine knows."""
    if by == "envoy":
        command = ["python", "-m", "glowplug_xgboost", "--model_dir=/mnt/models"]
        service["spec"]["predictor"]["model"]["command"] = command
    return service


def outcomes(machine: MachineLab, name: str = "") -> Counter[str]:
    """What came of the service's events; without a name, of requests that the logger never saw."""
    page = api(machine).get("/metrics").text
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        if family.name == "glowplug_payload_events":
            for sample in family.samples:
                if sample.labels.get("inferenceservice", "") == name:
                    found[sample.labels["outcome"]] += int(sample.value)
    return found


def logger_process(machine: MachineLab) -> psutil.Process:
    """The process that sends events, once it listens."""

    def find() -> psutil.Process | None:
        for child in psutil.Process(machine.description["pid"]).children():
            # One that was killed has no command line until it is collected.
            with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
                if "glowplug.local.payload_process" in child.cmdline():
                    is_listening = "glowplug_payload_events_waiting" in api(machine).get("/metrics").text
                    return child if is_listening else None
        return None

    found = wait_for(find, "the payload logger's process")
    assert isinstance(found, psutil.Process)
    return found


def post(machine: MachineLab, name: str, path: str, mark: str, **request: Any) -> httpx2.Response:
    """A request whose events have the id `mark`."""
    headers = {"ce-id": mark, **request.pop("headers", {})}
    return machine.http.post(f"{machine.ingress}/serving/default/{name}{path}", headers=headers, **request)


def infer(machine: MachineLab, name: str, mark: str, **parameters: Any) -> httpx2.Response:
    body = {**v2_body(ROWS), **({"parameters": parameters} if parameters else {})}
    answer = post(machine, name, f"/v2/models/{name}/infer", mark, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def two(sink: Sink, mark: str) -> tuple[CloudEvent, CloudEvent]:
    """The request and the response of the one exchange, told of once each."""
    wait_for(lambda: len(sink.of(mark)) >= 2, f"two events of {mark}")
    found = sink.of(mark)
    (request,) = [event for event in found if event.text("type") == REQUEST]
    (response,) = [event for event in found if event.text("type") == RESPONSE]
    return request, response


def revision_of(event: CloudEvent) -> str:
    """The revision, as whoever takes the event finds it."""
    (revision,) = json.loads(event.text("metadata"))[REVISION]
    return str(revision)


@pytest.mark.parametrize("by", ["pods", "envoy"])
def test_every_protocol_is_told_of_as_kserve_does_also_from_zero(
    machine: MachineLab, small_model: pathlib.Path, sink: Sink, by: str
) -> None:
    name = f"told-{by}"
    wanted = logger(sink.url, metadataHeaders=[REVISION, "X-User"], metadataAnnotations=["team", "none"])
    service = copied_by(by, inference_service(name, small_model, minReplicas=0, logger=wanted))
    service["metadata"]["annotations"] |= {
        "team": "flights, 100 %",
        "autoscaling.knative.dev/initial-scale": "0",
    }
    machine.apply(service)
    machine.wait_ready(name)
    logger_process(machine)

    sent = json.dumps(v2_body(ROWS)).encode()
    headers = {"content-type": "application/json", "x-user": "ann", "x-other": "not told"}
    # It waits for the first pod, and is told of once.
    answer = post(machine, name, f"/v2/models/{name}/infer", "held", content=sent, headers=headers)
    assert answer.status_code == 200
    for event, body in zip(two(sink, "held"), (sent, answer.content), strict=True):
        assert event.data == body
        assert event.text("specversion") == "1.0" and event.text("inferenceservicename") == name
        assert event.text("namespace") == "default" and event.text("component") == "predictor"
        assert event.text("source") == f"{name}-predictor-00001" and event.text("endpoint") == ""
        assert event.text("datacontenttype") == "application/json"
        metadata = {REVISION: [f"{name}-predictor-00001"], "X-User": ["ann"]}
        assert json.loads(event.text("metadata")) == metadata
        assert json.loads(event.text("annotations")) == {"team": "flights, 100 %"}
        assert event.text("time") <= event.text("recordedtime")

    v1 = post(machine, name, f"/v1/models/{name}:predict", "v1", json={"instances": ROWS})
    request, response = two(sink, "v1")
    assert json.loads(request.data or b"") == {"instances": ROWS} and response.data == v1.content

    tensor = Tensor.from_numpy("input-0", np.array(ROWS, np.float32))
    body, length = v2_json.encode_request(InferRequest(name, (tensor,)), binary=True)
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(length)}
    binary = post(machine, name, f"/v2/models/{name}/infer", "binary", content=body, headers=headers)
    assert binary.status_code == 200
    request, response = two(sink, "binary")
    assert (request.data, request.text("headerlength")) == (body, str(length))
    assert response.data == binary.content
    assert response.text("headerlength") == binary.headers.get("inference-header-content-length", "")

    message = v2_grpc.encode_infer_request(InferRequest(name, (tensor,)))
    with grpc.insecure_channel(machine.ingress.removeprefix("http://")) as channel:
        call = channel.unary_unary(f"/serving/default/{name}/inference.GRPCInferenceService/ModelInfer")
        reply = call(message, timeout=30, metadata=(("ce-id", "grpc"),))
    request, response = two(sink, "grpc")
    assert (request.data or b"")[5:] == message and (response.data or b"")[5:] == reply
    assert request.text("datacontenttype").startswith("application/grpc")

    # What is answered with an error is asked, not answered; what asks for no answer is neither.
    machine.http.get(f"{machine.ingress}/serving/default/{name}/v2/models/{name}", headers={"ce-id": "get"})
    wrong = post(machine, name, f"/v2/models/{name}/infer", "wrong", content=b"{")
    assert wrong.status_code == 400
    wait_for(lambda: sink.of("wrong"), "the request that was answered 400")
    machine.infer(name, ROWS)
    wait_for(lambda: len(sink.events) >= 11, "the events of a request without an id")
    assert [event.text("type") for event in sink.of("wrong")] == [REQUEST] and not sink.of("get")
    request, response = sorted(sink.events[-2:], key=lambda event: event.text("type"))
    assert request.text("id") == response.text("id") != ""
    wait_for(lambda: outcomes(machine, name) == {"delivered": 11}, "11 events delivered and no more")
    machine.delete(name)


def test_each_revision_tells_as_its_own_logger_says(
    machine: MachineLab, small_model: pathlib.Path, sink: Sink, other_sink: Sink
) -> None:
    name = "canaried"
    machine.apply(inference_service(name, small_model, logger=logger(sink.url, mode="request")))
    machine.wait_ready(name)
    logger_process(machine)
    changed = logger(other_sink.url, mode="response")
    machine.apply(inference_service(name, small_model, canaryTrafficPercent=50, logger=changed))
    second = f"{name}-predictor-00002"

    def is_split() -> bool:
        traffic = machine.get("ksvc", f"{name}-predictor")["status"].get("traffic") or ()
        return {t["revisionName"] for t in traffic if t.get("percent")} == {f"{name}-predictor-00001", second}

    wait_for(is_split, "a split over two revisions")
    marks = [f"split-{number}" for number in range(40)]
    answers = {mark: infer(machine, name, mark).json() for mark in marks}
    wait_for(lambda: len(sink.events) + len(other_sink.events) >= len(marks), "an event for each request")
    assert sorted(event.text("id") for event in sink.events + other_sink.events) == sorted(marks)
    assert {revision_of(event) for event in sink.events} == {f"{name}-predictor-00001"}
    assert {revision_of(event) for event in other_sink.events} == {second}
    assert {event.text("type") for event in sink.events} == {REQUEST}
    assert {event.text("type") for event in other_sink.events} == {RESPONSE}
    assert all(json.loads(e.data or b"") == answers[e.text("id")] for e in other_sink.events)
    machine.delete(name)


@pytest.mark.parametrize("protocol", ["v2", "grpc-v2"])
def test_the_predictor_of_a_separate_transformer_tells_of_the_tensor_between_them(
    machine: MachineLab, sink: Sink, protocol: str
) -> None:
    name = f"hop-{protocol}"
    service = paired(name, 5, None, is_locked=False, protocol=protocol)
    service["spec"]["predictor"]["logger"] = logger(sink.url)
    machine.apply(service)
    machine.wait_ready(name)
    logger_process(machine)
    assert machine.infer(name, ROWS).status_code == 200
    wait_for(lambda: len(sink.events) >= 2, "two events of the hop")
    request, response = sorted(sink.events, key=lambda event: event.text("type"))
    assert request.text("component") == "predictor" and request.text("id") == response.text("id")
    assert revision_of(request) == f"{name}-predictor-00001"
    if protocol == "v2":
        length = request.text("headerlength") or None
        seen = v2_json.decode_request(request.data or b"", header_length=length, model_name=name)
    else:
        seen = v2_grpc.decode_infer_request((request.data or b"")[5:])
    assert seen.inputs[0].shape[-1] == 5  # the transformer's features, not the caller's three
    machine.delete(name)


def test_a_sink_that_hangs_costs_events_and_nothing_else(
    machine: MachineLab, small_model: pathlib.Path, sink: Sink
) -> None:
    name = "hanging"
    sink.open.clear()
    machine.apply(inference_service(name, small_model, logger=logger(sink.url)))
    machine.wait_ready(name)
    process = logger_process(machine)

    def is_full() -> bool:
        # A megabyte each, of which 64 wait at most.
        infer(machine, name, "large", pad="x" * 2**20)
        return outcomes(machine, name)["dropped"] >= 10

    wait_for(is_full, f"dropped events; found {outcomes(machine, name)}")
    assert process.is_running() and process.memory_info().rss < 400 * 2**20
    events = wait_for(
        lambda: [e for e in machine.get("events")["items"] if e.get("reason") == "PayloadsLost"],
        "a warning on the InferenceService",
    )
    assert {(e["type"], e["involvedObject"]["kind"], e["involvedObject"]["name"]) for e in events} == {
        ("Warning", "InferenceService", name)
    }
    assert len(events) == 1 and events[0].get("count", 1) == 1, "one a minute at most"
    sink.open.set()
    wait_for(lambda: outcomes(machine, name)["delivered"] >= 30, "what waited to be sent")
    infer(machine, name, "after")
    two(sink, "after")
    machine.delete(name)


def test_what_a_sink_does_not_take_is_counted(
    machine: MachineLab, small_model: pathlib.Path, sink: Sink
) -> None:
    name = "refusing"
    machine.apply(inference_service(name, small_model, logger=logger(sink.url)))
    machine.wait_ready(name)
    logger_process(machine)
    for status, outcome in ((400, "refused"), (503, "failed")):
        sink.status = status
        infer(machine, name, f"answered {status}")
        wait_for(lambda wanted=outcome: outcomes(machine, name)[wanted] == 2, f"2 events {outcome}")
    # 503 may go better: tried three times each; 400 once.
    assert sink.messages == 2 + 2 * 3
    sink.close()
    infer(machine, name, "nobody listens")
    wait_for(lambda: outcomes(machine, name)["failed"] == 4, "2 events more that failed")
    machine.delete(name)


def test_without_a_url_the_namespaces_broker_gets_batches(
    machine: MachineLab, small_model: pathlib.Path, sink: Sink
) -> None:
    name = "brokered"
    eventing = {"apiVersion": "eventing.knative.dev/v1", "metadata": {"name": "default"}}
    subscriber = {"broker": "default", "subscriber": {"uri": sink.url}}
    machine.apply(
        {**eventing, "kind": "Broker"},
        {**eventing, "kind": "Trigger", "spec": subscriber},
        inference_service(name, small_model, logger=logger(None)),
    )
    machine.wait_ready(name)
    logger_process(machine)
    answer = infer(machine, name, "batched")
    request, response = two(sink, "batched")
    assert json.loads(request.data or b"") == v2_body(ROWS) and response.data == answer.content
    assert revision_of(request) == f"{name}-predictor-00001"
    machine.delete(name)


@pytest.mark.parametrize("by", ["pods", "envoy"])
def test_a_logger_that_is_killed_comes_back_and_what_it_held_is_told_of(
    machine: MachineLab, small_model: pathlib.Path, sink: Sink, by: str
) -> None:
    """What comes while there is no logger waits for the next one."""
    name = f"killed-{by}"
    machine.apply(copied_by(by, inference_service(name, small_model, logger=logger(sink.url))))
    machine.wait_ready(name)
    process = logger_process(machine)
    infer(machine, name, "before")
    wait_for(lambda: outcomes(machine, name)["delivered"] == 2, "two events delivered")
    sink.open.clear()
    uncopied = outcomes(machine)["uncopied"]
    for number in range(20):
        infer(machine, name, f"held {number}")
    # Every one of them is known to be waiting, at the sink's door or before it.
    wait_for(lambda: waiting(machine) >= 36, "events that wait")
    process.kill()
    # Until then its sockets are open, and take what nobody will read.
    process.wait(60)
    for number in range(20):
        infer(machine, name, f"meanwhile {number}")
    wait_for(lambda: outcomes(machine, name)["lost"] == 40, "the loss to be counted")
    assert outcomes(machine, name)["delivered"] == 2, "the counters of the process before are kept"
    assert logger_process(machine).pid != process.pid
    wait_for(lambda: waiting(machine) >= 36, "events of the process that came after")
    sink.open.set()
    infer(machine, name, "after")
    for mark in (*(f"meanwhile {number}" for number in range(20)), "after"):
        two(sink, mark)
    assert outcomes(machine)["uncopied"] == uncopied
    said = [e["message"] for e in machine.get("events")["items"] if e["involvedObject"]["name"] == name]
    assert any("process ended" in text for text in said), said
    machine.delete(name)


def waiting(machine: MachineLab) -> int:
    """How many events wait for their sinks."""
    page = api(machine).get("/metrics").text
    families = text_string_to_metric_families(page)
    return sum(int(f.samples[0].value) for f in families if f.name == "glowplug_payload_events_waiting")


def test_a_logger_that_stands_still_delays_nobody_and_the_rest_is_counted(
    machine: MachineLab, small_model: pathlib.Path, sink: Sink
) -> None:
    name = "still"
    machine.apply(inference_service(name, small_model, logger=logger(sink.url)))
    machine.wait_ready(name)
    process = logger_process(machine)
    infer(machine, name, "before")
    two(sink, "before")
    uncopied = outcomes(machine)["uncopied"]
    process.suspend()
    try:

        def is_behind() -> bool:
            # Some 13 MB wait for it.
            infer(machine, name, "large", pad="x" * 2**20)
            infer(machine, name, "still")
            return outcomes(machine)["uncopied"] > uncopied

        wait_for(is_behind, "requests beyond what waits for the logger")
    finally:
        process.resume()
    # What waited is told of; the logger is the same process.
    wait_for(lambda: len(sink.of("large")) >= 10, "what waited")
    infer(machine, name, "after")
    two(sink, "after")
    assert process.is_running() and outcomes(machine, name)["lost"] == 0
    machine.delete(name)


def test_a_sample_is_what_it_says(machine: MachineLab, small_model: pathlib.Path, sink: Sink) -> None:
    name = "sampled"
    service = inference_service(name, small_model, logger=logger(sink.url, mode="request"))
    service["metadata"]["annotations"]["glowplug.dev/logger-sample-percent"] = "50"
    machine.apply(service)
    machine.wait_ready(name)
    logger_process(machine)
    uncopied = outcomes(machine)["uncopied"]
    marks = [f"sample-{number}" for number in range(200)]
    for mark in marks:
        infer(machine, name, mark)
    # Half of 200, give or take six times the standard deviation.
    wait_for(lambda: outcomes(machine, name)["delivered"] > 57, "the sample")
    found = [event.text("id") for event in list(sink.events)]
    assert len(set(found)) == len(found) < 143 and set(found) <= set(marks)
    assert outcomes(machine)["uncopied"] == uncopied
    machine.delete(name)


def test_a_machine_that_was_killed_tells_again(
    machine: MachineLab, small_model: pathlib.Path, sink: Sink
) -> None:
    """The next router has another secret, which the pods that come back have to know. The last test of this file."""
    name = "again"
    machine.apply(inference_service(name, small_model, logger=logger(sink.url)))
    machine.wait_ready(name)
    infer(machine, name, "before")
    two(sink, "before")
    machine.kill()
    machine.up()
    infer(machine, name, "after")
    two(sink, "after")
    machine.delete(name)
