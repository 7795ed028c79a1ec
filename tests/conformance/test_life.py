"""An InferenceService from its creation to its end: applied, found at its addresses, updated under load, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import grpc
import pytest
from conformance.recorder import Recorder
from conformance.statuses import KINDS
from conformance.target import READY_TIMEOUT_S, REQUEST_TIMEOUT_S, Object, Target, service
from local.machine_lab import wait_for
from local.machine_load import CHANNEL, INFER, infer_message

Served = Callable[[Object], str]
NAME = "addressed"


@pytest.fixture(scope="module")
def addressed(target: Target) -> Iterator[Object]:
    """The status of one that is there for the cases that only ask."""
    target.apply(service(target, NAME, minReplicas=1))
    try:
        target.wait_ready(NAME)
        yield target.get("isvc", NAME)["status"]
    finally:
        target.delete(NAME)


def hosted(target: Target, url: str) -> tuple[str, str]:
    """An ingress and the host that leads to the service by itself: that of its URL, here one of the machine's own."""
    parts = urlsplit(url)
    if target.is_local:
        return f"{parts.scheme}://{parts.netloc}", f"{NAME}.{target.namespace}.localhost"
    return target.gateway or f"{parts.scheme}://{parts.netloc}", parts.netloc


def test_a_host_leads_to_the_service(target: Target, addressed: Object) -> None:
    ingress, host = hosted(target, addressed["url"])
    path = f"{ingress}/v2/models/{NAME}/ready"
    assert target.http.get(path, headers={"Host": host}).status_code == 200
    # Hosts are the same in any case, and with a port.
    assert target.http.get(path, headers={"Host": f"{host.upper()}:80"}).status_code == 200
    assert target.http.get(path, headers={"Host": f"nobody.{host}"}).status_code == 404


def test_a_host_leads_to_the_service_over_grpc(target: Target, addressed: Object) -> None:
    """Its pods have one port, for HTTP: what they say to gRPC is theirs, that they are asked is the ingress's."""
    ingress, host = hosted(target, addressed["url"])
    found = {}
    for name, authority in (("known", host), ("unknown", f"nobody.{host}")):
        options = [*CHANNEL, ("grpc.default_authority", authority)]
        with grpc.insecure_channel(urlsplit(ingress).netloc, options=options) as channel:
            try:
                channel.unary_unary(INFER)(infer_message(NAME), timeout=REQUEST_TIMEOUT_S)
                found[name] = "OK"
            except grpc.RpcError as error:
                found[name] = error.code().name
    assert found["unknown"] == "UNIMPLEMENTED", found
    assert found["known"] != found["unknown"] or not target.is_local, found


def test_a_path_leads_to_the_service(target: Target, addressed: Object) -> None:
    if not target.is_local:
        pytest.skip("KServe routes by path through Istio or the Gateway API only, not through kourier")
    parts = urlsplit(addressed["url"])
    assert parts.path == f"/serving/{target.namespace}/{NAME}"
    base = f"{parts.scheme}://{parts.netloc}"
    assert target.http.get(f"{base}{parts.path}/v2/models/{NAME}/ready").status_code == 200
    assert target.http.get(f"{base}{parts.path}x/v2/models/{NAME}/ready").status_code == 404


def test_the_cluster_knows_it_by_addresses_of_its_own(
    target: Target, addressed: Object, sink: Recorder
) -> None:
    component = addressed["components"]["predictor"]
    for url in (addressed["address"]["url"], component["address"]["url"]):
        answer = sink.ask("GET", f"{url.rstrip('/')}/v2/models/{NAME}")
        assert answer.status == 200, (url, answer)
    namespaced = sink.ask("GET", f"http://{NAME}-predictor.{target.namespace}/v2/models/{NAME}")
    # What DNS does in a cluster; the local machine replaces such names where a container's arguments have them.
    assert namespaced.status == (0 if target.is_local else 200), namespaced


def test_what_is_applied_twice_changes_nothing(target: Target, addressed: Object) -> None:
    before = target.get("isvc", NAME)["metadata"]
    applied = target.apply(service(target, NAME, minReplicas=1))
    assert "unchanged" in applied.stdout
    after = target.get("isvc", NAME)["metadata"]
    assert after["generation"] == before["generation"]
    assert target.revisions(NAME) == [f"{NAME}-predictor-00001"]


def test_an_update_costs_no_request_and_a_deletion_leaves_nothing(target: Target, served: Served) -> None:
    name = served(service(target, "shortlived", minReplicas=1))
    first, second = (f"{name}-predictor-0000{number}" for number in (1, 2))
    with target.load(name, 2) as failures:
        target.apply(service(target, name, minReplicas=1, model={"env": [{"name": "VERSION", "value": "2"}]}))
        wait_for(
            lambda: (
                target.get("isvc", name)["status"]["components"]["predictor"]["latestRolledoutRevision"]
                == second
            ),
            "the new version",
            READY_TIMEOUT_S,
        )
        target.wait_ready(name)
    assert failures == []
    assert target.revisions(name) == [first, second]
    assert target.get("isvc", name)["metadata"]["generation"] == 2

    url, host = target.address(name)
    target.delete(name)
    label = f"-lserving.kserve.io/inferenceservice={name}"
    for kind in KINDS[1:]:
        wait_for(
            lambda kind=kind: not target.get(kind, "", label)["items"],
            f"{kind} of {name} to go",
            READY_TIMEOUT_S,
        )
    asked = f"{url}/v2/models/{name}"
    wait_for(
        lambda: target.http.get(asked, headers={"Host": host}).status_code == 404,
        "the address to go",
        READY_TIMEOUT_S,
    )


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("minReplicas", -1, "'MinReplicas' cannot be less than 0"),
        ("maxReplicas", -1, "'MaxReplicas' cannot be less than 0"),
        ("containerConcurrency", -1, "parallelism cannot be less than 0"),
        ("scaleMetric", "weight", "spec.predictor.scaleMetric"),
    ],
)
def test_a_wrong_one_is_refused(target: Target, field: str, value: object, expected: str) -> None:
    refused = target.apply(service(target, "refused", **{field: value}), check=False)
    try:
        assert refused.returncode != 0, refused.stdout
        assert expected in refused.stderr, refused.stderr
    finally:
        target.kubectl("delete", "isvc", "refused", "--ignore-not-found")
