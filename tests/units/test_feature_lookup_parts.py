"""The lookup's pure parts: what a request may hold, and whether a view fits a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.features.lab import small_view

from glowplug.errors import InferenceError
from glowplug.features.online import GroupState
from glowplug.features.resolve import GroupReport, Report
from glowplug.features.view import Feature, FeatureView
from glowplug.wire import InferRequest, Tensor
from glowplug.wire.v2_grpc import (
    ModelMetadata,
    TensorMetadata,
    decode_model_metadata,
    encode_model_metadata,
)
from glowplug_feature_lookup.entities import entity_values, input_specs
from glowplug_feature_lookup.fit import against_metadata, against_store, against_trained
from glowplug_feature_lookup.tally import LOG_EVERY_S, Tally

VIEW = small_view()
shapes = st.sampled_from([(), (1,)])


def shops(*names: str, tail: tuple[int, ...] = ()) -> Tensor:
    return Tensor("shop", "BYTES", (len(names), *tail), [name.encode() for name in names])


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(max_size=5)), max_size=5),
    shapes,
    st.booleans(),
)
def test_any_ids_in_either_shape(rows: list[tuple[int, str]], tail: tuple[int, ...], as_text: bool) -> None:
    ids = [number for number, _ in rows]
    names = [name for _, name in rows]
    try:
        [name.encode() for name in names]
    except UnicodeEncodeError:
        return
    users = (
        Tensor("user_id", "BYTES", (len(ids), *tail), [str(each).encode() for each in ids])
        if as_text
        else Tensor("user_id", "INT64", (len(ids), *tail), np.array(ids, np.int64).reshape(-1, *tail))
    )
    found = entity_values(VIEW, InferRequest("m", (shops(*names, tail=tail), users)))
    assert found == {"user_id": [str(each) for each in ids], "shop": names}


def test_a_number_is_the_same_row_however_it_is_written() -> None:
    for users in (
        Tensor("user_id", "BYTES", (1,), [b"007"]),
        Tensor("user_id", "UINT8", (1,), np.array([7], np.uint8)),
        Tensor("user_id", "INT32", (1, 1), np.array([[7]], np.int32)),
    ):
        assert entity_values(VIEW, InferRequest("m", (users, shops("a"))))["user_id"] == ["7"]


def test_every_problem_of_a_request_at_once() -> None:
    request = InferRequest(
        "m", (Tensor("user_id", "FP32", (1,), np.zeros(1, np.float32)), Tensor("age", "BYTES", (1,), [b""]))
    )
    with pytest.raises(InferenceError) as caught:
        entity_values(VIEW, request)
    assert caught.value.code == 400
    assert caught.value.message == (
        "input 'shop' is missing; input 'age' is no entity of the view; input 'user_id' is FP32, must be INT64; "
        "feature view shops expects user_id (int64), shop (string), each of shape [n] or [n, 1]"
    )


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (Tensor("user_id", "BYTES", (1,), [b"x" * 1000]), "has a value that is not an integer"),
        (Tensor("user_id", "BYTES", (1,), ["٣".encode()]), "has a value that is not an integer"),
        (Tensor("user_id", "INT64", (1, 2), np.zeros((1, 2), np.int64)), r"has shape \[1, 2\]"),
        (
            Tensor("user_id", "INT64", (2,), np.zeros(2, np.int64)),
            "different numbers of rows: user_id 2, shop 1",
        ),
    ],
)
def test_what_is_wrong_with_ids(users: Tensor, expected: str) -> None:
    with pytest.raises(InferenceError, match=expected) as caught:
        entity_values(VIEW, InferRequest("m", (users, shops("a"))))
    assert len(caught.value.message) < 300


def test_metadata_declare_the_entities() -> None:
    assert [(spec.name, spec.datatype, spec.shape) for spec in input_specs(VIEW)] == [
        ("user_id", "INT64", (-1,)),
        ("shop", "BYTES", (-1,)),
    ]


def metadata(*inputs: tuple[str, tuple[int, ...]], columns: str = "") -> ModelMetadata:
    tensors = (TensorMetadata(f"in{index}", kind, shape) for index, (kind, shape) in enumerate(inputs))
    return ModelMetadata("shops", inputs=tuple(tensors), columns=tuple(columns.split()))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (metadata(("FP32", (-1, 3))), ""),
        (metadata(("FP32", (-1, -1))), ""),
        (metadata(("FP32", (-1, 3)), columns="age spend visits"), ""),
        (
            metadata(("FP32", (-1, 3)), columns="spend age visits"),
            "trained on: column 0 is 'age', must be 'spend'",
        ),
        (metadata(("FP32", (-1, -1)), columns="age spend"), "3 features, must be 2: has besides 'visits'"),
        (metadata(("FP32", (-1, 4))), "takes 4 features, feature view shops has 3 .the last is 'visits'"),
        (metadata(("FP32", (3,))), r"takes \[3\] features"),
        (metadata(("FP64", (-1, 3))), "takes FP64"),
        (metadata(), "takes 0 inputs"),
        (metadata(("FP32", (-1, 1)), ("FP32", (-1, 2))), "takes 2 inputs"),
    ],
)
def test_the_predictors_metadata(found: ModelMetadata, expected: str) -> None:
    import re

    assert (
        re.search(expected, against_metadata(VIEW, found)) if expected else not against_metadata(VIEW, found)
    )


@given(st.lists(st.tuples(st.text(max_size=4), st.lists(st.integers(-1, 2**40), max_size=3)), max_size=3))
def test_metadata_are_read_from_grpc(inputs: list[tuple[str, list[int]]]) -> None:
    tensors = tuple(TensorMetadata(name, "FP32", tuple(shape)) for name, shape in inputs)
    try:
        encoded = encode_model_metadata(ModelMetadata("shops", "p", tensors, tensors, ("1",)))
        [name.encode() for name, _ in inputs]
    except UnicodeEncodeError:
        return
    assert decode_model_metadata(encoded) == ModelMetadata("shops", inputs=tensors, outputs=tensors)


def test_the_view_that_the_model_was_trained_on() -> None:
    user, pair = VIEW.groups
    assert against_trained(VIEW, small_view(ttl_s=5.0)) == ""
    swapped = replace(user, features=user.features[::-1])
    assert "column 0 is 'age', must be 'spend'" in against_trained(
        VIEW, FeatureView("shops", VIEW.entities, (swapped, pair))
    )
    wider = replace(pair, features=(*pair.features, Feature("basket")))
    assert "lacks 'basket'" in against_trained(VIEW, FeatureView("shops", VIEW.entities, (user, wider)))


def test_every_group_must_be_in_the_store() -> None:
    assert against_store(VIEW, [GroupState("user", 3, 5), GroupState("pair", 0, 5)]) == ""
    assert "group pair was never materialized" in against_store(
        VIEW, [GroupState("user", 3, 5), GroupState("pair")]
    )


def test_fallbacks_are_told_at_once_and_then_summed_up() -> None:
    tally = Tally()
    clean = Report((GroupReport("user", 2),))
    missing = Report((GroupReport("user", 2, missing=1, defaulted_rows=1, null_values=3),))
    stale = Report((GroupReport("user", 2, stale=1, stale_used=1),))
    assert tally.add(clean, 0.0) == ""
    assert tally.add(missing, 1.0) == "4 rows in 2 requests; user defaulted rows: 1, user missing: 1"
    assert tally.add(missing, 2.0) == ""
    assert tally.add(clean, 3.0) == ""
    assert tally.add(stale, 4.0) == (
        "6 rows in 3 requests; user defaulted rows: 1, user missing: 1, user stale: 1, user stale used: 1"
    )
    assert tally.add(missing, 5.0) == ""
    assert (
        tally.add(clean, 1.0 + LOG_EVERY_S) == "4 rows in 2 requests; user defaulted rows: 1, user missing: 1"
    )
    assert tally.add(clean, 100.0) == ""
    assert tally.flush() == ""
    assert tally.add(missing, 100.0) == "4 rows in 2 requests; user defaulted rows: 1, user missing: 1"
    tally.add(missing, 101.0)
    assert tally.flush() == "2 rows in 1 requests; user defaulted rows: 1, user missing: 1"
