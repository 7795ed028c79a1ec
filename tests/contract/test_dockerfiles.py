"""The Dockerfiles: a pinned base, bytecode, not root, the unit's own program; what they share is the same in each.

One file a unit, so that `docker build -f UNIT/Dockerfile .` is all there is to know; these tests keep the copies equal.
"""

from __future__ import annotations

import pathlib
import re
import shlex
import sys

import pytest
import yaml

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

ROOT = pathlib.Path(__file__).parents[2]
LISTED = yaml.safe_load((ROOT / "manifests/images.yaml").read_text())["images"]
DOCKERFILES = sorted({ROOT / each["dockerfile"] for each in LISTED if "dockerfile" in each})
PATTERN = ROOT / "predictors/xgboost/Dockerfile"
# Triton's own image is what it runs on: there is nothing to leave behind.
STAGED = [path for path in DOCKERFILES if path.parent.name != "triton"]
_COPY = re.compile(r"^COPY (?!--from)(.+) \S+$", re.MULTILINE)
_BASE = re.compile(r"^ARG (?:PYTHON|TRITON)=(\S+)$", re.MULTILINE)
# What a unit's own needs change: its dependencies, variables and ports.
_OWN = ("RUN uv pip install", "ENV PATH=", "EXPOSE")


def short(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=short)
def test_keeps_the_rules(dockerfile: pathlib.Path) -> None:
    text = dockerfile.read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) in (["${PYTHON}"] * 2, ["${TRITON}"])
    assert re.fullmatch(
        r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}|\S+:[\d.]+-py3", _BASE.findall(text)[0]
    )
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "10001"
    assert "PYTHONSAFEPATH=1" in text and "PYTHONDONTWRITEBYTECODE=1" in text
    assert "compileall -q -j 0 --invalidation-mode unchecked-hash /app" in text
    assert f"docker build -f {short(dockerfile)} " in text


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=short)
def test_copies_what_is_there_and_in_the_context(dockerfile: pathlib.Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [source for each in _COPY.findall(dockerfile.read_text()) for source in each.split()]
    assert "src/glowplug" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == each or source.startswith(f"{each}/") for each in allowed), source


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=short)
def test_runs_the_units_program(dockerfile: pathlib.Path) -> None:
    entry = yaml.safe_load(re.findall(r"^ENTRYPOINT (.+)$", dockerfile.read_text(), re.MULTILINE)[0])
    project = dockerfile.parent / "pyproject.toml"
    if not project.exists():
        assert entry == ["python", "-m", "glowplug.cli.main"]
        return
    run = shlex.split(tomllib.loads(project.read_text())["tool"]["glowplug"]["unit"]["run"])
    # Triton's image has no `python`.
    assert [entry[0].removesuffix("3"), *entry[1:]] == run


@pytest.mark.parametrize("dockerfile", STAGED, ids=short)
def test_shares_what_is_shared(dockerfile: pathlib.Path) -> None:
    shared = [
        line
        for line in PATTERN.read_text().splitlines()
        if "xgboost" not in line and not line.startswith(_OWN)
    ]
    assert len(shared) > 15
    theirs = iter(dockerfile.read_text().splitlines())
    # In this order, with lines of their own in between.
    missing = [line for line in shared if line not in theirs]
    assert not missing, missing[0]
