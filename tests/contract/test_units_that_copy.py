"""Units say that they copy requests by themselves if, and only if, it is our server that takes their requests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from glowplug.supervisor.images import ImageTable, Unit, discover

ROOT = Path(__file__).parents[2]
# A table of all of them, so that a unit that is added is looked at too.
IMAGES: ImageTable = discover(ROOT / name for name in ("predictors", "transformers", "eventing", "pipelines"))
_OUR_SERVER = re.compile(r"^from glowplug\.serving import [^#\n]*\bserve\b", re.MULTILINE)


@pytest.mark.parametrize("unit", IMAGES.units, ids=lambda unit: unit.folder.name)
def test_a_unit_copies_where_it_is_our_server(unit: Unit) -> None:
    mains = unit.src.glob("*/__main__.py")
    is_ours = any(_OUR_SERVER.search(path.read_text("utf-8")) for path in mains)
    assert unit.copies is is_ours, (
        f"{unit.folder}/pyproject.toml: copies = {str(is_ours).lower()} is expected"
    )
