"""What the API answers, as an error of its kind."""

from __future__ import annotations

import httpx2
import pytest

from glowplug.cli.kube import Cluster
from glowplug.errors import ApiError, NotFound


def cluster(status: int, text: str) -> Cluster:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, text=text))
    return Cluster(httpx2.Client(transport=transport, base_url="http://api"), "default", "kubeconfig")


def test_a_group_that_is_not_served_is_not_found() -> None:
    with pytest.raises(NotFound, match="no matches for kind"):
        cluster(404, "404 page not found\n").resource_of("serving.kserve.io/v1beta1", "InferenceService")


def test_a_failure_in_plain_text_is_told() -> None:
    with pytest.raises(ApiError, match="bad gateway") as caught:
        cluster(502, "bad gateway").get("/version")
    assert not isinstance(caught.value, NotFound)
