"""What follows from a sink's answer: done, again later, or given up. Pure; `now` and the answer are given.

Source: knative.dev/eventing pkg/kncloudevents/{retries,event_dispatcher}.go (SelectiveRetry, the back-off, the error
attributes) and pkg/broker/filter (what an answer may hold).
"""

from __future__ import annotations

import base64
import email.utils
from collections.abc import Mapping
from dataclasses import dataclass, field

from glowplug.spec.eventing import Backoff, Delivery
from glowplug.wire.events import CloudEvent, EventProblem, decode, has_event

# Some statuses of the sender's fault pass: a pod that is becoming ready answers 404.
_RETRIED = frozenset({404, 408, 409, 429})
_WITH_RETRY_AFTER = frozenset({429, 503})
NO_ANSWER = 500
NO_EVENT = 502
_MAX_DELAY_S = 86_400.0
_MAX_ERROR_DATA = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A sink's answer; header names are in lower case. `status` 0: there was none, and `body` says why."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sink does not have an event: a status, and what it said."""

    code: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """The sink has the event; `reply` is the event that it answered with."""

    reply: CloudEvent | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """To be sent again at `at`, when `attempts` have been made."""

    at: float
    attempts: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Not to be sent there again."""

    failure: Failure


Verdict = Taken | Again | GivenUp


def judge(delivery: Delivery, attempts: int, answer: Answer, now: float) -> Verdict:
    """The verdict on the answer to attempt number `attempts`, from 1."""
    outcome = _outcome(answer)
    if isinstance(outcome, Taken):
        return outcome
    if attempts > delivery.retry or not _is_retried(outcome.code):
        return GivenUp(outcome)
    wait_s = max(delay_s(delivery, attempts), _retry_after_s(delivery, answer, now))
    return Again(now + wait_s, attempts, outcome)


def delay_s(delivery: Delivery, retry: int) -> float:
    """The wait before retry number `retry`, from 1."""
    if delivery.backoff is Backoff.LINEAR:
        return min(_MAX_DELAY_S, delivery.delay_s * retry)
    return min(_MAX_DELAY_S, delivery.delay_s * 2.0 ** min(retry, 64))


def error_attributes(failure: Failure, destination: str) -> dict[str, str | int]:
    """What a dead letter says of its end. A URL with characters that attributes must not have is escaped already."""
    data = base64.b64encode(failure.data[:_MAX_ERROR_DATA]).decode()[:_MAX_ERROR_DATA]
    return {
        "knativeerrordest": destination,
        "knativeerrorcode": failure.code,
        "knativeerrordata": data,
    }


def _outcome(answer: Answer) -> Taken | Failure:
    if answer.status == 0:
        return Failure(NO_ANSWER, b"dispatch error: " + answer.body)
    if not 200 <= answer.status < 300:
        return Failure(answer.status, answer.body)
    if not has_event(answer.headers):
        return Failure(NO_EVENT, answer.body) if answer.body else Taken()
    try:
        (reply,) = decode(answer.headers, answer.body)
    except EventProblem as error:
        return Failure(NO_EVENT, error.message.encode())
    except ValueError:
        return Failure(NO_EVENT, b"the answer is a batch of events, expected one")
    return Taken(reply)


def _is_retried(code: int) -> bool:
    return code >= 500 or code in _RETRIED


def _retry_after_s(delivery: Delivery, answer: Answer, now: float) -> float:
    """What the sink asks for, as far as the delivery allows: without a retryAfterMax not at all, as in Knative."""
    text = answer.headers.get("retry-after", "").strip()
    if not delivery.retry_after_max_s or answer.status not in _WITH_RETRY_AFTER or not text:
        return 0.0
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), delivery.retry_after_max_s)
    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return min(max(0.0, at.timestamp() - now), delivery.retry_after_max_s)
