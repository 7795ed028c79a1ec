"""What payload events say, in every form that a model server speaks; and what they do not."""

from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.drift.streams import NAMES, event, label, request, response

from glowplug.drift.payloads import (
    LABEL,
    REQUEST,
    RESPONSE,
    Unfit,
    features_of,
    labels_of,
    predictions_of,
    revision_of,
    version_of,
)
from glowplug.wire import v2_grpc
from glowplug.wire.events import EventProblem
from glowplug.wire.tensors import InferRequest, InferResponse, Tensor

ROWS = np.array([[1, 2, 3], [4, math.nan, 6]], dtype=np.float32)


def said(data: bytes | dict, **attributes: str):
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return event(REQUEST, "1", 0.0, body, **attributes)


def grpc(framed: bool, **attributes: str):
    body = v2_grpc.encode_infer_request(InferRequest("flights", (Tensor.from_numpy("input-0", ROWS),), "own"))
    return said(b"\0" + len(body).to_bytes(4, "big") + body if framed else body, **attributes)


LENGTH = request("own", 0.0, ROWS, binary=True).data.index(b"}]}") + 3
COLUMNS = {name: ROWS[:, place] for place, name in enumerate(NAMES)}
FORMS = {
    "v2 json": request("own", 0.0, ROWS),
    "v2 binary": request("own", 0.0, ROWS, binary=True),
    "v2 binary, its length said": request("own", 0.0, ROWS, binary=True, headerlength=str(LENGTH)),
    "v2 grpc": grpc(False, datacontenttype="application/grpc"),
    "v2 grpc, framed": grpc(True, datacontenttype="application/grpc"),
    "v2 grpc, nobody says so": grpc(False),
    "v2 columns": said(
        {
            "id": "own",
            "inputs": [
                {"name": name, "datatype": "FP32", "shape": [2, 1],
                 "data": [None if math.isnan(v) else float(v) for v in values]}
                for name, values in reversed(COLUMNS.items())
            ],
        }
    ),
    "v1 rows": said({"id": "own", "instances": [[1, 2, 3], [4, None, 6]]}),
    "v1 objects": said({"id": "own", "instances": [{"b": 2, "a": 1, "c": 3}, {"b": None, "a": 4, "c": 6}]}),
    "json that begins with a newline": said(
        b'\n{"id": "own", "instances": [[1, 2, 3], [4, null, 6]]}'
    ),
}  # fmt: skip


@pytest.mark.parametrize("asked", FORMS.values(), ids=FORMS)
def test_every_form_of_a_request_is_the_same_rows(asked) -> None:
    found, id = features_of(asked, NAMES)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ROWS)
    assert id == "own"


UNFIT = {
    "not JSON": (b"<html>", "not readable"),
    "nothing": (b"", "not readable"),
    "other JSON": ({"rows": 1}, "not readable"),
    "too few": ({"instances": [[1, 2]]}, "2 features, expected 3"),
    "a column short": ({"instances": [{"a": 1, "b": 2}]}, "no 'c'"),
    "a column more": ({"instances": [{"a": 1, "b": 2, "c": 3, "d": 4}]}, "unknown 'd'"),
    "renamed": ({"instances": [{"a": 1, "b": 2, "C": 3}]}, "no 'c' and 1 more"),
    "text": ({"instances": [["x", "y", "z"]]}, "is text"),
    "cut off": (request("1", 0.0, ROWS, binary=True).data[:-3], "not readable"),
}


@pytest.mark.parametrize(("body", "why"), UNFIT.values(), ids=UNFIT)
def test_what_has_not_the_features_says_how(body, why) -> None:
    with pytest.raises(Unfit, match=why):
        features_of(said(body), NAMES)


@given(st.binary(max_size=100))
def test_no_body_does_anything_else(body) -> None:
    for read in (lambda asked: features_of(asked, NAMES), predictions_of):
        with contextlib.suppress(Unfit):
            read(said(body))


