"""Feature view files: what is read is what was written, and every problem is told at once with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.features.lab import FLIGHTS_VIEW, small_view, to_yaml, views

from glowplug.errors import FeatureError
from glowplug.features.parse import parse_view, read_view
from glowplug.features.view import FeatureView, first_difference

BAD = """\
apiVersion: glowplug.dev/v1
kind: FeatureView
metadata: {name: Shops, owner: me}
spec:
  entities:
    - {name: user_id, type: uuid}
    - {name: user_id}
  groups:
    - name: user
      keys: [user_id, shop, 7]
      ttl: soon
      onMissing: default
      onStale: ignore
      colour: red
      features:
        - {name: age, default: old}
        - {name: age, dtype: float64, default: .inf}
    - keys: []
      features: {}
  extra: 1
"""


@given(views())
def test_reads_back_what_was_written(view: FeatureView) -> None:
    assert parse_view(to_yaml(view)) == view


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_view_or_a_feature_error(text: str) -> None:
    with pytest.raises(FeatureError):
        parse_view(text)


@given(views(), st.data())
def test_a_damaged_file_is_a_view_or_a_feature_error(view: FeatureView, data: st.DataObject) -> None:
    lines = to_yaml(view).splitlines()
    index = data.draw(st.integers(0, len(lines) - 1))
    lines[index] = data.draw(
        st.sampled_from(["", "- x", "  : 1", "null", lines[index] + " x", lines[index][:-1]])
    )
    try:
        parse_view("\n".join(lines))
    except FeatureError as error:
        assert error.message


def test_every_problem_at_once_with_its_line() -> None:
    with pytest.raises(FeatureError) as caught:
        parse_view(BAD, "bad.yaml")
    found = caught.value.message.splitlines()
    lines = [int(number) for number in re.findall(r"(?m)^bad\.yaml:(\d+) ", caught.value.message)]
    assert len(lines) == len(found)
    assert lines == sorted(lines)
    text = "\n".join(found)
    for expected in (
        "bad.yaml:1 apiVersion = glowplug.dev/v1, must be glowplug.dev/v1alpha1",
        "bad.yaml:3 metadata.name = Shops",
        "bad.yaml:3 metadata.owner is unknown",
        "bad.yaml:6 spec.entities[0].type = uuid, must be one of string, int64",
        "bad.yaml:7 spec.entities[1].name = user_id is taken already",
        "bad.yaml:10 spec.groups[0].keys[1] = shop, must be an entity: user_id",
        "bad.yaml:10 spec.groups[0].keys[2] = 7, must be a string",
        "bad.yaml:11 spec.groups[0].ttl = soon, must be a duration",
        "bad.yaml:13 spec.groups[0].onStale = ignore, must be one of error, default, null, use",
        "bad.yaml:14 spec.groups[0].colour is unknown",
        "bad.yaml:16 spec.groups[0].features[0].default = old, must be a number",
        "bad.yaml:17 spec.groups[0].features[1].name = age is taken already",
        "bad.yaml:17 spec.groups[0].features[1].dtype = float64, must be one of float32",
        "bad.yaml:17 spec.groups[0].features[1].default = inf, must be a finite float32",
        "bad.yaml:18 spec.groups[1].name is missing",
        "bad.yaml:18 spec.groups[1].keys = a list, must be a list of at least one",
        "bad.yaml:19 spec.groups[1].features = a mapping, must be a list of at least one",
        "bad.yaml:20 spec.extra is unknown",
    ):
        assert expected in text, f"{expected!r} is not in\n{text}"


def test_a_default_policy_needs_defaults() -> None:
    text = to_yaml(small_view()).replace("onMissing: error", "onMissing: default")
    with pytest.raises(FeatureError, match="default is missing, and a policy"):
        parse_view(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("a: [", "is not YAML"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("- 1", "must be a mapping"),
        ("kind: !!python/object:os.system {}", "must be"),
        ("a: &x [*x]\n", "missing"),
    ],
)
def test_what_is_no_view_at_all(text: str, expected: str) -> None:
    with pytest.raises(FeatureError, match=expected):
        parse_view(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"none\.yaml cannot be read"):
        read_view(tmp_path / "none.yaml")


def test_the_schema_hash_is_of_names_types_and_order_only() -> None:
    view = small_view()
    other_policy = parse_view(
        to_yaml(view).replace("default: 30.0", "default: 31.0").replace("users", "people")
    )
    assert other_policy.schema_hash == view.schema_hash
    renamed = parse_view(to_yaml(view).replace("name: age", "name: age_years"))
    assert renamed.schema_hash != view.schema_hash
    swapped = FeatureView(view.name, view.entities, view.groups[::-1])
    assert swapped.schema_hash != view.schema_hash
    # Which rows can be read is the group's own affair.
    assert swapped.group("user").schema_hash == view.group("user").schema_hash


def test_the_first_difference_names_the_feature() -> None:
    assert first_difference(("a", "b"), ("a", "b")) == ""
    assert first_difference(("a", "b"), ("b", "a")) == "column 0 is 'b', must be 'a'"
    assert "lacks 'b'" in first_difference(("a", "b"), ("a",))
    assert "has besides 'c'" in first_difference(("a",), ("a", "c"))


def test_the_flights_view() -> None:
    view = read_view(FLIGHTS_VIEW)
    assert (view.name, len(view.features), len(set(view.feature_names))) == ("flights", 50, 50)
    assert [entity.name for entity in view.entities] == [
        "origin",
        "dest",
        "scheduled_hour",
        "carrier",
        "tailnum",
    ]
