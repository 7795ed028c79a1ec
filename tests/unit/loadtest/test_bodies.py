"""What is sent: rows and bodies of a file, and real flights."""

from __future__ import annotations

import pathlib

import pytest

from glowplug.errors import ConfigError
from glowplug.features.parse import parse_view
from glowplug.wire import v2_json
from glowplug_loadtest import bodies

VIEW = pathlib.Path(__file__).parents[3] / "transformers/feature-lookup/feature_view.yaml"


def test_rows_of_a_csv_with_and_without_a_heading(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "rows.csv"
    for heading in ("", "a,b\n"):
        file.write_text(f"{heading}1,2.5\n\n3,4\n")
        found = bodies.from_file(file)
        assert [body["inputs"][0]["data"] for body in found] == [[1, 2.5], [3, 4]]
        request = v2_json.decode_request(v2_json.dump_json(found[0]), model_name="m")
        assert request.inputs[0].shape == (1, 2)


def test_rows_and_bodies_of_a_jsonl_and_one_body(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('[1, 2]\n\n{"inputs": [{"name": "x"}], "parameters": {"a": 1}}\n')
    assert [sorted(body) for body in bodies.from_file(file)] == [["inputs"], ["inputs", "parameters"]]
    file = tmp_path / "one.json"
    file.write_text('{"inputs": []}\n')
    assert bodies.from_file(file) == [{"inputs": []}]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "1,2\n3,x\n", ":2 is not a row of numbers"),
        ("a.csv", "1,nan\n", ":1 holds a number that is not finite"),
        ("a.csv", "a,b\n", "holds no request"),
        ("a.jsonl", "[1]\n{\n", ":2 is not JSON"),
        ("a.jsonl", "[true]\n", ":1 is neither"),
        ("a.json", '{"instances": [[1]]}', "is neither a V2 body"),
        ("a.jsonl", "", "holds no request"),
    ],
)
def test_files_that_cannot_be_sent(tmp_path: pathlib.Path, name: str, text: str, words: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        bodies.from_file(file)
    assert words in error.value.message
    with pytest.raises(ConfigError, match="No such file"):
        bodies.from_file(tmp_path / "none.csv")


def test_flights_name_the_entities_of_the_view() -> None:
    found = bodies.flights(20)
    names = [entity.name for entity in parse_view(VIEW.read_text(), str(VIEW)).entities]
    assert len(found) == 20
    assert all([tensor["name"] for tensor in body["inputs"]] == names for body in found)
    assert len({str(body) for body in found}) > 15
    assert found == bodies.flights(20)
