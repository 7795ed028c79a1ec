"""Increments of counters: from the machine's page and from a Prometheus' answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from glowplug.local import responses
from glowplug.rollout.evidence import Evidence, NoEvidence, Sample
from glowplug.rollout.gates import DEFAULT_GATES, metrics_of, parse_gates
from glowplug.rollout.sources import MachineSource, PrometheusSource
from glowplug.rollout.sums import reading
from glowplug.router.responses import BOUNDS_US, Responses

T = TypeVar("T")
NEW, OLD = "default/new", "default/old"


def one_after_the_other(values: Sequence[T]) -> Callable[..., Awaitable[T]]:
    left = iter(values)

    async def fetch(*_: Any) -> T:
        return next(left)

    return fetch


def readings(source: MachineSource | PrometheusSource, count: int) -> list[Evidence | NoEvidence]:
    async def all_of_them() -> list[Evidence | NoEvidence]:
        return [await source.read(NEW, OLD) for _ in range(count)]

    return asyncio.run(all_of_them())


def page(**of: Responses) -> str:
    return responses.page({f"default/{name}": each for name, each in of.items()}, is_measured=True)


COUNTS = st.dictionaries(st.sampled_from(BOUNDS_US), st.integers(1, 1000), max_size=8)


@given(st.lists(st.tuples(COUNTS, st.integers(0, 50)), min_size=2, max_size=4))
def test_the_machine_s_page_gives_what_was_counted_in_between(
    parts: list[tuple[dict[int, int], int]],
) -> None:
    total: dict[int, int] = {}
    pages, failed = [], 0
    for counts, errors in parts:
        for bound, count in counts.items():
            total[bound] = total.get(bound, 0) + count
        failed += errors
        new = Responses({"2xx": sum(total.values()), "5xx": failed}, dict(total))
        pages.append(page(new=new, old=Responses({"2xx": 7}, {1000: 7})))
    first, *found = readings(MachineSource(one_after_the_other(pages)), len(pages))
    assert isinstance(first, NoEvidence)
    for (counts, errors), evidence in zip(parts[1:], found, strict=True):
        assert isinstance(evidence, Evidence)
        assert evidence.stable.requests == 0
        assert evidence.canary.requests == sum(counts.values()) + errors
        assert evidence.canary.errors == errors
        latency = evidence.canary.latency
        seen = {round(b * 1e6): n for b, n in zip(latency.bounds_s, latency.counts, strict=False) if n}
        assert seen == counts


def test_the_first_bound_says_where_the_fastest_answers_begin() -> None:
    pages = [page(new=Responses({}, {})), page(new=Responses({"2xx": 4}, {2000: 3, 2400: 1}))]
    found = readings(MachineSource(one_after_the_other(pages)), 2)[1]
    assert isinstance(found, Evidence)
    assert found.canary.latency == reading((0.0018, 0.002, 0.0022, 0.0024), (0, 3, 0, 1, 0))


def test_counters_that_fell_began_anew() -> None:
    pages = [
        page(new=Responses({"2xx": 100, "5xx": 10}, {1000: 100, 2000: 1})),
        page(new=Responses({"2xx": 3, "5xx": 2}, {1000: 3, 2000: 2})),
    ]
    found = readings(MachineSource(one_after_the_other(pages)), 2)[1]
    assert isinstance(found, Evidence)
    assert (found.canary.requests, found.canary.errors) == (5, 2)
    assert sum(found.canary.latency.counts) == 5


def test_what_cannot_be_read_is_not_taken_for_nothing() -> None:
    good = page(new=Responses({"2xx": 5}, {}), old=Responses({}, {}))
    later = page(new=Responses({"2xx": 8}, {}), old=Responses({}, {}))
    pages = [good, responses.page({}, is_measured=False), later, "# another API's page\n", later]
    found = readings(MachineSource(one_after_the_other(pages)), 5)
    assert [type(each) for each in found] == [NoEvidence, NoEvidence, Evidence, NoEvidence, NoEvidence]
    assert isinstance(found[2], Evidence)
    assert found[2].canary.requests == 3
    assert isinstance(found[3], NoEvidence)
    assert "--prometheus-url" in found[3].why


def answer(*series: tuple[Mapping[str, str], float]) -> dict[str, Any]:
    result = [{"metric": dict(labels), "value": [0, str(value)]} for labels, value in series]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def buckets(revision: str, pod: str, code: str, *within: int) -> list[tuple[dict[str, str], float]]:
    labels = {"revision": revision, "pod": pod, "http_response_status_code": code, "namespace": "default"}
    return [
        ({**labels, "le": le}, float(value))
        for le, value in zip(("0.1", "0.25", "+Inf"), within, strict=True)
    ]


def test_prometheus_pods_and_codes_are_added_up() -> None:
    before = answer(*buckets("new", "a", "200", 10, 10, 10), *buckets("old", "b", "200", 5, 5, 5))
    after = answer(
        *buckets("new", "a", "200", 12, 14, 15),
        *buckets("new", "c", "200", 1, 1, 1),
        *buckets("new", "c", "503", 0, 0, 2),
        *buckets("old", "b", "200", 5, 9, 9),
        *buckets("old", "b", "404", 1, 1, 1),
    )
    asked: list[str] = []
    answers = iter([before, after])

    async def fetch(query: str) -> Any:
        asked.append(query)
        return next(answers)

    first, found = readings(PrometheusSource(fetch), 2)
    assert isinstance(first, NoEvidence)
    assert found == Evidence(
        Sample(8, 2, reading((0.1, 0.25), (3, 2, 3))), Sample(5, 0, reading((0.1, 0.25), (1, 4, 0)))
    )
    assert 'namespace="default",revision=~"new|old"' in asked[0]


def test_a_pod_that_is_away_for_one_reading_is_not_counted_anew() -> None:
    one, other = buckets("new", "a", "200", 10, 10, 10), buckets("old", "b", "200", 5, 5, 5)
    back = buckets("new", "a", "200", 13, 13, 13)
    found = readings(
        PrometheusSource(one_after_the_other([answer(*one, *other), answer(*other), answer(*back)])), 3
    )
    assert [each.canary.requests for each in found if isinstance(each, Evidence)] == [0, 3]


def test_a_container_that_was_restarted_begins_at_zero() -> None:
    one, other = buckets("new", "a", "200", 10, 10, 10), buckets("new", "a", "200", 2, 3, 4)
    found = readings(PrometheusSource(one_after_the_other([answer(*one), answer(*other)])), 2)[1]
    assert isinstance(found, Evidence)
    assert found.canary == Sample(4, 0, reading((0.1, 0.25), (2, 1, 1)))


def test_an_answer_without_these_revisions_says_what_to_look_at() -> None:
    strange = [
        answer(),
        {"status": "error", "error": "parse error"},
        {},
        None,
        {"status": "success", "data": []},
    ]
    for found, said in itertools.zip_longest(
        readings(PrometheusSource(one_after_the_other(strange)), len(strange)),
        ["serving.knative.dev/revision", "parse error"],
    ):
        assert isinstance(found, NoEvidence)
        assert said is None or said in found.why


def test_both_sources_measure_what_the_default_gates_need() -> None:
    for source in (MachineSource, PrometheusSource):
        assert metrics_of(parse_gates(DEFAULT_GATES)) <= source.metrics