def test_predictions_of_every_form() -> None:
    np.testing.assert_array_equal(predictions_of(response("own", 0.0, [1.5, 2]))[0], [1.5, 2])
    np.testing.assert_array_equal(predictions_of(response("own", 0.0, [[1.5], [2]]))[0], [1.5, 2])
    answer = InferResponse("flights", (Tensor.from_numpy("y", np.float32([1.5, 2])),), "own")
    found, id = predictions_of(event(RESPONSE, "1", 0.0, v2_grpc.encode_infer_response(answer)))
    assert (found.tolist(), id) == ([1.5, 2], "own")
    v1 = event(RESPONSE, "1", 0.0, b'{"predictions": [1.5, 2]}')
    assert predictions_of(v1)[0].tolist() == [1.5, 2]
    classes = event(RESPONSE, "1", 0.0, b'{"predictions": [[0.1, 0.9], [0.7, 0.3]]}')
    assert predictions_of(classes)[0].tolist() == [1, 0]
    with pytest.raises(Unfit):
        predictions_of(event(RESPONSE, "1", 0.0, b'{"error": "no"}'))
    with pytest.raises(Unfit):
        predictions_of(event(RESPONSE, "1", 0.0, b'{"predictions": ["a"]}'))


def test_labels() -> None:
    found = labels_of(label("own", 0.0, [1, None, 2.5]))
    np.testing.assert_array_equal(found.values, [1, math.nan, 2.5])
    assert (found.id, found.inferenceservice, found.namespace) == ("own", "flights", "default")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("[", "not JSON"),
        ("[]", "no object"),
        ('{"labels": [1]}', "inferenceservice"),
        ('{"inferenceservice": "flights", "namespace": 1, "labels": [1]}', "namespace = 1"),
        ('{"inferenceservice": "flights"}', "labels must be an array"),
        ('{"inferenceservice": "flights", "labels": []}', "labels must be an array"),
        ('{"inferenceservice": "flights", "labels": [1, "2"]}', r"labels\[1\] = '2'"),
        ('{"inferenceservice": "flights", "labels": [true]}', r"labels\[0\] = 'True'"),
    ],
)
def test_labels_that_are_none_say_where(data, why) -> None:
    with pytest.raises(EventProblem, match=why):
        labels_of(event(LABEL, "1", 0.0, data.encode(), subject="own"))
    with pytest.raises(EventProblem, match="subject is missing"):
        labels_of(event(LABEL, "1", 0.0, b"{}"))


@pytest.mark.parametrize(
    ("annotations", "version"),
    [
        ('{"glowplug.dev/version": "3485d13e274c", "other": "x"}', "3485d13e274c"),
        ("{}", "flights-predictor-00002"),
        ('{"glowplug.dev/version": 1}', "flights-predictor-00002"),
        ("[1]", "flights-predictor-00002"),
        ("{", "flights-predictor-00002"),
        ("", "flights-predictor-00002"),
    ],
)
def test_the_version_is_what_a_rollout_has_stamped_or_else_the_revision(annotations, version) -> None:
    metadata = '{"Knative-Serving-Revision": ["flights-predictor-00002"]}'
    assert version_of(said(b"{}", metadata=metadata, annotations=annotations)) == version


@pytest.mark.parametrize(
    ("metadata", "revision"),
    [
        ('{"Knative-Serving-Revision": ["flights-predictor-00002"]}', "flights-predictor-00002"),
        ('{"knative-serving-revision": "flights-predictor-00002"}', "flights-predictor-00002"),
        ("{}", ""),
        ("null", ""),
        ("[1", ""),
        ('{"Knative-Serving-Revision": []}', ""),
    ],
)
def test_the_revision_is_a_header_that_was_copied(metadata, revision) -> None:
    assert revision_of(said(b"{}", metadata=metadata)) == revision
    assert revision_of(said(b"{}")) == ""
