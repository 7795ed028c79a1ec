"""Fixtures of the tests that run real processes: a whole machine on free ports, and a small model to serve."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest
from local.kafka_lab import KafkaLab
from local.machine_lab import MachineLab, write_model


def pytest_configure(config: pytest.Config) -> None:
    """Python 3.10 takes a TLS connection that the other side closed for one that nobody closed; 3.11 does not."""
    if sys.version_info < (3, 11):
        config.addinivalue_line(
            "filterwarnings", "ignore:unclosed transport <asyncio.sslproto:ResourceWarning"
        )


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaLab]:
    """One real Kafka for all tests of it; they kill it, and start it again."""
    lab = KafkaLab(tmp_path_factory.mktemp("kafka"))
    lab.up()
    yield lab
    lab.end()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with an XGBoost model of three features: the answer is close to their sum."""
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineLab]:
    """One running machine for all tests that leave it as they found it."""
    lab = MachineLab(tmp_path_factory.mktemp("machine") / "data")
    lab.up()
    yield lab
    lab.close()


@pytest.fixture
def own_machine(tmp_path: pathlib.Path) -> Iterator[MachineLab]:
    """A machine that a test may break; not yet started."""
    lab = MachineLab(tmp_path / "data")
    yield lab
    lab.close()
