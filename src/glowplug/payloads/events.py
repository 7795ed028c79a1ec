"""A request and its answer → the CloudEvents that tell of them, pure: attributes as KServe's agent writes them.

As there, `metadata` is a JSON object of the wanted headers with their values as lists, by their canonical names;
request and answer have one id, `ce-id` of the request if it has one; an answer is told of only where it is a success,
and its metadata are the request's. Where we differ: `source` is the revision, for which pod it was is known to Envoy
alone; an event's content type is that of its own body; header names in `metadataHeaders` may be in any case; gRPC has
to be a success by `grpc-status` too. A body with binary tensors says by `headerlength` where its JSON ends (their
header Inference-Header-Content-Length, which KServe's events lose).
Source: KServe's pkg/logger/{handler,worker}.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone

import orjson

from glowplug.copies.exchange import Exchange, Message
from glowplug.spec import names
from glowplug.spec.logger import Logger
from glowplug.wire.events import CloudEvent, Value

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
_BINARY_LENGTH = "inference-header-content-length"


def events_of(logger: Logger, exchange: Exchange, new_id: str, now: float) -> Iterator[CloudEvent]:
    """What is told of the exchange. `new_id` is for a request that brings none; `now` as `Exchange`'s times."""
    request, answer = exchange.request, exchange.answer
    id_ = request.headers.get("ce-id") or new_id
    if logger.tells_requests:
        yield _event(logger, exchange, REQUEST, id_, request, exchange.began_at, now)
    if logger.tells_responses and is_success(answer):
        yield _event(logger, exchange, RESPONSE, id_, answer, exchange.ended_at, now)


def is_success(answer: Message) -> bool:
    """Whether an answer is told of: KServe's agent tells of those with status 200."""
    return answer.headers.get(":status") == "200" and answer.headers.get("grpc-status", "0") == "0"


def canonical(name: str) -> str:
    """A header's name as Go spells it."""
    return "-".join(part.capitalize() for part in name.split("-"))


def _event(
    logger: Logger, exchange: Exchange, kind: str, id_: str, message: Message, at: float, now: float
) -> CloudEvent:
    attributes: dict[str, Value] = {
        "specversion": "1.0",
        "id": id_,
        "type": kind,
        "source": logger.revision,
        "time": _time(at),
        "recordedtime": _time(now),
        "inferenceservicename": logger.service,
        "namespace": logger.namespace,
        "component": logger.component,
        # As KServe's agent sends it since its components have no such label any more.
        "endpoint": "",
        "metadata": orjson.dumps(_metadata(logger, exchange.request.headers)).decode(),
    }
    if logger.annotations:
        attributes["annotations"] = orjson.dumps(dict(logger.annotations)).decode()
    if content_type := message.headers.get("content-type") or exchange.request.headers.get("content-type"):
        attributes["datacontenttype"] = content_type
    if length := message.headers.get(_BINARY_LENGTH):
        attributes["headerlength"] = length
    return CloudEvent(attributes, message.body)


def _metadata(logger: Logger, headers: Mapping[str, str]) -> dict[str, list[str]]:
    # The ingress adds these on the way to the pod, after the copy was taken.
    told = {
        **headers,
        names.REVISION_HEADER: logger.revision,
        names.NAMESPACE_HEADER: logger.namespace,
    }
    wanted = (name.lower() for name in logger.headers)
    return {canonical(name): [told[name]] for name in wanted if name in told and not name.startswith(":")}


def _time(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")
