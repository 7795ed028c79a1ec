"""Canaries on a whole machine under load: shares as they are asked for, no failed request, tags, affinity."""

from __future__ import annotations

import http.client
import json
import pathlib
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
import xgboost
from local.binomial import interval
from local.machine_lab import MachineLab, Object, inference_service, v2_body, wait_for
from local.machine_load import CHANNEL, INFER, ROWS, infer_message

from glowplug.spec import names
from glowplug.wire import v2_grpc

# The two versions answer with numbers that are this far apart.
SHIFT = 10.0
ENOUGH = 400
Metadata = tuple[tuple[str, str], ...]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Two models of three features; the second's answers are larger by `SHIFT`."""
    rows = np.random.default_rng(0).random((500, 3), dtype=np.float32)
    found: dict[str, pathlib.Path] = {}
    for name, shift in (("v1", 0.0), ("v2", SHIFT)):
        matrix = xgboost.DMatrix(rows, label=rows.sum(axis=1) + shift)
        found[name] = tmp_path_factory.mktemp(name)
        booster = xgboost.train({"max_depth": 3, "nthread": 1}, matrix, num_boost_round=20)
        booster.save_model(found[name] / "model.ubj")
    return found


def side(value: float) -> str:
    return "v2" if value > SHIFT / 2 else "v1"


