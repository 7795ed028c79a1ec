"""What revisions answered, on the machine's page of metrics, in Prometheus' text format.

Envoy is read when somebody asks for the page, and not otherwise. Where it cannot be read the page says so by
`glowplug_responses_measured`, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from glowplug.router import Router
from glowplug.router.responses import BOUNDS_US, Responses

_log = logging.getLogger(__name__)
_CLASSES = ("2xx", "3xx", "4xx", "5xx")


async def metrics(router: Router) -> str:
    """That part of the page."""
    try:
        found = await router.responses()
    except (OSError, TimeoutError, ValueError) as error:
        _log.warning("what the ingress counted cannot be read: %s", error)
        return page({}, is_measured=False)
    return page(found, is_measured=True)


def page(found: Mapping[str, Responses], *, is_measured: bool) -> str:
    """The text. A revision has a line for each bound from its fastest answer to its slowest."""
    lines = [
        "# HELP glowplug_responses_measured Whether what the ingress counted could be read.",
        "# TYPE glowplug_responses_measured gauge",
        f"glowplug_responses_measured {int(is_measured)}",
        "# HELP glowplug_revision_responses_total Answers as the caller saw them; gRPC errors of the server are 5xx.",
        "# TYPE glowplug_revision_responses_total counter",
        *_answered(found),
        "# HELP glowplug_revision_response_seconds Time in the pod, without the wait for one.",
        "# TYPE glowplug_revision_response_seconds histogram",
        *_times(found),
    ]
    return "".join(f"{line}\n" for line in lines)


def _answered(found: Mapping[str, Responses]) -> Iterator[str]:
    for revision, responses in found.items():
        for kind in _CLASSES:
            labels = f'{_labels(revision)},code_class="{kind}"'
            yield f"glowplug_revision_responses_total{{{labels}}} {responses.answered.get(kind, 0)}"


def _times(found: Mapping[str, Responses]) -> Iterator[str]:
    for revision, responses in found.items():
        labels = _labels(revision)
        counts = [responses.times.get(bound, 0) for bound in BOUNDS_US]
        for place in _shown(counts):
            within = sum(counts[: place + 1])
            le = f"{BOUNDS_US[place] / 1e6:g}"
            yield f'glowplug_revision_response_seconds_bucket{{{labels},le="{le}"}} {within}'
        yield f'glowplug_revision_response_seconds_bucket{{{labels},le="+Inf"}} {sum(counts)}'
        yield f"glowplug_revision_response_seconds_count{{{labels}}} {sum(counts)}"


def _shown(counts: Sequence[int]) -> range:
    """The bounds between which answers are: the one below the fastest, to the one above the slowest."""
    places = [place for place, count in enumerate(counts) if count]
    return range(max(places[0] - 1, 0), places[-1] + 1) if places else range(0)


def _labels(revision: str) -> str:
    namespace, _, name = revision.partition("/")
    return f'namespace="{namespace}",revision="{name}"'
