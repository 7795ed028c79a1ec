from __future__ import annotations

from typer.testing import CliRunner

from glowplug import __version__
from glowplug.cli.main import app


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
