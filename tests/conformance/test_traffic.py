"""Who gets which share: canary percentages to promotion and rollback, and the tags of a split by host and by header."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from conformance.target import READY_TIMEOUT_S, Object, Target, service
from local.binomial import interval
from local.machine_lab import wait_for

Served = Callable[[Object], str]
ENOUGH = 400
TAG_HEADER = "Knative-Serving-Tag"
TAGGED = {"serving.kserve.io/enable-tag-routing": "true"}
# One model for both versions, so the second one serves it by another name.
NAME_OF_SECOND = "second"


def versions(target: Target, name: str, minimum: int, percent: int | None) -> Object:
    """The InferenceService with its second version, and a share of the requests for it."""
    model = {"args": [f"--model_name={NAME_OF_SECOND}"]}
    share = {} if percent is None else {"canaryTrafficPercent": percent}
    return service(target, name, TAGGED, minReplicas=minimum, model=model, **share)


def revision(name: str, number: int) -> str:
    return f"{name}-predictor-{number:05d}"


def set_percent(target: Target, name: str, percent: int | None) -> None:
    patch = {"spec": {"predictor": {"canaryTrafficPercent": percent}}}
    target.kubectl("patch", "isvc", name, "--type=merge", "-p", json.dumps(patch))


def wait_shares(target: Target, name: str, *shares: int) -> None:
    """Until the ingress is said to run these shares, in the order of the revisions."""
    wanted = {revision(name, number): share for number, share in enumerate(shares, 1) if share}

    def is_so() -> bool:
        route = target.get("routes.serving.knative.dev", f"{name}-predictor")
        found: Counter[str] = Counter()
        for each in route["status"].get("traffic", ()):
            found[each["revisionName"]] += each.get("percent", 0)
        is_observed = route["status"].get("observedGeneration") == route["metadata"]["generation"]
        is_ready = all(each["status"] == "True" for each in route["status"]["conditions"])
        return is_observed and is_ready and dict(+found) == wanted

    wait_for(is_so, f"the shares {wanted} of {name}", READY_TIMEOUT_S)
    target.wait_ready(name)


def component(target: Target, name: str) -> Object:
    found: Object = target.get("isvc", name)["status"]["components"]["predictor"]
    return found


def ask(target: Target, url: str, host: str, **headers: str) -> int:
    """The version that answers: only one of them knows the model by the name that is asked for."""
    sent = {"Host": host, **{key.replace("_", "-"): value for key, value in headers.items()}}
    answer = target.http.get(f"{url}/v2/models/{NAME_OF_SECOND}", headers=sent)
    assert answer.status_code in (200, 404), f"{answer.status_code} {answer.text}"
    return 2 if answer.status_code == 200 else 1


def assert_share(target: Target, name: str, percent: int) -> None:
    """Within the 99.9 % interval; what is outside is measured once more, as one fair split of 1,000 is."""
    url, host = target.address(name)
    low, high = interval(ENOUGH, percent)
    seen = []
    for _ in range(2):
        seen.append(sum(ask(target, url, host) == 2 for _ in range(ENOUGH)))
        if low <= seen[-1] <= high:
            return
    raise AssertionError(f"{percent} % of {ENOUGH}: {seen}, which is not within {low} and {high}")


def test_a_canary_is_shared_out_promoted_and_taken_back(target: Target, served: Served) -> None:
    name = served(service(target, "shares", TAGGED, minReplicas=1))
    first, second = revision(name, 1), revision(name, 2)
    target.apply(versions(target, name, 1, 20))
    wait_shares(target, name, 80, 20)
    assert_share(target, name, 20)
    assert component(target, name)["latestRolledoutRevision"] == first

    set_percent(target, name, None)
    wait_shares(target, name, 0, 100)
    assert_share(target, name, 100)
    wait_for(
        lambda: component(target, name)["latestRolledoutRevision"] == second, "the promotion", READY_TIMEOUT_S
    )
    assert component(target, name)["previousRolledoutRevision"] == first

    set_percent(target, name, 0)
    wait_shares(target, name, 100, 0)
    assert_share(target, name, 0)
    wait_for(
        lambda: component(target, name)["latestRolledoutRevision"] == first, "the rollback", READY_TIMEOUT_S
    )

    set_percent(target, name, 50)
    wait_shares(target, name, 50, 50)
    assert_share(target, name, 50)


def by_tag(target: Target, name: str) -> dict[str, tuple[str, str]]:
    """Of each tag the URL that a request goes to and the Host header that it carries."""
    found = {}
    for each in component(target, name)["traffic"]:
        if "tag" in each:
            parts = urlsplit(each["url"])
            base = each["url"].rstrip("/") if target.gateway is None else target.gateway + parts.path
            found[each["tag"]] = base, parts.netloc
    return found


@pytest.fixture
def split(target: Target, served: Served) -> str:
    """Two versions that scale to zero, one in five requests for the second."""
    name = served(service(target, "tags", TAGGED, minReplicas=0))
    target.apply(versions(target, name, 0, 20))
    wait_shares(target, name, 80, 20)
    return name


def test_a_tag_has_a_host(target: Target, split: str) -> None:
    addresses = by_tag(target, split)
    assert set(addresses) == {"latest", "prev"}
    for tag, expected in (("latest", 2), ("prev", 1)):
        assert [ask(target, *addresses[tag]) for _ in range(20)] == [expected] * 20


def test_a_tag_in_a_header_picks_its_version_from_zero_too(target: Target, split: str) -> None:
    if not has_tag_header(target):
        pytest.skip("tag-header-based-routing is not enabled in knative-serving/config-features")
    url, host = target.address(split)
    wanted = (("latest", 2), ("prev", 1))
    for tag, expected in wanted:
        found = [ask(target, url, host, **{TAG_HEADER: tag}) for _ in range(20)]
        assert found == [expected] * 20
    # One that is not there is none.
    assert {ask(target, url, host, **{TAG_HEADER: "nobody"}) for _ in range(60)} == {1, 2}

    # Also those that are on their way out: until they are gone they still answer.
    label = f"-lserving.kserve.io/inferenceservice={split}"
    wait_for(lambda: not target.get("pods", "", label)["items"], "the last pod to go", READY_TIMEOUT_S)
    for tag, expected in wanted:
        assert ask(target, url, host, **{TAG_HEADER: tag}) == expected
        running = {pod["metadata"]["labels"]["serving.knative.dev/revision"] for pod in target.pods(split)}
        assert revision(split, expected) in running


def has_tag_header(target: Target) -> bool:
    """A local machine always has; a cluster where its administrator has said so."""
    if target.is_local:
        return True
    told = target.kubectl(
        "get", "configmap", "config-features", "-n", "knative-serving", "-o", "json", check=False
    )
    data = json.loads(told.stdout).get("data", {}) if told.returncode == 0 else {}
    return str(data.get("tag-header-based-routing", "disabled")).lower() == "enabled"
