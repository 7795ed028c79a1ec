"""How many replicas were desired and ready at each moment, and how many requests were held: from the Kubernetes API.

PodAutoscalers say it where Knative scales (the local machine, too); pods do where there are none (raw deployments, or
an account that may not read them). The held are the local machine's, from its own /metrics.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from glowplug.errors import GlowplugError

LABEL = "serving.kserve.io/inferenceservice"
PERIOD_S = 0.25
_HELD = re.compile(r'^glowplug_activator_held\{namespace="([^"]*)",revision="([^"]*)"\} (\S+)$', re.MULTILINE)
Object = dict[str, Any]


class Answer(Protocol):
    @property
    def text(self) -> str: ...


class Api(Protocol):
    """The part of `glowplug.cli.kube.Cluster` that is needed. Errors are GlowplugError."""

    namespace: str

    def get(self, path: str, **params: str) -> Object: ...
    def request(self, method: str, path: str) -> Answer: ...


@dataclass(frozen=True)
class Sample:
    """At `t` seconds from the start. `held` is None where nobody tells it."""

    t: float
    desired: int
    ready: int
    held: int | None = None


class Watcher:
    """Asks in a thread of its own: `with Watcher(api, "flights") as watcher: …; watcher.samples(start_at)`."""

    def __init__(self, api: Api, name: str, period_s: float = PERIOD_S) -> None:
        self._api = api
        self._name = name
        self._period_s = period_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replicas", daemon=True)
        self._seen: list[Sample] = []
        self._has_autoscalers = True
        self._has_held = True
        self.trouble = ""

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join()

    def samples(self, start_at: float) -> list[Sample]:
        """What was seen, `start_at` on the monotonic clock being 0."""
        return [Sample(each.t - start_at, each.desired, each.ready, each.held) for each in self._seen]

    def _run(self) -> None:
        while True:
            try:
                self._seen.append(self._look())
                self.trouble = ""
            except GlowplugError as error:
                self.trouble = error.message
            if self._is_over.wait(self._period_s):
                return

    def _look(self) -> Sample:
        moment = time.monotonic()
        desired, ready = self._scale()
        return Sample(moment, desired, ready, self._held())

    def _scale(self) -> tuple[int, int]:
        params = {"labelSelector": f"{LABEL}={self._name}"}
        if self._has_autoscalers:
            path = f"/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/{self._api.namespace}/podautoscalers"
            try:
                items = self._api.get(path, **params)["items"]
            except GlowplugError:
                items = []
            if items:
                return scale_of_autoscalers(items)
            self._has_autoscalers = False
        return scale_of_pods(
            self._api.get(f"/api/v1/namespaces/{self._api.namespace}/pods", **params)["items"]
        )

    def _held(self) -> int | None:
        if not self._has_held:
            return None
        try:
            page = self._api.request("GET", "/metrics").text
        except GlowplugError:
            page = ""
        # A cluster's API server has a page of megabytes there, which is asked for once.
        self._has_held = "glowplug_activator_held" in page
        return held_of(page, self._api.namespace, self._name) if self._has_held else None


def scale_of_autoscalers(items: Sequence[Object]) -> tuple[int, int]:
    """(desired, ready) of all revisions; what is not decided yet (-1) counts as none."""
    statuses = [item.get("status") or {} for item in items]
    return (
        sum(max(int(status.get("desiredScale") or 0), 0) for status in statuses),
        sum(max(int(status.get("actualScale") or 0), 0) for status in statuses),
    )


def scale_of_pods(items: Sequence[Object]) -> tuple[int, int]:
    """(there and not about to go, ready)."""
    staying = [item for item in items if "deletionTimestamp" not in item["metadata"]]
    ready = [
        item
        for item in staying
        if any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in (item.get("status") or {}).get("conditions") or ()
        )
    ]
    return len(staying), len(ready)


def held_of(page: str, namespace: str, name: str) -> int:
    """Requests held for the revisions of the InferenceService, from a page of Prometheus' text format."""
    own = re.compile(re.escape(name) + r"-(predictor|transformer|explainer)(-\d+)?")
    return sum(
        int(float(value))
        for where, revision, value in _HELD.findall(page)
        if where == namespace and own.fullmatch(revision)
    )


def time_until_ready(samples: Sequence[Sample], since: float, needed: int) -> float | None:
    """Seconds from `since` until `needed` replicas were ready; 0 if they were, None if that did not come."""
    before = [each for each in samples if each.t <= since]
    if before and before[-1].ready >= needed:
        return 0.0
    return next((each.t - since for each in samples if each.t > since and each.ready >= needed), None)