@dataclass
class Sides:
    """Clients that ask without pause and never retry, by REST and by gRPC; what answered them, and what failed."""

    machine: MachineLab
    name: str
    failures: list[str] = field(default_factory=list)
    _seen: list[tuple[str, int, str]] = field(default_factory=list)
    # Counts up at each `measure`; a request carries what it was when the request was sent.
    _phase: int = 0
    _is_over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Sides:
        self._threads = [
            threading.Thread(target=ask) for ask in (self._rest, self._rest, self._grpc, self._grpc)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def measure(self) -> dict[str, Counter[str]]:
        """What answers requests that are sent from now on, by protocol."""
        self._phase += 1
        phase = self._phase

        def counts() -> dict[str, Counter[str]]:
            found: dict[str, Counter[str]] = {"rest": Counter(), "grpc": Counter()}
            for protocol, sent_in, answered in tuple(self._seen):
                if sent_in == phase:
                    found[protocol][answered] += 1
            return found

        def is_enough() -> bool:
            return all(sum(count.values()) >= ENOUGH for count in counts().values()) or bool(self.failures)

        wait_for(is_enough, f"{ENOUGH} answers of each protocol")
        return counts()

    def _rest(self) -> None:
        body = json.dumps(v2_body(ROWS))
        path = f"/serving/default/{self.name}/v2/models/{self.name}/infer"
        connection = http.client.HTTPConnection(
            urllib.parse.urlsplit(self.machine.ingress).netloc, timeout=30
        )
        while not self._is_over.wait(0.002):
            phase = self._phase
            try:
                connection.request("POST", path, body, {"content-type": "application/json"})
                response = connection.getresponse()
                text = response.read()
                if response.status != 200:
                    raise OSError(f"{response.status} {text!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"rest: {error!r}")
                connection.close()
                continue
            self._seen.append(("rest", phase, side(json.loads(text)["outputs"][0]["data"][0])))
        connection.close()

    def _grpc(self) -> None:
        while not self._is_over.is_set():
            with Caller(self.machine, self.name) as infer:
                while not self._is_over.wait(0.002):
                    phase = self._phase
                    try:
                        answered = infer()
                    except grpc.RpcError as error:
                        self.failures.append(f"grpc: {error.code()} {error.details()}")
                        break
                    self._seen.append(("grpc", phase, answered))


class Caller:
    """`with Caller(machine, name, host) as infer: infer(("header", "value"))` is the side that answered by gRPC."""

    def __init__(self, machine: MachineLab, name: str, host: str = "") -> None:
        authority = f"{host or name}.default.localhost"
        options: list[tuple[str, Any]] = [
            *CHANNEL, ("grpc.default_authority", authority), ("grpc.use_local_subchannel_pool", 1)
        ]  # fmt: skip
        self._channel = grpc.insecure_channel(urllib.parse.urlsplit(machine.ingress).netloc, options=options)
        self._message = infer_message(name)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def __call__(self, *metadata: tuple[str, str]) -> str:
        raw = self._channel.unary_unary(INFER)(self._message, metadata=metadata, timeout=30)
        (output,) = v2_grpc.decode_infer_response(raw).outputs
        return side(float(output.as_numpy()[0]))


def rest(machine: MachineLab, name: str, host: str = "", **headers: str) -> str:
    """The side that answered by REST: by path, or by the name of a host; `_` in a header's name for `-`."""
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    prefix = "" if host else f"/serving/default/{name}"
    if host:
        sent["Host"] = f"{host}.default.localhost"
    url = f"{machine.ingress}{prefix}/v2/models/{name}/infer"
    answer = machine.http.post(url, json=v2_body(ROWS), headers=sent)
    assert answer.status_code == 200, answer.text
    return side(answer.json()["outputs"][0]["data"][0])


def component(machine: MachineLab, name: str) -> Object:
    found: Object = machine.get("isvc", name)["status"]["components"]["predictor"]
    return found


def set_percent(machine: MachineLab, name: str, percent: int | None) -> None:
    """Patch the field, and wait until the ingress has confirmed the new weights."""
    patch = json.dumps({"spec": {"predictor": {"canaryTrafficPercent": percent}}})
    machine.kubectl("patch", "isvc", name, "--type=merge", "-p", patch)
    wait_share(machine, name, 100 if percent is None else percent)


def wait_share(machine: MachineLab, name: str, percent: int) -> None:
    first, second = f"{name}-predictor-00001", f"{name}-predictor-00002"
    wanted = {revision: share for revision, share in ((first, 100 - percent), (second, percent)) if share}

    def is_so() -> bool:
        route = machine.get("routes.serving.knative.dev", f"{name}-predictor")
        status = route["status"]
        shares: Counter[str] = Counter()
        for target in status.get("traffic", ()):
            shares[target["revisionName"]] += target["percent"]
        is_ready = all(condition["status"] == "True" for condition in status["conditions"])
        is_observed = status["observedGeneration"] == route["metadata"]["generation"]
        return is_ready and is_observed and dict(+shares) == wanted

    wait_for(is_so, f"{percent} % for {second}")
    wait_for(
        lambda: (
            sum(t["percent"] for t in component(machine, name)["traffic"] if t["revisionName"] == second)
            == percent
        ),
        f"{percent} % in the status of {name}",
    )


@pytest.fixture
def canary(
    machine: MachineLab, versions: dict[str, pathlib.Path], request: pytest.FixtureRequest
) -> Iterator[str]:
    """An InferenceService with tags whose second version has 10 %."""
    name = f"canary-{request.node.name.removeprefix('test_').split('[')[0].replace('_', '-')[:20].strip('-')}"
    for version, percent in (("v1", None), ("v2", 10)):
        service = inference_service(name, versions[version], minReplicas=1, canaryTrafficPercent=percent)
        service["metadata"]["annotations"][names.ENABLE_TAG_ROUTING] = "true"
        machine.apply(service)
        if percent is None:
            machine.wait_ready(name)
    wait_share(machine, name, 10)
    yield name
    machine.delete(name)


def test_weights_change_under_load_without_a_failure(machine: MachineLab, canary: str) -> None:
    first, second = f"{canary}-predictor-00001", f"{canary}-predictor-00002"
    with Sides(machine, canary) as load:
        assert_shares(load, 10)
        # At 100 the canary is promoted; less than that afterwards is a rollback to what was there before it.
        for percent in (50, 100, 50, 10, 0):
            set_percent(machine, canary, percent)
            assert_shares(load, percent)
            rolled_out = component(machine, canary)["latestRolledoutRevision"]
            assert rolled_out == (second if percent == 100 else first)
        # And promotion by removing the field.
        set_percent(machine, canary, None)
        assert_shares(load, 100)
    assert not load.failures, load.failures[:5]
    found = component(machine, canary)
    assert (found["latestRolledoutRevision"], found["previousRolledoutRevision"]) == (second, first)


def assert_shares(load: Sides, percent: int) -> None:
    """Each protocol's share is within the 99.9 % interval; one outside is measured once more, as one in 1,000 is."""
    for counts in (load.measure(), load.measure()):
        told = {protocol: dict(count) for protocol, count in counts.items()}
        assert not load.failures, (percent, told, load.failures[:5])
        outside = []
        for protocol, count in counts.items():
            low, high = interval(sum(count.values()), percent)
            if not low <= count["v2"] <= high:
                outside.append((protocol, low, high))
        if not outside:
            return
        assert percent not in (0, 100), (percent, told)
    raise AssertionError(f"{percent} %: twice outside {outside}: {told}")


def test_tags_by_host_and_by_header(machine: MachineLab, canary: str) -> None:
    for tag, expected in (("latest", "v2"), ("prev", "v1")):
        host = f"{tag}-{canary}-predictor"
        by_header: Metadata = ((names.TAG_HEADER, tag),)
        with Caller(machine, canary, host) as by_host, Caller(machine, canary) as main:
            for _ in range(10):
                assert rest(machine, canary, host) == expected
                assert by_host() == expected
                # On the InferenceService's own address, by path and by host, and on its predictor's.
                assert rest(machine, canary, Knative_Serving_Tag=tag) == expected
                assert rest(machine, canary, canary, Knative_Serving_Tag=tag) == expected
                assert rest(machine, canary, f"{canary}-predictor", Knative_Serving_Tag=tag) == expected
                assert main(*by_header) == expected
    listed = {target["tag"]: target["url"] for target in component(machine, canary)["traffic"]}
    assert set(listed) == {"latest", "prev"}
    for tag, expected in (("latest", "v2"), ("prev", "v1")):
        answer = machine.http.post(f"{listed[tag]}/v2/models/{canary}/infer", json=v2_body(ROWS))
        assert side(answer.json()["outputs"][0]["data"][0]) == expected
    # A tag that is not there is none: the weights decide.
    sides = Counter(rest(machine, canary, Knative_Serving_Tag="nobody") for _ in range(50))
    assert sides["v1"] > sides["v2"]


def test_the_same_user_stays_on_one_side(machine: MachineLab, canary: str) -> None:
    key = f"{names.CANARY_AFFINITY}=header:X-User-Id"
    machine.kubectl("annotate", "isvc", canary, key)
    users = [f"user-{number}" for number in range(100)]

    def is_known() -> bool:
        return len({rest(machine, canary, X_User_Id="one") for _ in range(60)}) == 1

    # Of 60 by chance at 10 % one in 500 would be alike; then the rest of the test would fail.
    wait_for(is_known, "the annotation to take hold")
    revisions = machine.get("revisions", "", f"-lserving.knative.dev/configuration={canary}-predictor")[
        "items"
    ]
    assert len(revisions) == 2, "an annotation about routing made a revision"
    before: set[str] = set()
    for percent in (10, 50):
        set_percent(machine, canary, percent)
        sides = {user: rest(machine, canary, X_User_Id=user) for user in users}
        assert sides == {user: rest(machine, canary, X_User_Id=user) for user in users}
        with Caller(machine, canary) as infer:
            assert sides == {user: infer(("x-user-id", user)) for user in users}
        moved = {user for user in users if sides[user] == "v2"}
        assert before <= moved
        low, high = interval(len(users), percent)
        assert low <= len(moved) <= high
        before = moved
    refused = machine.kubectl(
        "annotate", "isvc", canary, f"{names.CANARY_AFFINITY}=user", "--overwrite", check=False
    )
    assert refused.returncode != 0
    assert "header:<name> or cookie:<name>" in refused.stderr


def test_a_canary_that_never_starts_takes_no_request(
    machine: MachineLab, versions: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    name = "canary-broken"
    (tmp_path / "model.ubj").write_text("no model")
    machine.apply(inference_service(name, versions["v1"], minReplicas=1))
    machine.wait_ready(name)
    with Sides(machine, name) as load:
        machine.apply(inference_service(name, tmp_path, minReplicas=1, canaryTrafficPercent=50))
        failed = machine.kubectl(
            "wait", "--for=condition=PredictorReady=False", "--timeout=50s", f"isvc/{name}", check=False
        )
        assert failed.returncode == 0, machine.account()
        assert {protocol: set(count) for protocol, count in load.measure().items()} == {
            "rest": {"v1"},
            "grpc": {"v1"},
        }
    assert not load.failures, load.failures[:5]
    status = machine.get("isvc", name)["status"]
    told = {condition["type"]: condition for condition in status["conditions"]}
    assert told["LatestDeploymentReady"]["status"] == told["Ready"]["status"] == "False"
    assert f"{name}-predictor-00002" in told["PredictorReady"]["message"]
    assert told["PredictorRouteReady"]["status"] == "True"
    assert status["components"]["predictor"]["latestRolledoutRevision"] == f"{name}-predictor-00001"
    # While the container is at its next attempt it is InProgress, as in KServe.
    wait_for(
        lambda: (
            machine.get("isvc", name)["status"]["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
        ),
        "the failed load to be told",
        60.0,
    )
    machine.delete(name)


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_percentage_out_of_bounds_is_refused(
    machine: MachineLab, versions: dict[str, pathlib.Path], percent: int
) -> None:
    wrong = json.dumps(inference_service("canary-wrong", versions["v1"], canaryTrafficPercent=percent))
    refused = machine.kubectl("create", "--dry-run=server", "-f", "-", stdin=wrong, check=False)
    assert refused.returncode != 0
    assert f"canaryTrafficPercent: expected 0 <= {percent} <= 100" in refused.stderr
