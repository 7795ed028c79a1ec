"""Ports of pods, handed out."""

from __future__ import annotations

import random
import socket

import pytest

from glowplug.supervisor.free_ports import FreePorts


def test_none_is_handed_out_twice_until_it_is_given_back() -> None:
    ports = FreePorts()
    first = ports.take(50)
    assert len({*first, *ports.take(50, avoid=[8080])}) == 100
    ports.give_back(first)
    assert len(ports.take(50)) == 50


def test_one_that_somebody_listens_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr("glowplug.supervisor.free_ports._range", lambda: (port, port + 40))
        assert port not in FreePorts().take(5)


def test_two_machines_hand_out_other_ports_whatever_a_program_seeds() -> None:
    """Between the look and the container's bind the port is free for both."""
    random.seed(1)
    first = FreePorts().take(5)
    random.seed(1)
    assert first != FreePorts().take(5)
