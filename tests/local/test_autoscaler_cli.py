"""`glowplug autoscaler` on real files."""

from __future__ import annotations

import json
import pathlib

from typer.testing import CliRunner

from glowplug.cli import autoscaler
from glowplug.errors import ConfigError

TRACE = (
    '{"target":7,"total":10}\n{"t":0,"ready":1,"no_data":true}\n\n{"t":2,"ready":1,"stable":3,"panic":30}\n'
)


def test_a_file_and_stdin(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text("\ufeff" + TRACE, encoding="utf-8")
    from_file = CliRunner().invoke(autoscaler.app, ["replay", str(file), "--json"])
    from_stdin = CliRunner().invoke(autoscaler.app, ["replay", "-", "--json"], input=TRACE)
    assert (from_file.exit_code, from_file.stdout) == (0, from_stdin.stdout)
    assert [json.loads(line)["desired"] for line in from_file.stdout.splitlines()] == [0, 5]
    table = CliRunner().invoke(autoscaler.app, ["replay", str(file)])
    assert "panic begins" in table.stdout


def test_files_that_cannot_be_replayed(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_bytes(TRACE.encode() + b'\xff\xfe\n{"t":1}\n')
    for path, words in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
        (file, f"{file}:5 is not JSON"),
    ):
        result = CliRunner().invoke(autoscaler.app, ["replay", str(path)])
        assert isinstance(result.exception, ConfigError)
        assert words in result.exception.message
    assert f"{file}:6 ready is missing" in result.exception.message
