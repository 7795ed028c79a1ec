"""The table of units: which image runs as which local command.

A unit is a folder whose pyproject.toml has

    [tool.glowplug.unit]
    image = "glowplug/xgboost"
    run = "python -m glowplug_xgboost"
    readiness = "/v2/health/ready"      # optional: what the default readiness probe asks for
    preload = ["onnxruntime"]           # optional: what the warm pool imports besides what the main module imports;
                                        # "module:function" is called too
    pool = false                        # optional: no warm pool, every replica is started by exec
    copies = true                       # optional: it is our server (glowplug.serving) that takes its requests, which
                                        # copies them by itself for payload loggers and shadows

There is no guess beyond this table: an image that is not in it is an error that lists those that are.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowplug.errors import ConfigError

# Bound by name, as a type checker sees only one of the two at a time.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


@dataclass(frozen=True)
class Unit:
    """A deployable folder: `image` without tag, `run` a shell-like command line, `src` its import path."""

    image: str
    run: str
    folder: Path
    readiness: str | None = None
    preload: tuple[str, ...] = ()
    is_pooled: bool = True
    copies: bool = False

    @property
    def src(self) -> Path:
        """What goes on PYTHONPATH."""
        return self.folder / "src"


@dataclass(frozen=True)
class ImageTable:
    """The known units."""

    units: tuple[Unit, ...] = ()

    def find(self, image: str) -> Unit | None:
        """The unit behind an image reference: tag, digest and any registry prefix are ignored."""
        name = untagged(image)
        matches = [unit for unit in self.units if name == unit.image or name.endswith("/" + unit.image)]
        return max(matches, key=lambda unit: len(unit.image), default=None)

    def unknown(self, image: str) -> str:
        """The message for an image that is not in the table."""
        known = ", ".join(sorted(unit.image for unit in self.units)) or "none"
        return (
            f'image "{image}" is not known on this computer, known are: {known} '
            "(hint: give the container a `command`, or add a folder whose pyproject.toml has [tool.glowplug.unit])"
        )


def untagged(image: str) -> str:
    """`registry:5000/a/b:1.0@sha256:…` → `registry:5000/a/b`."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def discover(folders: Iterable[Path]) -> ImageTable:
    """The units in `folders` and in their direct subfolders. Raises ConfigError with every problem found."""
    units: dict[str, Unit] = {}
    problems: list[str] = []
    for folder in folders:
        for path in [folder / "pyproject.toml", *sorted(folder.glob("*/pyproject.toml"))]:
            unit = _read(path, problems)
            if unit is None:
                continue
            twin = units.setdefault(unit.image, unit)
            if twin.folder != unit.folder:
                problems.append(f'{path}: image = "{unit.image}" is already declared by {twin.folder}')
    if problems:
        raise ConfigError(
            "; ".join(problems), hint="see [tool.glowplug.unit] in predictors/xgboost/pyproject.toml"
        )
    return ImageTable(tuple(units.values()))


def _read(path: Path, problems: list[str]) -> Unit | None:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        problems.append(f"{path}: {error}")
        return None
    table = document.get("tool", {}).get("glowplug", {}).get("unit")
    if table is None:
        return None
    found = _problems(path, table)
    problems.extend(found)
    if found:
        return None
    return Unit(
        untagged(table["image"]),
        table["run"],
        path.parent.resolve(),
        table.get("readiness"),
        tuple(table.get("preload", ())),
        table.get("pool", True),
        table.get("copies", False),
    )


def _problems(path: Path, table: Any) -> list[str]:
    if not isinstance(table, dict):
        return [f"{path} [tool.glowplug.unit]: must be a table"]
    found = [
        f"{path} [tool.glowplug.unit] {key}: must be a non-empty string"
        for key in ("image", "run")
        if not isinstance(table.get(key), str) or not table[key].strip()
    ]
    readiness = table.get("readiness")
    if readiness is not None and not (isinstance(readiness, str) and readiness.startswith("/")):
        found.append(f'{path} [tool.glowplug.unit] readiness: must be a path such as "/v2/health/ready"')
    preload = table.get("preload", [])
    if not (isinstance(preload, list) and all(isinstance(name, str) and name for name in preload)):
        found.append(f"{path} [tool.glowplug.unit] preload: must be a list of `module` or `module:function`")
    found += [
        f"{path} [tool.glowplug.unit] {key}: must be true or false"
        for key in ("pool", "copies")
        if not isinstance(table.get(key, True), bool)
    ]
    unknown = sorted(set(table) - {"image", "run", "readiness", "preload", "pool", "copies"})
    if unknown:
        found.append(f"{path} [tool.glowplug.unit]: unknown keys {', '.join(unknown)}")
    return found
