"""A run's journal: each step once, again where its inputs change, failures told, one process at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.pipelines import toy

from glowplug.errors import ConfigError, DataDirHeld, FeatureError
from glowplug_pipelines.run import Status, open_run, read_request, read_status, run_folder


class Maker:
    """Counts how often a step was done."""

    def __init__(self, value: int = 1) -> None:
        self.value = value
        self.calls = 0

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.calls += 1
        assert list(folder.iterdir()) == []
        (folder / "file").write_text(str(self.value))
        return {"value": self.value}


def test_a_step_is_done_once_and_again_where_its_inputs_change(tmp_path: Path) -> None:
    maker = Maker()
    with open_run(tmp_path, toy.request("r")) as run:
        first = run.step("train", {"data": "a", "pair": (1, 2)}, maker)
    with open_run(tmp_path, toy.request("r")) as run:
        again = run.step("train", {"data": "a", "pair": (1, 2)}, maker)
        assert (maker.calls, again.was_there, again.values) == (1, True, first.values)
        assert again.digest == first.digest
        assert (again.folder / "file").read_text() == "1"
        maker.value = 2
        other = run.step("train", {"data": "b", "pair": (1, 2)}, maker)
    assert (maker.calls, other.values, (other.folder / "file").read_text()) == (2, {"value": 2}, "2")
    assert other.digest != first.digest


def test_what_fails_is_told_and_can_be_done_again(tmp_path: Path) -> None:
    def broken(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("half")
        raise FeatureError("no rows", hint="wait")

    with open_run(tmp_path, toy.request("r")) as run:
        with pytest.raises(FeatureError):
            run.step("dataset", {}, broken)
        assert run.outcome("dataset") is None
        assert not (run.folder / "dataset").exists()
        status = run.status
        assert (status.state, status.step, status.reason, status.hint) == (
            "failed",
            "dataset",
            "no rows",
            "wait",
        )
        with pytest.raises(ConfigError, match="no outcome of the step dataset"):
            run.need("dataset")
        outcome = run.step("dataset", {}, Maker())
    assert [path.name for path in outcome.folder.iterdir()] == ["file"]


def test_a_folder_without_its_outcome_is_a_step_not_done(tmp_path: Path) -> None:
    """What a kill leaves between the two renames."""
    maker = Maker()
    with open_run(tmp_path, toy.request("r")) as run:
        run.step("train", {}, maker)
        (run.folder / "train.json").unlink()
        (run.folder / ".train.draft").mkdir()
        (run.folder / ".train.draft" / "half").write_text("half")
        run.step("train", {}, maker)
        assert maker.calls == 2
        assert [path.name for path in (run.folder / "train").iterdir()] == ["file"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with open_run(tmp_path, toy.request("r")):
        with pytest.raises(DataDirHeld, match="another process"), open_run(tmp_path, toy.request("r")):
            pass
        with open_run(tmp_path, toy.request("other")):
            pass
    with open_run(tmp_path, toy.request("r")):
        pass


def test_a_run_keeps_what_it_was_asked_for(tmp_path: Path) -> None:
    first = toy.request("r", day=60)
    with open_run(tmp_path, first):
        pass
    with open_run(tmp_path, toy.request("r", day=70)) as run:
        assert run.request == first
    assert read_request(tmp_path, "toy", "r") == first
    with pytest.raises(ConfigError, match="is no run of model toy"):
        read_request(tmp_path, "toy", "s")


@pytest.mark.parametrize("name", ["", ".", "..", "../r", "/r", ".hidden"])
def test_an_id_is_the_name_of_a_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="must be the name of a folder"):
        run_folder(tmp_path, "toy", name)


def test_a_status_is_read_without_the_lock(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    with open_run(tmp_path, toy.request("r")) as run:
        run.report(Status("finished", "register", "better", details={"verdict": "pass"}))
        status = read_status(run.folder)
    assert status is not None
    assert (status.state, status.reason, status.details) == ("finished", "better", {"verdict": "pass"})
    assert status.updated.startswith("20")
