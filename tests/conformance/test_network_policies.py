"""The bundle's NetworkPolicies: everything works with them, and nothing is reached but what they name.

It takes a cluster whose network plugin enforces policies; kindnet, Calico and Cilium do, a plain bridge does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance.closed import ELSEWHERE, SPACES, Spaces, spaces
from conformance.features import NAME as REDIS
from conformance.features import online_store
from conformance.recorder import Recorder, recorder
from conformance.target import READY_TIMEOUT_S, Object, Target, service
from conformance.test_eventing import CLASS
from conformance.test_features import ROWS, SEPARATE, VIEW, separate
from conformance.test_logger import REQUEST, RESPONSE
from local.machine_lab import wait_for, write_model
from unit.features.lab import to_yaml

# Five namespaces and a dozen pods have to come up before the first case.
pytestmark = pytest.mark.timeout(600)
BROKER = "default"
ASKED = 60
# How long it may take until a plugin acts on a policy.
ENFORCED_S = 20.0
MODEL = "model.ubj"
ASLEEP = "asleep"
PIPELINE = {"glowplug.dev/part": "pipeline"}
WEBHOOK = {"app.kubernetes.io/name": "rollout"}
API = "kubernetes.default.svc:443"
INTERNAL_GATEWAY = "kourier-internal.kourier-system.svc:80"
BROKER_INGRESS = "broker-ingress.knative-eventing.svc:80"


@pytest.fixture(scope="module")
def closed(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spaces]:
    """The policies are there before anything that they are for; skips where they are not enforced."""
    if target.is_local:
        pytest.skip("pods of the local machine are processes: policies have no meaning there")
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    with spaces(target) as found:
        found.listener("backing", "store", (9000, 5000, 5432), files={MODEL: (folder / MODEL).read_bytes()})
        found.listener(ELSEWHERE, "stranger", (8000, 443))
        found.listener("monitoring", "prometheus", (9090,))
        found.listener("glowplug", "rollout", (8081, 8443), WEBHOOK)
        found.listener("serving", "pipeline", (8000,), PIPELINE)
        for space in (*SPACES, ELSEWHERE):
            found.within(space).wait("pod", "--all")
        store = f"store.{found.name('backing')}:9000"
        found.settle(ELSEWHERE, "stranger", "listener", {store: True})
        found.apply(found.policies(*SPACES))
        if not _is_enforced(found, store):
            pytest.skip("the cluster's network plugin does not enforce NetworkPolicies")
        yield found


def _is_enforced(closed: Spaces, store: str) -> bool:
    def is_refused() -> bool:
        return not closed.reaches(ELSEWHERE, "stranger", "listener", [store])[store]

    try:
        wait_for(is_refused, "the policies to act", ENFORCED_S)
    except AssertionError:
        return False
    return True


@pytest.fixture(scope="module")
def events(closed: Spaces) -> Iterator[Recorder]:
    """What a Broker among the models is sent."""
    serving = closed.within("serving")
    with recorder(serving, "recorder") as sink:
        serving.apply(
            {
                "apiVersion": "eventing.knative.dev/v1",
                "kind": "Broker",
                "metadata": {"name": BROKER, "annotations": CLASS},
            }
        )
        serving.apply(
            {
                "apiVersion": "eventing.knative.dev/v1",
                "kind": "Trigger",
                "metadata": {"name": "all"},
                "spec": {"broker": BROKER, "subscriber": sink.ref},
            }
        )
        serving.wait(f"broker/{BROKER}", "trigger/all")
        yield sink


@pytest.fixture(scope="module")
def serving(closed: Spaces, events: Recorder) -> Iterator[Target]:
    """A transformer that looks features up in the other namespace, and a predictor whose model comes from there."""
    target = closed.within("serving")
    with online_store(closed.within("backing"), VIEW, ROWS) as url:
        data = {"feature-store": {"REDIS_URL": url}, "feature-views": {"feature_view.yaml": to_yaml(VIEW)}}
        for name, content in data.items():
            target.apply(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": content}
            )
        both = separate(target)
        predictor = both["spec"]["predictor"]
        predictor["model"]["storageUri"] = model_uri(closed)
        predictor["logger"] = {
            "mode": "all",
            "url": str(target.get("broker", BROKER)["status"]["address"]["url"]),
        }
        target.apply(both)
        target.wait_ready(SEPARATE)
        yield target
        target.delete(SEPARATE)


def model_uri(closed: Spaces) -> str:
    return f"http://store.{closed.name('backing')}:9000/{MODEL}"


def ask(target: Target) -> list[float]:
    url, host = target.address(SEPARATE)
    tensor = {"name": "rider_id", "datatype": "BYTES", "shape": [len(ROWS)], "data": list(ROWS)}
    answer = target.http.post(
        f"{url}/v2/models/{SEPARATE}/infer", json={"inputs": [tensor]}, headers={"Host": host}
    )
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["outputs"][0]["data"]
    return found


def pod(target: Target, component: str) -> Object:
    (found,) = (
        each for each in target.pods(SEPARATE) if each["metadata"]["labels"]["component"] == component
    )
    return found


def test_predictions_with_features(serving: Target) -> None:
    """Through the gateway, the transformer, and the gateway inside."""
    for _ in range(ASKED):
        assert ask(serving) == pytest.approx([sum(ROWS["ann"]), sum(ROWS["bob"])], abs=0.3)


def test_to_zero_and_back(closed: Spaces) -> None:
    """The autoscaler counts, the activator asks, the model comes again."""
    target = closed.within("serving")
    target.apply(service(target, ASLEEP, model={"storageUri": model_uri(closed)}, minReplicas=0))
    try:
        target.wait_ready(ASLEEP)
        assert target.infer(ASLEEP).status_code == 200
        wait_for(lambda: not target.pods(ASLEEP), "no pod", READY_TIMEOUT_S)
        assert target.infer(ASLEEP).status_code == 200
    finally:
        target.delete(ASLEEP)


def test_payloads_arrive_by_the_broker(serving: Target, events: Recorder) -> None:
    # A Trigger that is Ready may miss events for a second.
    def arrived() -> set[str]:
        ask(serving)
        return {each["headers"]["ce-type"] for each in events.events()}

    wait_for(lambda: {REQUEST, RESPONSE} <= arrived(), "both kinds of events", READY_TIMEOUT_S)


def test_a_predictor_reaches_what_it_needs_only(closed: Spaces, serving: Target) -> None:
    ask(serving)
    backing = closed.name("backing")
    transformer = pod(serving, "transformer")["status"]["podIP"]
    expected = {
        f"{REDIS}.{backing}:6379": True,
        f"store.{backing}:9000": True,
        INTERNAL_GATEWAY: True,
        BROKER_INGRESS: True,
        f"store.{backing}:5432": False,
        API: False,
        **dict.fromkeys(_api_servers(serving), False),
        # Models come from public addresses only.
        **{f"stranger.{closed.name(ELSEWHERE)}:{port}": False for port in (443, 8000)},
        f"prometheus.{closed.name('monitoring')}:9090": False,
        f"{transformer}:8012": False,
    }
    closed.settle("serving", pod(serving, "predictor")["metadata"]["name"], "kserve-container", expected)


def test_strangers_reach_nothing(closed: Spaces, serving: Target) -> None:
    ask(serving)
    backing, address = closed.name("backing"), pod(serving, "predictor")["status"]["podIP"]
    expected = {
        f"{REDIS}.{backing}:6379": False,
        f"store.{backing}:9000": False,
        **{f"{address}:{port}": False for port in (8012, 8080, 9090, 9091)},
        f"pipeline.{closed.name('serving')}:8000": False,
        f"rollout.{closed.name('glowplug')}:8081": False,
        # The API server calls it, from an address that nobody knows.
        f"rollout.{closed.name('glowplug')}:8443": True,
    }
    closed.settle(ELSEWHERE, "stranger", "listener", expected)


def test_prometheus_reaches_what_it_scrapes_only(closed: Spaces, serving: Target) -> None:
    ask(serving)
    address = pod(serving, "predictor")["status"]["podIP"]
    expected = {
        f"{address}:8080": True,
        f"{address}:9091": True,
        f"{address}:8012": False,
        f"{REDIS}.{closed.name('backing')}:6379": False,
    }
    closed.settle("monitoring", "prometheus", "listener", expected)


def test_controllers_reach_what_they_need_only(closed: Spaces, serving: Target) -> None:
    ask(serving)
    expected = {
        API: True,
        f"prometheus.{closed.name('monitoring')}:9090": True,
        BROKER_INGRESS: True,
        # What the drift detector knows of labels.
        INTERNAL_GATEWAY: True,
        f"{REDIS}.{closed.name('backing')}:6379": False,
        f"{pod(serving, 'predictor')['status']['podIP']}:8012": False,
        f"stranger.{closed.name(ELSEWHERE)}:8000": False,
    }
    closed.settle("glowplug", "rollout", "listener", expected)


def test_pipelines_reach_what_they_need_only(closed: Spaces, serving: Target) -> None:
    ask(serving)
    backing = closed.name("backing")
    expected = {
        API: True,
        f"{REDIS}.{backing}:6379": True,
        **{f"store.{backing}:{port}": True for port in (5000, 5432, 9000)},
        BROKER_INGRESS: True,
        f"{pod(serving, 'predictor')['status']['podIP']}:8012": False,
        f"stranger.{closed.name(ELSEWHERE)}:8000": False,
    }
    closed.settle("serving", "pipeline", "listener", expected)


def _api_servers(target: Target) -> list[str]:
    """Where they really are, behind the Service."""
    slices = target.get("endpointslices", "", "-ndefault", "-lkubernetes.io/service-name=kubernetes")["items"]
    return [
        f"{address}:{port['port']}"
        for each in slices
        for port in each["ports"]
        for endpoint in each["endpoints"]
        for address in endpoint["addresses"]
    ]
