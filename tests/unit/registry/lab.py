"""Registries whose tables are there already: to make them takes MLflow five seconds, and a copy is as good."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from glowplug.registry.models import RegistryConfig, warm


def with_tables(folder: Path, factory: pytest.TempPathFactory) -> RegistryConfig:
    """An empty registry in `folder`; the tables are made by the first that asks in a process."""
    template = factory.getbasetemp() / "mlflow-tables"
    if not template.exists():
        warm(RegistryConfig.local(template))
    folder.mkdir(parents=True, exist_ok=True)
    with (
        closing(sqlite3.connect(template / "mlflow.db")) as made,
        closing(sqlite3.connect(folder / "mlflow.db")) as copy,
    ):
        made.backup(copy)
    return RegistryConfig.local(folder)
