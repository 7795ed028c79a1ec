"""Ports of the loopback that stay the router's, also while Envoy is not running."""

from __future__ import annotations

import errno
import socket
import sys

from glowplug.errors import ConfigError


class ReservedPort:
    """A port that nobody else can bind while this is open.

    The socket is bound and never listens. Envoy binds the same port beside it with SO_REUSEPORT, which the kernel
    allows to processes of the same user. Elsewhere than on Linux that is not possible, and the port is only found
    free, not held.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        """Raises ConfigError if the port is taken or not allowed."""
        self._socket: socket.socket | None = None
        # Without SO_REUSEPORT first: with it, a port that another program of this user shares would look free.
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.listen(1)
                self.port: int = probe.getsockname()[1]
        except (OSError, OverflowError) as error:
            raise _config_error(host, port, error) from error
        if sys.platform == "linux":
            self._socket = _bind(host, self.port)

    def close(self) -> None:
        """Gives the port back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _bind(host: str, port: int) -> socket.socket:
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        held.close()
        raise _config_error(host, port, error) from error
    return held


def _config_error(host: str, port: int, error: Exception) -> ConfigError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        hint = f"see who has it with `lsof -i :{port}`, or take another one with --ingress-port (0 takes a free one)"
        return ConfigError(f"port {port} of {host} is in use; the ingress needs it", hint=hint)
    hint = "take another one with --ingress-port (0 takes a free one)"
    return ConfigError(f"port {port} of {host} cannot be opened: {error}", hint=hint)
