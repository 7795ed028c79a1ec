"""What the revisions are asked at the moment: from the local machine's page of metrics, or from a Prometheus.

A source reads all revisions at once. What cannot be read is an exception (OSError, TimeoutError, GlowplugError) or a
NoDemand that says why; it is never taken for no demand.

Names that the local machine's `/metrics` has, both of labels `namespace` and `revision`:
`glowplug_revision_request_seconds_total` (the integral of the requests in progress) and
`glowplug_revision_requests_total`; and `glowplug_ingress_measured`, 1 while the ingress can be measured.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from glowplug.spec.autoscaling import CONCURRENCY, RPS

REQUEST_SECONDS = "glowplug_revision_request_seconds_total"
REQUESTS = "glowplug_revision_requests_total"
MEASURED = "glowplug_ingress_measured"
# Knative's autoscaler tells the average of its panic window, six seconds, of all pods together.
KNATIVE_QUERY = '{__name__=~"kn_revision_(concurrency|rps)_panic"}'
_NAMESPACES = ("k8s_namespace_name", "namespace_name", "namespace")
_REVISIONS = ("kn_revision_name", "revision_name", "revision")
_SAMPLE = re.compile(
    rf'^({REQUEST_SECONDS}|{REQUESTS})\{{namespace="([^"]*)",revision="([^"]*)"\}} (\S+)$', re.MULTILINE
)
_MEASURED = re.compile(rf"^{MEASURED} (\S+)$", re.MULTILINE)

# By metric (`concurrency`, `rps`), the mean since the last reading.
Reading = Mapping[str, float]


@dataclass(frozen=True)
class Readings:
    """What was read; a revision that is not in `known` has no demand."""

    known: Mapping[str, Reading]

    def of(self, revision: str, metric: str) -> float:
        """The demand on `namespace/name` in units of `metric`."""
        return self.known.get(revision, {}).get(metric, 0.0)


@dataclass(frozen=True)
class NoDemand:
    """Nothing can be said; `why` is for the user."""

    why: str


class DemandSource(Protocol):
    """Where the demand is read."""

    async def read(self, now: float) -> Readings | NoDemand: ...


class MachinePage:
    """The local machine's own page. `fetch` gives its text; the first reading only begins the first interval."""

    def __init__(self, fetch: Callable[[], Awaitable[str]]) -> None:
        self._fetch = fetch
        self._before: tuple[float, Mapping[tuple[str, str], float]] | None = None

    async def read(self, now: float) -> Readings | NoDemand:
        """The means since the last call; `now` in seconds."""
        page = await self._fetch()
        measured = _MEASURED.search(page)
        if measured is None:
            self._before = None
            return NoDemand(
                "this API has no metrics of revisions; on a cluster name a Prometheus with --prometheus-url"
            )
        if measured[1] != "1":
            self._before = None
            return NoDemand("the machine cannot measure its ingress")
        totals = counters(page)
        before, self._before = self._before, (now, totals)
        if before is None or now <= before[0]:
            return NoDemand("the first interval is not over")
        return Readings(rates(before[1], totals, now - before[0]))


class Prometheus:
    """A query to a Prometheus. `fetch` takes the query and gives the answer as JSON.

    A series is of the metric that its name tells (rps, else concurrency), or of both where it has none; its labels
    must tell namespace and revision.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[Any]], query: str = KNATIVE_QUERY) -> None:
        self._fetch, self._query = fetch, query

    async def read(self, now: float) -> Readings | NoDemand:
        """The present values."""
        return from_prometheus(await self._fetch(self._query))


def counters(page: str) -> dict[tuple[str, str], float]:
    """(`namespace/name`, metric) → its counter on the machine's page."""
    found = {}
    for name, namespace, revision, value in _SAMPLE.findall(page):
        try:
            found[f"{namespace}/{revision}", CONCURRENCY if name == REQUEST_SECONDS else RPS] = float(value)
        except ValueError:
            continue
    return found


def rates(
    before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float], seconds: float
) -> dict[str, dict[str, float]]:
    """Revision → metric → the mean over `seconds`. A counter that fell began anew, at zero."""
    found: dict[str, dict[str, float]] = {}
    for (revision, metric), value in after.items():
        start = before.get((revision, metric), 0.0)
        found.setdefault(revision, {})[metric] = (value - start if value >= start else value) / seconds
    return found


def from_prometheus(answer: Any) -> Readings | NoDemand:
    """Sums series of the same revision."""
    try:
        if answer["status"] != "success":
            return NoDemand(f"Prometheus answers: {answer.get('error', answer['status'])}")
        found: dict[str, dict[str, float]] = {}
        for series in answer["data"]["result"]:
            labels = series["metric"]
            namespace = next((labels[key] for key in _NAMESPACES if key in labels), None)
            revision = next((labels[key] for key in _REVISIONS if key in labels), None)
            value = float(series["value"][1])
            if namespace is None or revision is None or not 0 <= value < float("inf"):
                continue
            name = labels.get("__name__")
            metrics = (CONCURRENCY, RPS) if name is None else (RPS,) if "rps" in name else (CONCURRENCY,)
            of_revision = found.setdefault(f"{namespace}/{revision}", {})
            for metric in metrics:
                of_revision[metric] = of_revision.get(metric, 0.0) + value
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return NoDemand(f"Prometheus answers something else than a vector: {error!r}")
    return Readings(found) if found else NoDemand("the Prometheus query finds no revision")
