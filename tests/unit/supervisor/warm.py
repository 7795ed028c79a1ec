"""A machine with a warm pool, for tests that fork real replicas."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from unit.supervisor.fakes import Object
from unit.supervisor.machine import Machine

from glowplug.supervisor.images import ImageTable, Unit

ROOT = Path(__file__).parents[3]
_WARM = ROOT / "tests" / "local" / "pods" / "warm"
IMAGE = "example/warm-echo"


def warm_unit(folder: Path, image: str = IMAGE, **fields: Any) -> Unit:
    """A copy of the test's unit, free to be changed."""
    shutil.copytree(_WARM, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return Unit(image, "python -m warm_echo", folder, **fields)


def warm_machine(data_dir: Path, *units: Unit, **settings: Any) -> Machine:
    """Not yet running; its pool begins at once."""
    settings.setdefault("warm_pool_delay_s", 0.0)
    if "machine_path" not in settings:
        settings["machine_path"] = frozen(data_dir.parent / "sources")
    return Machine(data_dir, ImageTable(units), **settings)


def frozen(folder: Path) -> Path:
    """The sources as they are now: an edit while the test runs would have replicas started by exec."""
    if not folder.exists():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "src" / "glowplug", folder / "glowplug", ignore=ignored)
    return folder


def container(image: str = IMAGE, **fields: Any) -> Object:
    env = [{"name": key, "value": value} for key, value in fields.pop("environ", {}).items()]
    return {"name": "main", "image": image, "ports": [{"containerPort": 8080}], "env": env, **fields}


async def warmed(machine: Machine) -> None:
    """Until every unit of the pool has a zygote, or says why it has none."""

    def is_settled() -> bool:
        return all(member.pid or member.why_not for member in machine.supervisor.pool())

    await machine.until(is_settled, "the pool")
    await asyncio.sleep(0)
