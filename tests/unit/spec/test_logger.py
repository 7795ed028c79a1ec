"""What a revision's annotations say of its payload logger."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec import logger, names
from glowplug.spec.logger import DEFAULT_URL, Logger, logger_of


def revision(labels: dict[str, str] | None = None, **annotations: str) -> dict[str, Any]:
    known = {key.replace("_", "-"): value for key, value in annotations.items()}
    found = {f"{logger.INTERNAL}/{key}" if key.startswith("logger") else key: v for key, v in known.items()}
    named = {names.INFERENCE_SERVICE_LABEL: "flights", names.COMPONENT_LABEL: "predictor"}
    metadata = {"name": "flights-00001", "namespace": "default", "annotations": found}
    return {"metadata": {**metadata, "labels": named if labels is None else labels}}


def test_a_revision_without_the_annotation_or_without_a_service_logs_nothing() -> None:
    assert logger_of(revision()) is None
    assert logger_of(revision({}, logger="true")) is None
    assert logger_of({}) is None


def test_what_is_left_out_is_kserves_default() -> None:
    found = logger_of(revision(logger="true"))
    assert found == Logger(
        "flights", "default", "predictor", "flights-00001", DEFAULT_URL, "all", percent=100
    )


def test_lists_are_split_and_annotations_come_with_their_values() -> None:
    obj = revision(
        logger="true", logger_mode="response", logger_sink_url="http://x/", team="a,b",
        logger_metadata_headers="A, b,,", logger_metadata_annotations="team,none",
    )  # fmt: skip
    obj["metadata"]["annotations"][names.LOGGER_SAMPLE_PERCENT] = "12.5"
    found = logger_of(obj)
    assert found is not None
    assert (found.url, found.percent, found.headers) == ("http://x/", 12.5, ("A", "b"))
    assert found.annotations == (("team", "a,b"),)
    assert found.tells_responses and not found.tells_requests


@given(
    st.dictionaries(st.text(max_size=8), st.text(), max_size=4), st.lists(st.text(max_size=20), max_size=3)
)
def test_as_text_it_fits_a_header_and_comes_back(annotations: dict[str, str], headers: list[str]) -> None:
    given_ = Logger("s", "n", "c", "r", "http://x/%20", "all", tuple(headers), tuple(annotations.items()))
    text = given_.to_text()
    assert text.isascii() and text.isprintable()
    assert Logger.from_text(text) == given_


def test_annotations_that_no_header_holds_are_left_out() -> None:
    annotations = (("small", "kept"), ("large", "x" * 20_000))
    found = Logger.from_text(Logger("s", "n", "c", "r", annotations=annotations).to_text())
    assert found.annotations == annotations[:1]


@pytest.mark.parametrize("text", ["", "all", "-1", "101", "1e1"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    (problem,) = logger.problems({names.LOGGER_SAMPLE_PERCENT: text})
    assert names.LOGGER_SAMPLE_PERCENT in problem.field
    assert not list(logger.problems({names.LOGGER_SAMPLE_PERCENT: "0.5"}))
