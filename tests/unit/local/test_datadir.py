"""The data directory: one holder at a time, free again when the holder is gone, described whole or not at all."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from glowplug.errors import ConfigError, DataDirHeld
from glowplug.local.datadir import DataDir

HOLD = """
import sys, time, pathlib
from glowplug.local.datadir import DataDir
with DataDir.at(pathlib.Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: pathlib.Path):
    """Another process that holds the directory."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_free_directory_has_no_holder(tmp_path: pathlib.Path) -> None:
    directory = DataDir.at(tmp_path / "new")
    assert directory.holder() is None
    with directory.held():
        assert directory.root.stat().st_mode & 0o777 == 0o700
    assert directory.holder() is None


def test_second_holder_is_told_the_first(tmp_path: pathlib.Path, holder: subprocess.Popen[str]) -> None:
    directory = DataDir.at(tmp_path)
    assert directory.holder() == holder.pid
    with pytest.raises(DataDirHeld) as refused, directory.held():
        pass
    assert str(holder.pid) in refused.value.message
    assert "glowplug down" in refused.value.hint


def test_a_killed_holder_leaves_the_directory_free(
    tmp_path: pathlib.Path, holder: subprocess.Popen[str]
) -> None:
    directory = DataDir.at(tmp_path)
    directory.describe({"pid": holder.pid})
    assert directory.described() == {"pid": holder.pid}
    holder.kill()
    holder.wait()
    assert directory.holder() is None
    assert directory.described() is None
    with directory.held():
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_directory_that_cannot_be_made_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as refused:
        DataDir.at(tmp_path / "file" / "below").create()
    assert str(tmp_path / "file" / "below") in refused.value.message
