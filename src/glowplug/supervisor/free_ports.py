"""Free loopback ports for pods.

Below the range from which the kernel takes ports for outgoing connections: a port from that range could be taken by
any client between our look and the container's bind.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from pathlib import Path

from glowplug.errors import ConfigError

_LOWEST = 20000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 2000
# Not the generator that a program seeds: two machines would hand out the same ports in the same order.
_RANDOM = random.SystemRandom()


class FreePorts:
    """Hands out ports that nothing listens on, and none twice until it is given back."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._range = _range()

    def take(self, count: int, avoid: Collection[int] = ()) -> list[int]:
        """`count` free ports, none of them in `avoid`. Raises ConfigError if there are none left."""
        found: list[int] = []
        for _ in range(_TRIES):
            if len(found) == count:
                break
            port = _RANDOM.randrange(*self._range)
            if port in self._taken or port in avoid or port in found or not _is_free(port):
                continue
            found.append(port)
        if len(found) < count:
            raise ConfigError(f"no {count} free ports between {self._range[0]} and {self._range[1]}")
        self._taken.update(found)
        return found

    def give_back(self, ports: Collection[int]) -> None:
        """The pod is gone."""
        self._taken.difference_update(ports)


def _range() -> tuple[int, int]:
    try:
        first = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32768
    if first - _LOWEST >= 1000:
        return _LOWEST, min(first, 32768)
    return _LOWEST, 60000


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
