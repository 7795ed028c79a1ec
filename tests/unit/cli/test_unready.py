"""What `predict` and `logs` say of an InferenceService that has no URL, or no pods."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest

from glowplug.cli.kube import Cluster
from glowplug.cli.logs import pods_of
from glowplug.cli.predict import service_url
from glowplug.errors import GlowplugError, NotFound

Object = dict[str, Any]


class OneService:
    """A cluster with one InferenceService and no pods."""

    namespace = "default"

    def __init__(self, age_s: float, *conditions: Object) -> None:
        created = datetime.now(timezone.utc) - timedelta(seconds=age_s)
        self.service = {
            "metadata": {"name": "a", "creationTimestamp": f"{created:%Y-%m-%dT%H:%M:%SZ}"},
            "status": {"conditions": list(conditions)},
        }

    def get(self, path: str, **params: str) -> Object:
        if params:
            return {"items": []}
        if path.endswith("/inferenceservices/a"):
            return self.service
        raise NotFound(f"{path} not found")


def said(call: Any, cluster: OneService, name: str = "a") -> GlowplugError:
    with pytest.raises(GlowplugError) as caught:
        call(cast(Cluster, cluster), name)
    return caught.value


def test_only_a_new_service_was_applied_a_moment_ago() -> None:
    assert said(service_url, OneService(1)).message.endswith("no URL yet: it was applied a moment ago")
    assert said(service_url, OneService(60)).message.endswith("no URL yet: it does not say why")


def test_logs_of_a_service_at_zero() -> None:
    error = said(pods_of, OneService(60, {"type": "Ready", "status": "True"}))
    assert error.message == 'InferenceService "a" has no pods: it is scaled to zero'
    assert "a request starts one" in error.hint


def test_logs_of_a_service_that_has_no_pods_for_another_reason() -> None:
    error = said(pods_of, OneService(60, {"type": "Ready", "status": "False", "message": "no runtime"}))
    assert error.message == 'InferenceService "a" has no pods: no runtime'
    assert 'is named "b"' in said(pods_of, OneService(60), "b").message
