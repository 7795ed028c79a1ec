"""Where the judge's evidence is measured: the local machine's page of metrics, or a Prometheus.

A source gives what two revisions answered since it was last asked about the two, so both over the same time. What
cannot be read is an exception (OSError, TimeoutError, GlowplugError) or a NoEvidence that says why; it is never taken
for no errors. Counters that fell began anew, at zero.

Errors are answers of 5xx. On the machine's page gRPC's errors of the server are among them, as in google.rpc.Code;
Knative's queue-proxy counts every gRPC answer as 200, so a Prometheus does not see them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from glowplug.rollout.evidence import Evidence, Histogram, NoEvidence, Sample
from glowplug.rollout.gates import ERRORS, LATENCY
from glowplug.rollout.sums import reading

RESPONSES = "glowplug_revision_responses_total"
SECONDS = "glowplug_revision_response_seconds"
MEASURED = "glowplug_responses_measured"
# Of Knative 1.21, with `request-metrics-protocol: prometheus` in config-observability. The revision is in no label
# of the samples: whoever scrapes the pods has to take it from their label serving.knative.dev/revision.
KNATIVE_QUERY = (
    'kn_serving_invocation_duration_seconds_bucket{{namespace="{namespace}",revision=~"{canary}|{stable}"}}'
)
_REVISIONS = ("revision", "kn_revision_name", "revision_name", "label_serving_knative_dev_revision")
_CODES = ("http_response_status_code", "response_code", "code")
_LINE = re.compile(r'([a-z_]+)\{namespace="([^"]*)",revision="([^"]*)"(?:,([a-z_]+)="([^"]*)")?\} (\S+)')
_MEASURED = re.compile(rf"^{MEASURED} (\S+)$", re.MULTILINE)
_FIRST = "the first interval is not over"
_MOST_PAIRS = 256


class Source(Protocol):
    """`metrics` are those of `gates.metrics_of` that it measures."""

    @property
    def metrics(self) -> frozenset[str]: ...

    async def read(self, canary: str, stable: str) -> Evidence | NoEvidence:
        """What both, `namespace/revision`, answered since the last call for the same two."""


@dataclass(frozen=True)
class Counts:
    """A revision's counters: answers by class of code, and answers by upper bound of their time in seconds.

    Not cumulated; what is above all bounds is under infinity.
    """

    answers: Mapping[str, float]
    times: Mapping[float, float]


class MachineSource:
    """The local machine's page. `fetch` gives its text."""

    metrics = frozenset({ERRORS, LATENCY})

    def __init__(self, fetch: Callable[[], Awaitable[str]]) -> None:
        self._fetch = fetch
        self._before: dict[tuple[str, str], dict[str, Counts]] = {}

    async def read(self, canary: str, stable: str) -> Evidence | NoEvidence:
        page = await self._fetch()
        pair = (canary, stable)
        measured = _MEASURED.search(page)
        if measured is None:
            self._before.pop(pair, None)
            return NoEvidence(
                "this API has no metrics of revisions; on a cluster name a Prometheus with --prometheus-url"
            )
        if measured[1] != "1":
            # What was counted meanwhile is in the next reading.
            return NoEvidence("the machine cannot read what its ingress counted")
        now = counts(page, pair)
        before = self._before.pop(pair, None)
        self._before[pair] = now
        if len(self._before) > _MOST_PAIRS:
            del self._before[next(iter(self._before))]
        if before is None:
            return NoEvidence(_FIRST)
        return Evidence(_sample(before[canary], now[canary]), _sample(before[stable], now[stable]))


class PrometheusSource:
    """A Prometheus that scrapes Knative's queue-proxies. `fetch` takes a query and gives the answer as JSON.

    `query` gives buckets of a histogram of responses with labels for the revision and the code; `{namespace}`,
    `{canary}` and `{stable}` in it are replaced.
    """

    metrics = frozenset({ERRORS, LATENCY})

    def __init__(self, fetch: Callable[[str], Awaitable[Any]], query: str = KNATIVE_QUERY) -> None:
        self._fetch, self._query = fetch, query
        # The last value of every series, also of those that are away for a while: they may come back.
        self._before: dict[tuple[str, str], dict[Series, float]] = {}

    async def read(self, canary: str, stable: str) -> Evidence | NoEvidence:
        namespace, _, name = canary.partition("/")
        other = stable.partition("/")[2]
        answer = await self._fetch(self._query.format(namespace=namespace, canary=name, stable=other))
        found = series(answer)
        if isinstance(found, NoEvidence):
            return found
        pair = (canary, stable)
        before = self._before.pop(pair, None)
        self._before[pair] = {**(before or {}), **found}
        if len(self._before) > _MOST_PAIRS:
            del self._before[next(iter(self._before))]
        if before is None:
            return NoEvidence(_FIRST)
        grown = {one: _grown(before.get(one, 0.0), value) for one, value in found.items()}
        return Evidence(_sample_of(grown, name), _sample_of(grown, other))


