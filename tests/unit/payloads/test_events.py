"""Events of an exchange, as KServe's agent writes them; on a machine the same is tested with every protocol."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from glowplug.copies.exchange import Exchange, Message
from glowplug.payloads.events import REQUEST, RESPONSE, canonical, events_of
from glowplug.spec.logger import Logger
from glowplug.wire.events import CloudEvent, decode, encode_binary

LOGGER = Logger("flights", "default", "predictor", "flights-00001")


def told(
    logger: Logger = LOGGER, request: dict[str, str] | None = None, answer: dict[str, str] | None = None
) -> list[CloudEvent]:
    request = {":method": "POST", "content-type": "application/json", **(request or {})}
    exchange = Exchange(
        {}, Message(request, b"asked"), Message({":status": "200", **(answer or {})}, b"told"), 1.5, 2.25
    )
    return list(events_of(logger, exchange, "new", 3.0))


def test_both_sides_have_one_id_and_their_own_times() -> None:
    request, response = told()
    assert (request.text("type"), response.text("type")) == (REQUEST, RESPONSE)
    assert (request.text("id"), response.text("id")) == ("new", "new")
    assert request.text("time") == "1970-01-01T00:00:01.500000Z"
    assert response.text("time") == "1970-01-01T00:00:02.250000Z"
    assert response.text("recordedtime") == "1970-01-01T00:00:03.000000Z"
    assert (request.data, response.data) == (b"asked", b"told")
    # KServe gives the answer's event the request's type of content; so do we where the answer names none.
    assert response.text("datacontenttype") == "application/json"
    assert [event.text("id") for event in told(request={"ce-id": "theirs"})] == ["theirs", "theirs"]


@pytest.mark.parametrize(
    "answer",
    [{":status": "201"}, {":status": "500"}, {"grpc-status": "3"}, {":status": ""}],
)
def test_what_was_no_success_is_asked_only(answer: dict[str, str]) -> None:
    assert [event.text("type") for event in told(answer=answer)] == [REQUEST]
    assert told(replace(LOGGER, mode="response"), answer=answer) == []


def test_metadata_are_the_wanted_headers_of_the_request_by_gos_names() -> None:
    logger = replace(LOGGER, headers=("Knative-Serving-Revision", "x-user", ":method", "Absent"))
    for event in told(logger, {"x-user": "ann", "knative-serving-revision": "made up"}, {"x-user": "no"}):
        assert json.loads(event.text("metadata")) == {
            "Knative-Serving-Revision": ["flights-00001"],
            "X-User": ["ann"],
        }
    assert [event.text("metadata") for event in told()] == ["{}", "{}"]


def test_annotations_are_there_where_they_are_wanted() -> None:
    (event, _) = told(replace(LOGGER, annotations=(("team", "é"),)))
    assert json.loads(event.text("annotations")) == {"team": "é"}
    assert "annotations" not in told()[0].attributes


def test_an_event_is_one_for_whoever_reads_it_strictly() -> None:
    for event in told(request={"inference-header-content-length": "5"}):
        headers, body = encode_binary(event)
        assert decode({name.lower(): value for name, value in headers.items()}, body) == (event,)


def test_names_of_headers() -> None:
    assert canonical("x-request-ID") == "X-Request-Id"
