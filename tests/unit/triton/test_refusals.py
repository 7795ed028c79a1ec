"""Why a Triton does not start is found in its log, and what would let it hang is refused before."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from glowplug.cli.main import app
from glowplug.errors import ConfigError
from glowplug.triton.install import install
from glowplug.triton.refusals import BACKEND_HINT, refuse_blanks, refused_models

LOG = """
I1122 02:35:13.432382 17513 server.cc:674] 
+-------+---------+-------------------------------------------------------+
| Model | Version | Status                                                |
+-------+---------+-------------------------------------------------------+
| clf   | 1       | UNAVAILABLE: unable to find backend library for 'fil' |
| fine  | 2       | READY                                                 |
| py    | 3       | UNAVAILABLE: Internal: NameError: a | b               |
|       |         | At:                                                   |
+-------+---------+-------------------------------------------------------+

+-----------+--------+
| Option    | Value  |
+-----------+--------+
| server_id | triton |
|           |        |
+-----------+--------+
error: creating server: Internal - failed to load all models
"""  # noqa: W291


def test_the_models_that_could_not_be_loaded_are_found_with_their_reasons() -> None:
    table = refused_models(LOG.splitlines())
    assert table.refused == [
        "model 'clf' version 1: UNAVAILABLE: unable to find backend library for 'fil'",
        "model 'py' version 3: UNAVAILABLE: Internal: NameError: a | b / At:",
    ]
    assert table.hint == BACKEND_HINT


def test_the_hint_is_for_missing_backends_only() -> None:
    assert refused_models(LOG.replace("backend library", "file").splitlines()).hint == ""


def test_paths_with_blanks_are_refused(tmp_path: Path) -> None:
    refuse_blanks(tmp_path)
    with pytest.raises(ConfigError, match="cannot use paths with blanks: '/a b/repo'") as caught:
        refuse_blanks(Path("/a b/repo"))
    assert caught.value.hint == "choose a folder without blanks"
    with pytest.raises(ConfigError, match="GLOWPLUG_TRITON_HOME"):
        install(tmp_path / "a b")
    assert not (tmp_path / "a b").exists()


def test_build_refuses_a_repository_with_blanks(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["triton", "build", "model.onnx", "--out", str(tmp_path / "a b")])
    assert "cannot use paths with blanks" in str(ran.exception)


def test_tune_says_that_there_is_neither_folder_nor_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glowplug.cli.triton_tune.find_perf_analyzer", lambda env: None)
    ran = CliRunner().invoke(app, ["triton", "tune", "./nope", "--slo-p99-ms", "9"])
    assert str(ran.exception) == "no folder ./nope, and no InferenceService of that name"