@dataclass(frozen=True)
class Series:
    """One bucket of one pod's histogram; `source` is all other labels."""

    revision: str
    code: str
    bound_s: float
    source: tuple[tuple[str, str], ...]


def counts(page: str, revisions: Iterable[str]) -> dict[str, Counts]:
    """What the machine's page says of these revisions."""
    answers: dict[str, dict[str, float]] = {revision: {} for revision in revisions}
    within: dict[str, dict[float, float]] = {revision: {} for revision in answers}
    for line in page.splitlines():
        if not line.startswith("glowplug_revision_response"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or (revision := f"{match[2]}/{match[3]}") not in answers:
            continue
        if match[1] == RESPONSES:
            answers[revision][match[5]] = float(match[6])
        elif match[1] == f"{SECONDS}_bucket":
            within[revision][float(match[5])] = float(match[6])
    return {revision: Counts(answers[revision], _each(within[revision])) for revision in answers}


def series(answer: Any) -> dict[Series, float] | NoEvidence:
    """The buckets in a Prometheus' answer to an instant query."""
    try:
        if answer["status"] != "success":
            return NoEvidence(f"Prometheus answers: {answer.get('error', answer['status'])}")
        found = {}
        for one in answer["data"]["result"]:
            labels = dict(one["metric"])
            value = float(one["value"][1])
            revision = next((labels.pop(key) for key in _REVISIONS if key in labels), None)
            code = next((labels.pop(key) for key in _CODES if key in labels), None)
            if revision is None or code is None or "le" not in labels or not 0 <= value < float("inf"):
                continue
            bound_s = float(labels.pop("le"))
            found[Series(revision, code, bound_s, tuple(sorted(labels.items())))] = value
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return NoEvidence(f"Prometheus answers something else than a vector of buckets: {error!r}")
    if not found:
        return NoEvidence(
            "the Prometheus query finds no responses of these revisions: are Knative's queue-proxies scraped, with the"
            " pod's label serving.knative.dev/revision as label `revision`?"
        )
    return found


def _grown(before: float, now: float) -> float:
    return now - before if now >= before else now


def _sample(before: Counts, now: Counts) -> Sample:
    answers = {kind: _grown(before.answers.get(kind, 0.0), value) for kind, value in now.answers.items()}
    is_anew = any(value < before.answers.get(kind, 0.0) for kind, value in now.answers.items())
    earlier = {} if is_anew else before.times
    times = {bound: _grown(earlier.get(bound, 0.0), value) for bound, value in now.times.items()}
    errors = answers.get("5xx", 0.0)
    return Sample(round(sum(answers.values())), round(errors), _histogram(times))


def _sample_of(grown: Mapping[Series, float], revision: str) -> Sample:
    """Of increments of cumulated buckets, of all pods and codes together."""
    within: dict[float, float] = {}
    errors = 0.0
    for one, value in grown.items():
        if one.revision != revision:
            continue
        within[one.bound_s] = within.get(one.bound_s, 0.0) + value
        if one.bound_s == float("inf") and one.code.startswith("5"):
            errors += value
    return Sample(round(within.get(float("inf"), 0.0)), round(errors), _histogram(_each(within)))


def _each(within: Mapping[float, float]) -> dict[float, float]:
    """Cumulated counts by bound → counts between two bounds."""
    found = {}
    before = 0.0
    for bound in sorted(within):
        found[bound] = max(within[bound] - before, 0.0)
        before = within[bound]
    return found


def _histogram(times: Mapping[float, float]) -> Histogram:
    bounds = tuple(sorted(bound for bound in times if bound != float("inf")))
    counts = tuple(round(times[bound]) for bound in bounds)
    return reading(bounds, (*counts, round(times.get(float("inf"), 0.0))))
