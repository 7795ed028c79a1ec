from __future__ import annotations

import pathlib

import pytest
from typer.testing import CliRunner

from glowplug import __version__
from glowplug.cli.main import app
from glowplug.errors import ConfigError


def test_the_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"glowplug {__version__}\n")


def test_every_command_has_an_example() -> None:
    for command in app.registered_commands:
        assert "Example" in (command.epilog or "") and "glowplug " in (command.epilog or "")
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert "Example" in (command.epilog or "") and "glowplug " in (command.epilog or "")


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_units_that_are_not_there(tmp_path: pathlib.Path, detach: list[str]) -> None:
    missing = tmp_path / "none"
    command = ["up", *detach, "--data-dir", str(tmp_path / "data"), "--units", str(missing)]
    refused = CliRunner().invoke(app, command).exception
    assert isinstance(refused, ConfigError)
    assert refused.message == f"--units {missing}: no such folder"
    assert not (tmp_path / "data").exists()
